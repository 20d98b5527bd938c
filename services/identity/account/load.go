package account

import (
	"crypto/rsa"
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

// Load loads the main account below root. It returns [ErrNone] when there is none, a
// [*DamagedError] when there is one that cannot be used, and another error where
// the disk or the permissions are at fault, which may pass. The clock is not looked
// at: see [Account.Dates]. A password that does not open the archive leaves it
// [Locked].
func (s *Store) Load() (*Account, error) {
	if err := removeHalfMade(s.Root); err != nil {
		return nil, fmt.Errorf("load account: %w", err)
	}
	found, err := list(s.Root)
	if _, damaged := errors.AsType[*DamagedError](err); damaged {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("load account: %w", err)
	}
	if err := s.sealAside(); err != nil {
		return nil, fmt.Errorf("load account: keys of accounts that are not in use: %w", err)
	}
	if len(found) == 0 {
		return nil, s.elsewhere()
	}
	return s.load(filepath.Join(s.Root, found[0]))
}

// load reads and checks every file, in the order of §3.2.
func (s *Store) load(dir string) (*Account, error) {
	a := &Account{Dir: dir, store: s, revoked: new(trust.Revocations)}
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
			a.managed = managedOf(a.config)
			return err
		}},
		{fileKey, func(b []byte) (err error) {
			key, err := s.parseKey(b)
			if err == nil {
				a.key = key
			}
			return err
		}},
		{fileChain, func(b []byte) (err error) {
			a.Chain, err = (&trust.Rules{AnyTime: true}).Parse(b)
			return err
		}},
		{fileArchive, a.checkArchive},
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
		if f.name == fileArchive && a.managed.Server != "" {
			a.guard = Server
			continue
		}
		b, err := readFile(path)
		if mayPass(err) {
			return nil, fmt.Errorf("load account: %w", err)
		}
		if err == nil {
			err = f.read(b)
		}
		if errors.Is(err, &trust.Error{Reason: trust.Revoked}) {
			return nil, &DamagedError{Path: dir, Err: errRevoked, Advice: revokedAdvice}
		}
		if errors.Is(err, errSealed) {
			return nil, &DamagedError{Path: path, Err: err, Advice: sealedAdvice}
		}
		if err != nil {
			return nil, &DamagedError{Path: path, Err: err}
		}
	}
	if pub, ok := a.key.Public().(*rsa.PublicKey); !ok || !pub.Equal(a.Chain.Device.PublicKey) {
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
	if err := a.seal(); err != nil {
		return nil, fmt.Errorf("load account: keys not encrypted: %w", err)
	}
	if err := a.renew(); err != nil {
		return nil, fmt.Errorf("load account: certificates not renewed: %w", err)
	}
	return a, nil
}

var errRevoked = &trust.Error{Reason: trust.Revoked, Place: "device", Why: "another device of the account revoked it"}

// revokedAdvice is for a device that another device of the account shut out.
const revokedAdvice = "the account's archive says that this device was revoked; peers refuse it. Stop the node, and move the directory " +
	"away to start with a new account, or import the account's archive anew (parley account import ARCHIVE --replace)"

// mayPass reports whether it was the system that refused, other than for a file that
// is not there: permissions, the disk, too many open files.
func mayPass(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok && !errors.Is(err, fs.ErrNotExist)
}

// checkArchive makes sure, while a backup may still be at hand, that the archive
// opens, is this account's and has not revoked the device. Its keys are dropped again.
func (a *Account) checkArchive(b []byte) error {
	locked, _ := a.config[keyHasPassword].(bool)
	a.guard = Plain
	var archive *jami.Archive
	var err error
	if !jami.Encrypted(b) {
		archive, err = jami.ParseArchive(b, nil)
	} else {
		a.guard, err = Known, jami.ErrPassword
		for _, p := range a.store.passwords() {
			if archive, err = jami.ParseArchive(b, p); err == nil || !errors.Is(err, jami.ErrPassword) {
				a.password = p
				break
			}
		}
	}
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
