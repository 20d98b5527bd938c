package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

var dirName = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Load loads the account below root. It returns [ErrNone] when there is none
// and a [*DamagedError] when there is one that cannot be used.
func Load(root string, now time.Time) (*Account, error) {
	if err := removeHalfMade(root); err != nil {
		return nil, fmt.Errorf("load account: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("load account: %w", err)
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() && dirName.MatchString(e.Name()) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return nil, ErrNone
	case 1:
		return load(filepath.Join(root, found[0]), now)
	}
	return nil, &DamagedError{Path: root, Err: fmt.Errorf("%d accounts %v, a node has one", len(found), found)}
}

// load reads and checks every file, in the order of §3.2.
func load(dir string, now time.Time) (*Account, error) {
	a := &Account{Dir: dir}
	var receipt, sig string
	for _, f := range []struct {
		name string
		read func([]byte) error
	}{
		{fileConfig, func(b []byte) (err error) {
			a.config, a.set, receipt, sig, err = parseConfig(b)
			return err
		}},
		{fileKey, func(b []byte) (err error) {
			a.key, err = jami.ParseKey(b)
			return err
		}},
		{fileChain, func(b []byte) (err error) {
			a.Chain, err = jami.ParseChain(b, now)
			return err
		}},
		{fileArchive, func(b []byte) error { return checkArchive(b, a.Chain) }},
		{fileContacts, func(b []byte) error {
			_, err := jami.ParseContacts(b)
			return err
		}},
		{fileKnown, func(b []byte) error {
			_, err := jami.ParseKnownDevices(b)
			return err
		}},
	} {
		path := filepath.Join(dir, f.name)
		b, err := readFile(path)
		if err == nil {
			err = f.read(b)
		}
		if err != nil {
			return nil, &DamagedError{Path: path, Err: err}
		}
	}
	if !a.key.PublicKey.Equal(a.Chain.Device.PublicKey) {
		return nil, &DamagedError{Path: filepath.Join(dir, fileKey), Err: errors.New("not the key of " + fileChain)}
	}
	var err error
	if a.Receipt, err = jami.ParseReceipt(receipt, []byte(sig), a.Chain); err != nil {
		return nil, &DamagedError{Path: filepath.Join(dir, fileConfig), Err: err}
	}
	return a, nil
}

// checkArchive makes sure, while a backup may still be at hand, that the archive
// opens and is this account's. Its keys are dropped again.
func checkArchive(b []byte, c *jami.Chain) error {
	archive, err := jami.ParseArchive(b, nil)
	if err != nil {
		return err
	}
	if id, _ := jami.CertIDs(archive.Account); id != c.JamiID() {
		return fmt.Errorf("of account %s, the device is of %s", id, c.JamiID())
	}
	return nil
}
