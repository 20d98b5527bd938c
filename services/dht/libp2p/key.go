package libp2p

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/parley-jami/parley/internal/atomicfile"
)

// maxKeyFile is far above the 68 bytes of an Ed25519 key.
const maxKeyFile = 4096

// KeyDamagedError says that the node key's file does not parse. It is never
// overwritten.
type KeyDamagedError struct {
	Path string
	Err  error
}

func (e *KeyDamagedError) Error() string {
	return fmt.Sprintf("%s is damaged (%v); nothing was changed: put it back from a backup, or move it away "+
		"to take part in the overlay under a new node id, and restart dht", e.Path, e.Err)
}

func (e *KeyDamagedError) Unwrap() error { return e.Err }

// NodeKey loads the node's Ed25519 key, or makes it at the first start.
func NodeKey(path string) (crypto.PrivKey, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return newNodeKey(path)
	case err != nil:
		return nil, fmt.Errorf("node key: %w", err)
	case st.Size() > maxKeyFile:
		return nil, &KeyDamagedError{path, fmt.Errorf("%d bytes", st.Size())}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	k, err := parseNodeKey(b)
	if err != nil {
		return nil, &KeyDamagedError{path, err}
	}
	return k, nil
}

// parseNodeKey never shows bytes of a key in its error.
func parseNodeKey(b []byte) (crypto.PrivKey, error) {
	k, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return nil, errors.New("not a libp2p key")
	}
	if k.Type() != crypto.Ed25519 {
		return nil, errors.New("not an Ed25519 key")
	}
	return k, nil
}

func newNodeKey(path string) (crypto.PrivKey, error) {
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	b, err := crypto.MarshalPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	return k, atomicfile.Write(path, b, 0o600)
}
