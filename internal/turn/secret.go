package turn

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/keyfile"
	"github.com/parley-jami/parley/internal/secret"
)

// minSecret is the shortest secret that is taken, in bytes: anybody with a credential
// may guess at the secret offline.
const minSecret = 16

// Secret returns what signs credentials: from the environment, from turn.secret_file,
// else from turn/secret in the data directory, where it is made when it is not there.
// The process does not have the variable afterwards.
func Secret(c *config.Config) ([]byte, error) {
	key, err := secret.TakeEnv(config.EnvTURNSecret)
	if err != nil {
		return nil, err
	}
	switch {
	case key != nil:
	case c.TURN.SecretFile != "":
		if err := Private(c.TURN.SecretFile); err != nil {
			return nil, fmt.Errorf("turn.secret_file: %w", err)
		}
		if key, err = secret.File(c.TURN.SecretFile); err != nil {
			return nil, fmt.Errorf("turn.secret_file: %w", err)
		}
	default:
		dir := filepath.Join(c.Data, "turn")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		raw, err := keyfile.Load(filepath.Join(dir, "secret"), 32)
		if err != nil {
			return nil, err
		}
		key = []byte(hex.EncodeToString(raw)) // the text of the file, so that other servers can be given it
	}
	if len(key) < minSecret {
		return nil, fmt.Errorf("the secret for relays has fewer than %d bytes and can be guessed; take a random one", minSecret)
	}
	return key, nil
}

var errShared = errors.New("others on this machine can read it; chmod 600")

// Private refuses a file that others can read. One of a group is taken: that is how
// container platforms hand secrets to a user who is not root.
func Private(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s: %w", path, errShared)
	}
	return nil
}
