package account

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// Directories beside the account's, as Jami has them in its data root (§4).
const (
	dirCerts = "certificates" // LONGID: PEM chain of another device
	dirCRLs  = "crls"         // JAMIID/NUMBER: revocation lists in DER
)

// maxDevices bounds the devices of an account that are kept.
const maxDevices = 256

// Errors of devices.
var (
	ErrNoDevice   = errors.New("no such device is known")
	ErrThisDevice = errors.New("this is the device itself")
	ErrManyDevice = errors.New("too many devices")
)

// Device is one of the account's devices.
type Device struct {
	ID      jami.LongID
	Short   jami.ID
	Name    string    // that it told, or that of this device
	Created time.Time // its certificate
	Seen    time.Time
	This    bool
	Revoked bool
}

// loadDevices reads the certificates of other devices and the revocation lists. What
// an earlier archive said is revoked stays revoked.
func (a *Account) loadDevices() error {
	a.others = map[jami.LongID]*trust.Chain{}
	root := filepath.Dir(a.Dir)
	lists := filepath.Join(root, dirCRLs, a.Chain.JamiID.String())
	err := eachFile(lists, func(path string, b []byte) error {
		if _, err := a.revoked.Add(b, a.Chain.Account); err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		a.keepList(b)
		return nil
	})
	if err != nil {
		return err
	}
	if a.revoked.Has(a.Chain.Device, a.Chain.Account) {
		return &DamagedError{Path: a.Dir, Err: errRevoked, Advice: revokedAdvice}
	}
	return eachFile(filepath.Join(root, dirCerts), func(path string, b []byte) error {
		c, err := (&trust.Rules{AnyTime: true}).Parse(b)
		if err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		if c.JamiID == a.Chain.JamiID && len(a.others) < maxDevices {
			a.others[c.DeviceID] = c
		}
		return nil
	})
}

// keepList notes the newest revocation list.
func (a *Account) keepList(der []byte) {
	l, err := trust.ParseCRL(der, a.Chain.Account)
	if err != nil || l.Number == nil {
		return
	}
	if a.crlNumber == nil || l.Number.Cmp(a.crlNumber) > 0 {
		a.crl, a.crlNumber = der, l.Number
	}
}

func eachFile(dir string, fn func(path string, b []byte) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		b, err := readFile(path)
		if err != nil {
			if mayPass(err) {
				return err
			}
			return &DamagedError{Path: path, Err: err}
		}
		if err := fn(path, b); err != nil {
			return err
		}
	}
	return nil
}

// Devices lists this device and the others that are known, by id.
func (a *Account) Devices() []Device {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, _ := a.config[keyDeviceName].(string)
	out := []Device{{ID: a.Chain.DeviceID, Short: a.Chain.DeviceShort, Name: name, Created: a.Chain.Device.NotBefore,
		Seen: a.known[a.Chain.DeviceID].Sync, This: true, Revoked: a.revoked.Has(a.Chain.Device, a.Chain.Account)}}
	for id, c := range a.others {
		out = append(out, Device{ID: id, Short: c.DeviceShort, Name: a.known[id].Name, Created: c.Device.NotBefore, Seen: a.known[id].Sync,
			Revoked: a.revoked.Has(c.Device, c.Account)})
	}
	slices.SortFunc(out[1:], func(x, y Device) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	return out
}

// Rename gives this device a name.
func (a *Account) Rename(name string, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	config := maps.Clone(a.config)
	config[keyDeviceName] = name
	if err := a.writeConfigLocked(config); err != nil {
		return err
	}
	return a.seenLocked(a.Chain.DeviceID, name, now)
}

// seenLocked notes a device in the list of known ones.
func (a *Account) seenLocked(id jami.LongID, name string, now time.Time) error {
	known := maps.Clone(a.known)
	if known == nil {
		known = map[jami.LongID]jami.KnownDevice{}
	}
	known[id] = jami.KnownDevice{Name: name, Sync: now}
	b, err := jami.PackKnownDevices(known)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.Dir, fileKnown), b, fileMode); err != nil {
		return err
	}
	a.known = known
	return nil
}

// Learn takes the certificates of a device of this account, which came from anywhere:
// the account's signature says that they are right. It reports whether the device is new.
func (a *Account) Learn(certs []*x509.Certificate, now time.Time) (news bool, err error) {
	c, err := (&trust.Rules{AnyTime: true, Account: a.Chain.JamiID}).Check(certs)
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, had := a.others[c.DeviceID]
	switch {
	case c.DeviceID == a.Chain.DeviceID, had:
		return false, nil
	case len(a.others) >= maxDevices:
		return false, ErrManyDevice
	}
	dir := filepath.Join(filepath.Dir(a.Dir), dirCerts)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return false, err
	}
	if err := atomicfile.Write(filepath.Join(dir, c.DeviceID.String()), c.PEM(), fileMode); err != nil {
		return false, err
	}
	a.others[c.DeviceID] = c
	return true, a.seenLocked(c.DeviceID, a.known[c.DeviceID].Name, now)
}

// Revoke revokes another device, by its long or short id: a new revocation list goes
// into the archive, and then into a file. Revoking it again only writes the file.
func (a *Account) Revoke(id string, password []byte, now time.Time) (Device, error) {
	c, err := a.other(id)
	if err != nil {
		return Device{}, err
	}
	var der []byte
	err = a.ChangeArchive(password, func(archive *jami.Archive) (err error) {
		der, err = nextCRL(archive, a.list(), c.Device, now)
		archive.CRL = der
		return err
	})
	if err != nil {
		return Device{}, err
	}
	if _, err := a.AddCRL(der); err != nil {
		return Device{}, fmt.Errorf("the device is revoked in the archive, and the list is not in its file: %w", err)
	}
	for _, d := range a.Devices() {
		if d.ID == c.DeviceID {
			return d, nil
		}
	}
	return Device{}, ErrNoDevice
}

func (a *Account) other(id string) (*trust.Chain, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id = strings.ToLower(id)
	if id == a.Chain.DeviceID.String() || id == a.Chain.DeviceShort.String() {
		return nil, ErrThisDevice
	}
	for _, c := range a.others {
		if id == c.DeviceID.String() || id == c.DeviceShort.String() {
			return c, nil
		}
	}
	return nil, ErrNoDevice
}

func (a *Account) list() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.crl
}

// CRL returns the newest revocation list in DER; nil: nothing is revoked.
func (a *Account) CRL() []byte { return a.list() }

// Revoked returns why this device may no longer be used; nil: it may.
func (a *Account) Revoked() error {
	if a.revoked.Has(a.Chain.Device, a.Chain.Account) {
		return &DamagedError{Path: a.Dir, Err: errRevoked, Advice: revokedAdvice}
	}
	return nil
}

// AddCRL takes a revocation list of this account, which came from anywhere, and keeps it.
// It reports whether something is revoked that was not before.
func (a *Account) AddCRL(der []byte) (news bool, err error) {
	l, err := trust.ParseCRL(der, a.Chain.Account)
	if err != nil {
		return false, err
	}
	if l.Number == nil || l.Number.Sign() < 0 {
		return false, errors.New("revocation list: it has no number")
	}
	dir := filepath.Join(filepath.Dir(a.Dir), dirCRLs, a.Chain.JamiID.String())
	a.mu.Lock()
	defer a.mu.Unlock()
	if news, err = a.revoked.Add(der, a.Chain.Account); err != nil {
		return false, err
	}
	path := filepath.Join(dir, fmt.Sprintf("%x", l.Number))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, der) {
		return news, nil
	}
	if newest := a.crlNumber == nil || l.Number.Cmp(a.crlNumber) >= 0; !news && !newest {
		return false, nil // an older one
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return news, err
	}
	if err := atomicfile.Write(path, der, fileMode); err != nil {
		return news, err
	}
	a.keepList(der)
	return news, nil
}

// nextCRL is a revocation list with what the archive's and the newest known one name, and
// the certificate (§3.7).
func nextCRL(archive *jami.Archive, newest []byte, c *x509.Certificate, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{ThisUpdate: now.UTC().Truncate(time.Second), NextUpdate: archive.Account.NotAfter,
		SignatureAlgorithm: x509.SHA512WithRSA}
	named := map[string]bool{}
	for _, der := range [][]byte{archive.CRL, newest} {
		if der == nil {
			continue
		}
		l, err := trust.ParseCRL(der, archive.Account)
		if err != nil {
			return nil, err
		}
		for _, e := range l.RevokedCertificateEntries {
			if s := e.SerialNumber.String(); !named[s] {
				named[s] = true
				list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
					x509.RevocationListEntry{SerialNumber: e.SerialNumber, RevocationTime: e.RevocationTime})
			}
		}
		if list.Number == nil || l.Number != nil && l.Number.Cmp(list.Number) > 0 {
			list.Number = l.Number
		}
	}
	if named[c.SerialNumber.String()] && newest != nil {
		return newest, nil
	}
	if !named[c.SerialNumber.String()] {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: list.ThisUpdate})
	}
	if list.Number == nil {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
		if err != nil {
			return nil, err
		}
		list.Number = n
	}
	list.Number = new(big.Int).Add(list.Number, big.NewInt(1))
	issuer := *archive.Account
	if len(issuer.SubjectKeyId) == 0 { // the library wants one
		id := archive.ID()
		issuer.SubjectKeyId = id[:]
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, archive.AccountKey)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return der, nil
}
