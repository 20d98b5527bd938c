package embed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/nats-io/jwt/v2"
)

// writeCreds writes DATA/creds/NAME.creds for every process. A file that says the
// same already is left alone; one of a former version's permissions is replaced.
func writeCreds(dir string, k *keys) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	for _, name := range Processes {
		tok, err := k.userJWT(name)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name+".creds")
		same, err := saysSame(path, tok)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		seed, err := k.users[name].Seed()
		if err != nil {
			return fmt.Errorf("credentials of %s: %w", name, err)
		}
		out, err := jwt.FormatUserConfig(tok, seed)
		if err != nil {
			return fmt.Errorf("credentials of %s: %w", name, err)
		}
		if err := writeFile(path, out); err != nil {
			return err
		}
	}
	return nil
}

// saysSame reports whether the file at path holds the claims of tok, whenever
// they were signed.
func saysSame(path, tok string) (bool, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("credentials: %w", err)
	}
	oldTok, err := jwt.ParseDecoratedJWT(raw)
	if err != nil {
		return false, damagedCreds(path, err)
	}
	was, err := jwt.DecodeUserClaims(oldTok)
	if err != nil {
		return false, damagedCreds(path, err)
	}
	if _, err := jwt.ParseDecoratedUserNKey(raw); err != nil {
		return false, damagedCreds(path, err)
	}
	is, err := jwt.DecodeUserClaims(tok)
	if err != nil {
		return false, fmt.Errorf("credentials: %w", err)
	}
	return was.Subject == is.Subject && was.Issuer == is.Issuer && reflect.DeepEqual(was.User, is.User), nil
}

func damagedCreds(path string, err error) error {
	return fmt.Errorf("%s is damaged (%w): remove it, it is then made again from the bus keys", path, err)
}
