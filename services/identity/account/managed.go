package account

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// Managed says which account server an account is of (§5.3); the zero value: of none, it
// has an archive.
type Managed struct {
	Server string // URL
	User   string
	Roots  string // PEM of who certifies the server; empty: the system's
	Ended  string // why the server ended the device or the account; empty: it did not
}

// ErrManaged says that an account has no archive here: its keys are at its server.
var ErrManaged = errors.New("the account is managed by its account server, which has its keys")

// Managed returns which account server the account is of.
func (a *Account) Managed() Managed {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.managed
}

// End notes that the account server ended the device or the account: neither is used any
// more, also after a start at which the server is away.
func (a *Account) End(why string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	config := maps.Clone(a.config)
	config[keyManagerEnded] = why
	if err := a.writeConfigLocked(config); err != nil {
		return err
	}
	a.managed.Ended = why
	return nil
}

// Enrol makes the account of what an account server gave to the device: its chain,
// device first, and its receipt.
func (s *Store) Enrol(m Managed, key *rsa.PrivateKey, chain []byte, receipt *jami.Receipt, set Settings, now time.Time) (*Account, error) {
	keyPEM, err := s.packKey(key)
	if err != nil {
		return nil, err
	}
	files, err := own(key, chain, receipt, set, now)
	if err != nil {
		return nil, err
	}
	files[fileKey] = keyPEM
	config := settingsOf(receipt, set)
	config[keyManager], config[keyManagerUser], config[keyManagerRoots] = m.Server, m.User, m.Roots
	if files[fileConfig], err = marshalConfig(config); err != nil {
		return nil, err
	}
	if files[fileContacts], err = jami.PackContacts(nil); err != nil {
		return nil, err
	}
	a, _, err := s.add(files, Beside, now)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	return a, nil
}
