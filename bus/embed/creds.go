package embed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/nats-io/jwt/v2"

	"github.com/parley-jami/parley/internal/natscreds"
)

// newCreds returns what DATA/creds has to hold for every process, by the path of the file; nil: it is
// there already. Users are out by what was signed before that, so that nobody has more than
// this version gives: out is until when, by the key of the user, in Unix seconds.
func newCreds(dir string, k *keys, d *door) (files map[string][]byte, out map[string]int64, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("credentials: %w", err)
	}
	files, out = map[string][]byte{}, map[string]int64{}
	for _, name := range Processes {
		tok, err := k.userJWT(name, d.from)
		if err != nil {
			return nil, nil, err
		}
		is, err := jwt.DecodeUserClaims(tok)
		if err != nil {
			return nil, nil, fmt.Errorf("credentials: %w", err)
		}
		path := filepath.Join(dir, name+".creds")
		was, err := credsAt(path)
		if err != nil {
			return nil, nil, err
		}
		files[path] = nil
		if was == nil || !sameUser(was.User, is) || !reflect.DeepEqual(was.Access, d.own) {
			seed, err := k.users[name].Seed()
			if err != nil {
				return nil, nil, fmt.Errorf("credentials of %s: %w", name, err)
			}
			if files[path], err = natscreds.Format(tok, seed, d.own); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
		} else {
			is = was.User
		}
		out[is.Subject] = is.IssuedAt - 1
	}
	return files, out, nil
}

// writeCreds writes what newCreds returned.
func writeCreds(files map[string][]byte) error {
	for path, text := range files {
		if text == nil {
			continue
		}
		if err := writeFile(path, text); err != nil {
			return err
		}
	}
	return nil
}

// credsAt reads a file of the node's own; nil: there is none.
func credsAt(path string) (*natscreds.File, error) {
	f, err := natscreds.Read(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case errors.Is(err, natscreds.ErrMalformed):
		return nil, damagedCreds(path, err)
	}
	return f, err
}

// sameUser reports whether two claims say the same, whenever they were signed.
func sameUser(was, is *jwt.UserClaims) bool {
	return was.Subject == is.Subject && was.Issuer == is.Issuer && reflect.DeepEqual(was.User, is.User)
}

func damagedCreds(path string, err error) error {
	return fmt.Errorf("%s is damaged (%w): remove it, it is then made again from the bus keys", path, err)
}
