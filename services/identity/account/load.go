package account

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

var dirName = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Load loads the account below root. It returns [ErrNone] when there is none, a
// [*DamagedError] when there is one that cannot be used, and another error where
// the disk or the permissions are at fault, which may pass. The clock is not looked
// at: see [Account.Dates]. The password is for the archive; one that does not open
// it leaves the archive [Locked].
func Load(root string, password []byte) (*Account, error) {
	if err := removeHalfMade(root); err != nil {
		return nil, fmt.Errorf("load account: %w", err)
	}
	found, err := list(root)
	if err != nil {
		return nil, fmt.Errorf("load account: %w", err)
	}
	switch len(found) {
	case 0:
		return nil, ErrNone
	case 1:
		return load(filepath.Join(root, found[0]), password)
	}
	return nil, &DamagedError{Path: root, Err: fmt.Errorf("%d accounts %v, a node has one", len(found), found)}
}

// list names the account directories below root.
func list(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() && dirName.MatchString(e.Name()) {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// load reads and checks every file, in the order of §3.2.
func load(dir string, password []byte) (*Account, error) {
	a := &Account{Dir: dir, revoked: new(trust.Revocations)}
	if left, err := filepath.Glob(filepath.Join(dir, ".*.tmp-*")); err == nil {
		for _, path := range left { // of a killed process
			os.Remove(path) // an error: the disk is read-only, and that is told when it matters
		}
	}
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
			a.Chain, err = (&trust.Rules{AnyTime: true}).Parse(b)
			return err
		}},
		{fileArchive, func(b []byte) error { return a.checkArchive(b, password) }},
		{fileContacts, func(b []byte) (err error) {
			a.contacts, err = jami.ParseContacts(b)
			return err
		}},
		{fileKnown, func(b []byte) (err error) {
			a.known, err = jami.ParseKnownDevices(b)
			return err
		}},
	} {
		path := filepath.Join(dir, f.name)
		b, err := readFile(path)
		if mayPass(err) {
			return nil, fmt.Errorf("load account: %w", err)
		}
		if err == nil {
			err = f.read(b)
		}
		if errors.Is(err, errRevoked) {
			return nil, &DamagedError{Path: dir, Err: err, Advice: revokedAdvice}
		}
		if err != nil {
			return nil, &DamagedError{Path: path, Err: err}
		}
	}
	if !a.key.PublicKey.Equal(a.Chain.Device.PublicKey) {
		return nil, &DamagedError{Path: filepath.Join(dir, fileKey), Err: errors.New("not the key of " + fileChain)}
	}
	var err error
	if a.Receipt, err = jami.ParseReceipt(receipt, []byte(sig), a.Chain.Device, a.Chain.Account); err != nil {
		return nil, &DamagedError{Path: filepath.Join(dir, fileConfig), Err: err}
	}
	if err = a.loadDevices(); err != nil {
		if _, damaged := errors.AsType[*DamagedError](err); !damaged {
			err = fmt.Errorf("load account: %w", err)
		}
		return nil, err
	}
	return a, nil
}

var errRevoked = &trust.Error{Reason: trust.Revoked}

// revokedAdvice is for a device that another device of the account shut out.
const revokedAdvice = "the account's archive says that this device was revoked; peers refuse it. Stop the node, and move the directory " +
	"away to start with a new account, or import the account's archive anew"

// mayPass reports whether it was the system that refused, other than for a file that
// is not there: permissions, the disk, too many open files.
func mayPass(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok && !errors.Is(err, fs.ErrNotExist)
}

// checkArchive makes sure, while a backup may still be at hand, that the archive
// opens, is this account's and has not revoked the device. Its keys are dropped again.
func (a *Account) checkArchive(b, password []byte) error {
	locked, _ := a.config[keyHasPassword].(bool)
	if a.guard = Plain; jami.Encrypted(b) {
		a.guard, a.password = Known, password
	} else {
		password = nil
	}
	archive, err := jami.ParseArchive(b, password)
	if locked && errors.Is(err, jami.ErrPassword) {
		a.guard, a.password = Locked, nil
		return nil
	}
	if err != nil {
		return err
	}
	if archive.ID() != a.Chain.JamiID {
		return fmt.Errorf("of account %s, the device is of %s", archive.ID(), a.Chain.JamiID)
	}
	if archive.CRL == nil {
		return nil
	}
	if _, err := a.revoked.Add(archive.CRL, archive.Account); err != nil {
		return err
	}
	a.keepList(archive.CRL)
	_, err = (&trust.Rules{AnyTime: true, Revoked: a.revoked}).Check(a.Chain.Certs())
	return err
}
