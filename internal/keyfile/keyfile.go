// Package keyfile keeps small random secrets in files of mode 0600: made when
// they are not there, refused when they are damaged.
package keyfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Load returns the n random bytes that path holds as hex, and makes the file
// when there is none. A file that holds anything else is an error and left as it
// is: overwriting it would take away what people were given.
func Load(path string, n int) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return create(path, n)
	}
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != n {
		return nil, fmt.Errorf("%s does not hold %d hex digits; restore it, or remove it to have a new one made", path, 2*n)
	}
	return key, nil
}

// create writes beside path and links into place, so that a crash leaves
// either nothing or all of it, and of two processes one wins.
func create(path string, n int) ([]byte, error) {
	key := make([]byte, n)
	rand.Read(key)                                                        // never fails: crypto/rand ends the process instead
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		return Load(path, n)
	} else if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	return key, nil
}
