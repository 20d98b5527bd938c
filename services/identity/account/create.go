package account

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// newPrefix starts the name of a directory that is being built.
const newPrefix = ".new-"

// Keys are the three RSA keys of a new account.
type Keys struct{ CA, Account, Device *rsa.PrivateKey }

// MakeKeys generates three RSA-4096 keys at once, which takes 2 to 8 s on two
// cores. When ctx ends it returns at once; a key that is being made is then
// finished, some seconds later, and dropped: the library cannot be interrupted.
func MakeKeys(ctx context.Context) (*Keys, error) {
	type made struct {
		i   int
		key *rsa.PrivateKey
		err error
	}
	done := make(chan made, 3)
	for i := range 3 {
		go func() {
			k, err := rsa.GenerateKey(rand.Reader, jami.KeyBits)
			done <- made{i, k, err}
		}()
	}
	var keys [3]*rsa.PrivateKey
	for range keys {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case m := <-done:
			if m.err != nil {
				return nil, fmt.Errorf("make keys: %w", m.err)
			}
			keys[m.i] = m.key
		}
	}
	return &Keys{CA: keys[0], Account: keys[1], Device: keys[2]}, nil
}

// Create makes an account from fresh keys, after those that are there.
func (s *Store) Create(keys *Keys, set Settings, now time.Time) (*Account, error) {
	files, err := s.build(keys, set, now)
	if err != nil {
		return nil, fmt.Errorf("create account: %w", err)
	}
	a, _, err := s.add(files, Beside, now)
	if err != nil {
		return nil, fmt.Errorf("create account: %w", err)
	}
	return a, nil
}

// place writes the files of a directory, has a look at whether they are an account,
// and gives it its name, which before is told first.
func (s *Store) place(files map[string][]byte, before func(name string) error) (*Account, error) {
	name, err := newName()
	if err != nil {
		return nil, err
	}
	root := s.Root
	tmp := filepath.Join(root, newPrefix+name)
	err = writeAll(tmp, files)
	var a *Account
	if err == nil {
		a, err = s.load(tmp)
	}
	if err == nil {
		err = before(name)
	}
	if err == nil {
		a.Dir = filepath.Join(root, name)
		err = os.Rename(tmp, a.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return a, atomicfile.SyncDir(root)
}

// newName is a name for a directory of this package: 16 random hex digits, as Jami's.
func newName() (string, error) {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(id[:]), nil
}

func writeAll(dir string, files map[string][]byte) error {
	if err := os.Mkdir(dir, dirMode); err != nil {
		return err
	}
	for name, b := range files {
		if err := atomicfile.Write(filepath.Join(dir, name), b, fileMode); err != nil {
			return err
		}
	}
	return nil
}

// build makes the content of every file of a new account.
func (s *Store) build(keys *Keys, set Settings, now time.Time) (map[string][]byte, error) {
	ca, err := jami.NewCA(keys.CA, now)
	if err != nil {
		return nil, err
	}
	acc, err := jami.NewAccount(&keys.Account.PublicKey, ca, keys.CA, now)
	if err != nil {
		return nil, err
	}
	eth, err := jami.NewEthKey()
	if err != nil {
		return nil, err
	}
	return s.device(&jami.Archive{AccountKey: keys.Account, Account: acc, CA: ca, CAKey: keys.CA, EthKey: eth,
		Settings: archiveSettings(set)}, nil, keys.Device, set, now)
}

// device makes the content of every file for a new device of an account.
func (s *Store) device(archive *jami.Archive, password []byte, key *rsa.PrivateKey, set Settings, now time.Time) (map[string][]byte, error) {
	dev, err := jami.NewDevice(&key.PublicKey, archive.Account, archive.AccountKey, now)
	if err != nil {
		return nil, err
	}
	addr := ""
	if archive.EthKey != nil { // optional on import (§3.1)
		if addr, err = jami.EthAddress(archive.EthKey); err != nil {
			return nil, err
		}
	}
	receipt, err := jami.NewReceipt(archive.AccountKey, key.Public(), addr)
	if err != nil {
		return nil, err
	}
	password = s.sealedPassword(password)
	putPassword(archive, password)
	packed, err := archive.Pack(password)
	if err != nil {
		return nil, err
	}
	keyPEM, err := s.packKey(key)
	if err != nil {
		return nil, err
	}
	files, err := own(key, jami.MarshalChain(append([]*x509.Certificate{dev}, archive.Chain()...)...), receipt, set, now)
	if err != nil {
		return nil, err
	}
	config := settingsOf(receipt, set)
	config[keyHasPassword] = len(password) > 0
	if files[fileConfig], err = marshalConfig(config); err != nil {
		return nil, err
	}
	list := make(map[jami.ID]jami.Contact, len(archive.Contacts))
	for id, c := range archive.Contacts {
		key, err := jami.ParseID(id)
		if err != nil {
			return nil, err
		}
		list[key] = c
	}
	contacts, err := jami.PackContacts(list)
	if err != nil {
		return nil, err
	}
	files[fileArchive], files[fileKey], files[fileContacts] = packed, keyPEM, contacts
	return files, nil
}

// own makes the files that the device of any account has.
func own(key *rsa.PrivateKey, chain []byte, receipt *jami.Receipt, set Settings, now time.Time) (map[string][]byte, error) {
	_, long, err := jami.PublicIDs(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	known, err := jami.PackKnownDevices(map[jami.LongID]jami.KnownDevice{long: {Name: set.Alias, Sync: now}})
	if err != nil {
		return nil, err
	}
	requests, err := jami.PackRequests(nil)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{fileChain: chain, fileRequests: requests, fileKnown: known}, nil
}

// settingsOf is config.yml of a new device.
func settingsOf(receipt *jami.Receipt, set Settings) map[string]any {
	config := map[string]any{
		keyType: "RING", keyUsername: receipt.Account.String(), keyDeviceName: set.Alias,
		keyReceipt: receipt.Text, keyReceiptSig: binary(receipt.Sig),
		keyTLS: map[string]any{keyTLSCert: fileChain, keyTLSKey: fileKey},
	}
	putSettings(config, set)
	return config
}

// archiveSettings are what another device takes over on import (§3.5).
func archiveSettings(s Settings) map[string]string {
	return map[string]string{
		"Account.type": "RING", settingAlias: s.Alias, settingDisplay: s.Alias, settingRendezvous: strconv.FormatBool(s.Rendezvous),
	}
}

// removeHalfMade removes what a killed process left of a new account. Nobody can
// have used such an account: it was never announced.
func removeHalfMade(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
