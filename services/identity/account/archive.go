package account

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// Guard is what protects the archive.
type Guard string

// The guards of an archive.
const (
	Plain  Guard = "plain"    // nothing but the file's mode
	Known  Guard = "password" // a password that this process has
	Locked Guard = "locked"   // a password that it doesn't have
	Server Guard = "server"   // there is none: its account server has the keys
)

// ErrPassword says that a password does not open the archive, or that it asks for one.
var ErrPassword = jami.ErrPassword

// Settings in an archive, by Jami's names.
const (
	settingAlias       = "Account.alias"
	settingDisplay     = "Account.displayName"
	settingRendezvous  = "Account.rendezVous"
	settingHasPassword = "Account.archiveHasPassword"
)

// Guard returns what protects the archive now.
func (a *Account) Guard() Guard {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.guard
}

// Export returns the archive as a file of its own, as the account is now. password
// opens the account's archive, nil where the process has it; with is that of the
// file, empty for the plain form. Each password takes about a second.
func (a *Account) Export(password, with []byte) ([]byte, error) {
	a.archive.Lock()
	defer a.archive.Unlock()
	archive, _, err := a.openArchive(password)
	if err != nil {
		return nil, err
	}
	if err := a.fill(archive); err != nil {
		return nil, err
	}
	putPassword(archive, with)
	return archive.Pack(with)
}

// SetPassword changes the archive's password; an empty one makes it plain, or leaves it
// to the store's Seal. On an error the old one holds.
func (a *Account) SetPassword(old, password []byte) error {
	password = a.store.sealedPassword(password)
	a.archive.Lock()
	defer a.archive.Unlock()
	archive, _, err := a.openArchive(old)
	if err != nil {
		return err
	}
	if err := a.fill(archive); err != nil {
		return err
	}
	// Whenever this is killed, an archive with a password is said to have one.
	if len(password) > 0 {
		if err := a.mayHavePassword(true); err != nil {
			return err
		}
	}
	if err := a.writeArchive(archive, password); err != nil {
		return err
	}
	if len(password) == 0 {
		return a.mayHavePassword(false)
	}
	return nil
}

// ChangeArchive lets fn change the archive and writes it; on an error nothing has
// changed.
func (a *Account) ChangeArchive(password []byte, fn func(*jami.Archive) error) error {
	a.archive.Lock()
	defer a.archive.Unlock()
	archive, password, err := a.openArchive(password)
	if err != nil {
		return err
	}
	if err := a.fill(archive); err != nil {
		return err
	}
	if err := fn(archive); err != nil {
		return err
	}
	return a.writeArchive(archive, password)
}

// WithArchive lets fn look at the archive, as the account is now, and writes nothing.
func (a *Account) WithArchive(password []byte, fn func(*jami.Archive) error) error {
	a.archive.Lock()
	defer a.archive.Unlock()
	archive, _, err := a.openArchive(password)
	if err != nil {
		return err
	}
	if err := a.fill(archive); err != nil {
		return err
	}
	return fn(archive)
}

// ForPIN returns where the archive is put for another device that is given the PIN, and
// what is put there (§3.6). password opens the account's archive, nil where the process has
// it. Whoever joins needs the password joining beside the PIN; an empty one is the
// archive's own, if it has one.
func (a *Account) ForPIN(pin jami.PIN, password, joining []byte, now time.Time) (slot jami.PINSlot, value []byte, err error) {
	a.archive.Lock()
	defer a.archive.Unlock()
	archive, own, err := a.openArchive(password)
	if err != nil {
		return slot, nil, err
	}
	if err := a.fill(archive); err != nil {
		return slot, nil, err
	}
	if len(joining) == 0 && !bytes.Equal(own, a.store.Seal) {
		joining = own
	}
	putPassword(archive, joining)
	slot = pin.Slot(joining, now)
	value, err = archive.PackForPIN(slot)
	return slot, value, err
}

// openArchive reads the archive and returns the password that opened it. The caller
// holds a.archive.
func (a *Account) openArchive(password []byte) (*jami.Archive, []byte, error) {
	if a.Managed().Server != "" {
		return nil, nil, ErrManaged
	}
	b, err := readFile(filepath.Join(a.Dir, fileArchive))
	if err != nil {
		return nil, nil, fmt.Errorf("archive: %w", err)
	}
	switch {
	case !jami.Encrypted(b):
		password = nil
	case len(password) == 0:
		a.mu.Lock()
		password = a.password
		a.mu.Unlock()
	}
	archive, err := jami.ParseArchive(b, password)
	if err != nil {
		return nil, nil, err
	}
	if archive.ID() != a.Chain.JamiID {
		return nil, nil, fmt.Errorf("%w: of account %s, the device is of %s", jami.ErrArchive, archive.ID(), a.Chain.JamiID)
	}
	return archive, password, nil
}

// writeArchive replaces the file. The caller holds a.archive.
func (a *Account) writeArchive(archive *jami.Archive, password []byte) error {
	putPassword(archive, password)
	b, err := archive.Pack(password)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.Dir, fileArchive), b, fileMode); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.guard, a.password = Plain, nil; len(password) > 0 {
		a.guard, a.password = Known, password
	}
	return nil
}

// mayHavePassword notes whether the archive is to be taken for damaged when it looks
// like one with a password.
func (a *Account) mayHavePassword(yes bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	config := maps.Clone(a.config)
	config[keyHasPassword] = yes
	return a.writeConfigLocked(config)
}

// fill puts the settings, contacts and revocations of the other files into the archive:
// they may be newer. A revocation list that stands in the archive alone goes to its file.
func (a *Account) fill(archive *jami.Archive) error {
	if archive.CRL != nil {
		if _, err := a.AddCRL(archive.CRL); err != nil {
			return err
		}
	}
	if der := a.CRL(); der != nil {
		archive.CRL = der
	}
	set := a.Settings()
	maps.Copy(archive.Settings, archiveSettings(set))
	if archive.Contacts == nil {
		archive.Contacts = map[string]jami.Contact{}
	}
	for id, c := range a.Contacts() {
		archive.Contacts[id.String()] = c
	}
	return nil
}

func putPassword(archive *jami.Archive, password []byte) {
	archive.Settings[settingHasPassword] = strconv.FormatBool(len(password) > 0)
}

// Import makes an account for a new device of the archive's
// account (§3.5: never with a device key of another), in the given place. What the
// archive holds beside stays in it. The clock decides nothing. An account that it
// replaces, a damaged one too, is moved aside and named.
func (s *Store) Import(file, password []byte, key *rsa.PrivateKey, where Place, now time.Time) (a *Account, aside []string, err error) {
	if !jami.Encrypted(file) {
		password = nil
	}
	archive, err := jami.ParseArchive(file, password)
	if err != nil {
		return nil, nil, fmt.Errorf("import: %w", err)
	}
	set := Settings{Alias: archive.Settings[settingAlias], Rendezvous: archive.Settings[settingRendezvous] == "true"}
	if set.Alias == "" {
		set.Alias = archive.Settings[settingDisplay]
	}
	// What opens the archive now opens it when it is looked at.
	with := Store{Root: s.Root, Password: password, Seal: s.Seal, Now: func() time.Time { return now }}
	if _, err := renewArchive(archive, now); err != nil && !errors.Is(err, jami.ErrNoCAKey) {
		return nil, nil, fmt.Errorf("import: %w", err)
	}
	files, err := with.device(archive, password, key, set, now)
	if err != nil {
		return nil, nil, fmt.Errorf("import: %w", err)
	}
	if a, aside, err = with.add(files, where, now); err != nil {
		return nil, aside, fmt.Errorf("import: %w", err)
	}
	if archive.CRL != nil {
		if _, err := a.AddCRL(archive.CRL); err != nil {
			return nil, aside, fmt.Errorf("import: the account is there, and its revocation list is not in its file: %w", err)
		}
	}
	return a, aside, nil
}

// NewDeviceKey makes the key of a device.
func NewDeviceKey() (*rsa.PrivateKey, error) {
	return rsa.GenerateKey(rand.Reader, jami.KeyBits)
}

// Snapshot reads all files below root, by their relative paths, as they were at one
// moment: it is repeated while something changes. What was moved aside and what is
// half made is left out.
func Snapshot(root string) (map[string][]byte, error) {
	const tries = 20
	for range tries {
		before, err := stamps(root)
		if err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		files, err := readAll(root, before)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("backup: %w", err)
		}
		after, serr := stamps(root)
		if serr != nil {
			return nil, fmt.Errorf("backup: %w", serr)
		}
		if err == nil && maps.Equal(before, after) {
			return files, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.New("backup: the account's files keep changing; try again")
}

func readAll(root string, names map[string]stamp) (map[string][]byte, error) {
	files := make(map[string][]byte, len(names))
	for name := range names {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	return files, nil
}
