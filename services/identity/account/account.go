// Package account makes, loads and changes the account directory, in the format
// of Jami's own (dht-and-identity §4).
//
// # Files of an account directory
//
//	archive.gz               the account: its keys, certificates, contacts; with a password or without
//	config.yml               settings that are not Jami's default, and the device receipt
//	ring_device.key          PEM PKCS#8, this device's key; encrypted where the node has a key for that
//	ring_device.crt          PEM chain device, account, CA
//	contacts, incomingTrustRequests, knownDevices   msgpack
//	treatedMessages          digests of the messages that were treated (not stock's, which
//	                         keeps ids of values in its cache)
//	syncDates                JSON, how new the other devices are known (ours alone)
//
// Beside it lie certificates/LONGID, the PEM chains of the account's other devices, and
// crls/JAMIID/NUMBER, revocation lists.
//
// The directory appears as a whole: it is built beside its place and renamed.
// Every later change replaces one file atomically. A damaged file is never
// overwritten; the error names it.
//
// The archive alone may have a password (as with Jami, where the device's key has
// none). Without it the account works; what changes or exports the archive asks
// for it. Passwords are not told apart from damage: the cipher can't.
package account

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// File names within the directory.
const (
	fileArchive  = "archive.gz"
	fileConfig   = "config.yml"
	fileKey      = "ring_device.key"
	fileChain    = "ring_device.crt"
	fileContacts = "contacts"
	fileRequests = "incomingTrustRequests"
	fileKnown    = "knownDevices"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// maxFile bounds what is read of any of these files.
const maxFile = 32 << 20

// ErrNone says that there is no account yet.
var ErrNone = errors.New("no account")

// DamagedError says that an account is there and cannot be used as it is. What a
// disk or the permissions refuse for now is another error.
type DamagedError struct {
	Path   string
	Err    error
	Advice string // empty: that of damaged files
}

func (e *DamagedError) Error() string {
	if e.Advice != "" {
		return fmt.Sprintf("%s: %v; nothing was changed: %s", e.Path, e.Err, e.Advice)
	}
	return fmt.Sprintf("%s is damaged (%v); nothing was changed: stop the node, put this file back from a backup, "+
		"or move its directory away to start with a new account, and start again", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Settings are what the operator may change.
type Settings struct {
	Alias      string
	Rendezvous bool
	Name       string // registered at a name server
}

// Account is a loaded account. It is safe for concurrent use. The account's and
// the CA's private keys are not in memory: they stay in the archive.
type Account struct {
	Dir     string
	Chain   *trust.Chain
	Receipt *jami.Receipt
	store   *Store
	managed Managed
	key     Key

	mu     sync.Mutex
	config map[string]any
	set    Settings

	archive sync.Mutex // held while the archive is read to be changed; before mu
	// Under mu: what protects the archive, and its password where that is known.
	guard    Guard
	password []byte

	// Under mu too: the account's devices and contacts, and the newest revocation list.
	known     map[jami.LongID]jami.KnownDevice
	others    map[jami.LongID]*trust.Chain
	earlier   map[jami.LongID][]*trust.Chain // other certificates of the same
	contacts  map[jami.ID]jami.Contact
	book      book // locks of its own, see there
	crl       []byte
	crlNumber *big.Int

	revoked *trust.Revocations
}

// clockSlack is how much before its certificates' start an account may be used:
// clocks differ, and one may be set back.
const clockSlack = 24 * time.Hour

// Dates says what is wrong with the certificates' dates at now, or with now; nil:
// nothing. The account works all the same, but peers may refuse it.
func (a *Account) Dates(now time.Time) error {
	for _, c := range a.Chain.Certs() {
		switch {
		case now.Before(c.NotBefore.Add(-clockSlack)):
			return fmt.Errorf("the clock of this machine says %s, and the certificate %q begins on %s: set the clock",
				now.UTC().Format(time.RFC3339), c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339))
		case now.After(c.NotAfter):
			return fmt.Errorf("the certificate %q ended on %s, and the clock of this machine says %s: if the clock is right, renew the "+
				"certificate with a Jami client that has the account's archive, else set the clock",
				c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// DeviceKey returns the device's private key. It never leaves this process.
func (a *Account) DeviceKey() Key { return a.key }

// Settings returns the settings now.
func (a *Account) Settings() Settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.set
}

// Change lets fn change the settings and writes them; on an error nothing has
// changed.
func (a *Account) Change(fn func(*Settings)) (Settings, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.set
	fn(&next)
	if next == a.set {
		return next, nil
	}
	config := maps.Clone(a.config)
	putSettings(config, next)
	if err := a.writeConfigLocked(config); err != nil {
		return a.set, err
	}
	a.set = next
	return next, nil
}

// writeConfigLocked replaces config.yml and then what is in memory of it.
func (a *Account) writeConfigLocked(config map[string]any) error {
	b, err := marshalConfig(config)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.Dir, fileConfig), b, fileMode); err != nil {
		return err
	}
	a.config = config
	return nil
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Size() == 0:
		return nil, errors.New("empty")
	case st.Size() > maxFile:
		return nil, fmt.Errorf("%d bytes, at most %d", st.Size(), maxFile)
	}
	return os.ReadFile(path)
}
