package account

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	dirCerts = "certificates" // LONGID, or LONGID-SERIAL where it was certified anew: PEM chain of another device
	dirCRLs  = "crls"         // JAMIID/NUMBER: revocation lists in DER
)

// maxDevices bounds the devices of an account that are kept, and maxCerts the certificates
// of one beside the first: a device is certified anew every ten years.
const (
	maxDevices = 256
	maxCerts   = 8
)

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
	a.others, a.earlier = map[jami.LongID]*trust.Chain{}, map[jami.LongID][]*trust.Chain{}
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
	for _, issuer := range a.Chain.Authorities {
		err := eachFile(filepath.Join(root, dirCRLs, keyID(issuer)), func(path string, b []byte) error {
			if _, err := a.revoked.Add(b, issuer); err != nil {
				return &DamagedError{Path: path, Err: err}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := a.Revoked(); err != nil {
		return err
	}
	return eachFile(filepath.Join(root, dirCerts), func(path string, b []byte) error {
		c, err := (&trust.Rules{AnyTime: true}).Parse(b)
		if err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		if c.JamiID == a.Chain.JamiID && (a.others[c.DeviceID] != nil || len(a.others) < maxDevices) {
			a.keepLocked(c)
		}
		return nil
	})
}

// keepLocked notes the certificates of another device: of several those that began last
// count, and all are revoked together.
func (a *Account) keepLocked(c *trust.Chain) {
	id := c.DeviceID
	if now := a.others[id]; now == nil || c.Device.NotBefore.After(now.Device.NotBefore) {
		a.others[id], c = c, now
	}
	if c != nil {
		a.earlier[id] = append(a.earlier[id], c)
	}
}

// certsLocked are all certificates that are known of another device.
func (a *Account) certsLocked(id jami.LongID) (out []*x509.Certificate) {
	for _, c := range append([]*trust.Chain{a.others[id]}, a.earlier[id]...) {
		out = append(out, c.Device)
	}
	return out
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
			Revoked: slices.ContainsFunc(a.certsLocked(id), func(x *x509.Certificate) bool { return a.revoked.Has(x, c.Account) })})
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
// the account's signature says that they are right. It reports whether the device is new,
// or was certified anew.
func (a *Account) Learn(certs []*x509.Certificate, now time.Time) (news bool, err error) {
	c, err := (&trust.Rules{AnyTime: true, Account: a.Chain.JamiID}).Check(certs)
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, had := a.others[c.DeviceID]
	name := c.DeviceID.String()
	switch {
	case c.DeviceID == a.Chain.DeviceID:
		return false, nil
	case had && slices.ContainsFunc(a.certsLocked(c.DeviceID), func(x *x509.Certificate) bool { return x.SerialNumber.Cmp(c.Device.SerialNumber) == 0 }):
		return false, nil
	case !had && len(a.others) >= maxDevices, had && len(a.earlier[c.DeviceID]) >= maxCerts:
		return false, ErrManyDevice
	case had: // a file of its own: the one before may still be used
		name += fmt.Sprintf("-%x", c.Device.SerialNumber)
	}
	dir := filepath.Join(filepath.Dir(a.Dir), dirCerts)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return false, err
	}
	if err := atomicfile.Write(filepath.Join(dir, name), c.PEM(), fileMode); err != nil {
		return false, err
	}
	a.keepLocked(c)
	return true, a.seenLocked(c.DeviceID, a.known[c.DeviceID].Name, now)
}

// Revoke revokes another device, by its long or short id: a new revocation list goes
// into the archive, and then into a file. Revoking it again only writes the file.
func (a *Account) Revoke(id string, password []byte, now time.Time) (Device, error) {
	c, err := a.other(id)
	if err != nil {
		return Device{}, err
	}
	a.mu.Lock()
	certs := a.certsLocked(c.DeviceID)
	a.mu.Unlock()
	var der []byte
	err = a.ChangeArchive(password, func(archive *jami.Archive) (err error) {
		der, err = nextCRL(archive, a.revoked.Lists(a.Chain.Account), certs, now)
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

// Other returns the chain of another device of the account; nil: it is not known.
func (a *Account) Other(id jami.LongID) *trust.Chain {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.others[id]
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

// CRL returns the newest revocation list in DER; nil: nothing is revoked.
func (a *Account) CRL() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.crl
}

// OlderCRLs returns lists that name what the newest one does not.
func (a *Account) OlderCRLs() [][]byte {
	newest := a.CRL()
	return slices.DeleteFunc(a.revoked.Lists(a.Chain.Account), func(der []byte) bool { return bytes.Equal(der, newest) })
}

// Revocations is what the account revoked, as it is known here from any source.
func (a *Account) Revocations() *trust.Revocations { return a.revoked }

// Revoked returns why this device may no longer be used, or its account; nil: it may.
func (a *Account) Revoked() error {
	if why := a.Managed().Ended; why != "" {
		return &DamagedError{Path: a.Dir, Err: errors.New(why), Advice: "its account server ended this account or device. Stop the node, and move the directory " +
			"away to start with another account; one that is not the main one is taken out of use with parley account retire, and enrolled again"}
	}
	certs := a.Chain.Certs()
	for i, c := range certs[:len(certs)-1] {
		if a.revoked.Has(c, certs[i+1]) {
			if i == 0 {
				return &DamagedError{Path: a.Dir, Err: errRevoked, Advice: revokedAdvice}
			}
			return &DamagedError{Path: a.Dir, Err: errEnded, Advice: endedAdvice}
		}
	}
	return nil
}

var errEnded = &trust.Error{Reason: trust.Revoked, Place: "account", Why: "its authority revoked it"}

// endedAdvice is for an account that its authority ended.
const endedAdvice = "the authority of this account revoked it; peers refuse it. Stop the node, and move the directory away to start with a new account"

func keyID(c *x509.Certificate) string {
	id, _ := jami.CertIDs(c)
	return id.String()
}

// MaxAuthorityCRLs bounds the lists of authorities that are kept, in bytes together: they
// travel in one message of the bus. A single one may have half of it, some 3,000 accounts,
// so that a newer one has place beside it.
const MaxAuthorityCRLs = 256 << 10

// ErrNoAuthority says that a revocation list is not of an authority of the account.
var ErrNoAuthority = errors.New("no authority above the account signed that list")

// AddAuthorityCRL takes a revocation list of an authority above the account and keeps it:
// what it names is refused from then on, this account and others of that authority.
func (a *Account) AddAuthorityCRL(der []byte) (issuer *x509.Certificate, err error) {
	size := len(der)
	if size > MaxAuthorityCRLs/2 {
		return nil, fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrNoAuthority, size, MaxAuthorityCRLs/2)
	}
	for _, c := range a.Chain.Authorities {
		for _, old := range a.revoked.Lists(c) {
			size += len(old)
		}
	}
	if size > MaxAuthorityCRLs {
		return nil, fmt.Errorf("%w that there is place for: with the others it has %d bytes, %d are allowed; have one made that names all", ErrNoAuthority, size, MaxAuthorityCRLs)
	}
	for _, c := range a.Chain.Authorities {
		l, err := trust.ParseCRL(der, c)
		if err != nil || l.Number == nil {
			continue
		}
		dir := filepath.Join(filepath.Dir(a.Dir), dirCRLs, keyID(c))
		a.mu.Lock()
		defer a.mu.Unlock()
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, err
		}
		if err := atomicfile.Write(filepath.Join(dir, fmt.Sprintf("%x", l.Number)), der, fileMode); err != nil {
			return nil, err
		}
		_, err = a.revoked.Add(der, c)
		return c, err
	}
	return nil, ErrNoAuthority
}

// AddCRL takes a revocation list of this account, which came from anywhere, and keeps it.
// It reports whether something is revoked that was not before.
func (a *Account) AddCRL(der []byte) (news bool, err error) {
	l, err := trust.ParseCRL(der, a.Chain.Account)
	if err != nil {
		return false, err
	}
	if l.Number == nil {
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

// nextCRL is a revocation list with what the archive's and the known ones name, and the
// certificates (§3.7): one of the known, where it names all that.
func nextCRL(archive *jami.Archive, known [][]byte, certs []*x509.Certificate, now time.Time) ([]byte, error) {
	if archive.CRL != nil {
		known = append(slices.Clone(known), archive.CRL)
	}
	var lists []*x509.RevocationList
	named := map[string]bool{}
	newest := -1
	for i, der := range known {
		l, err := trust.ParseCRL(der, archive.Account)
		if err != nil {
			return nil, err
		}
		lists = append(lists, l)
		for _, e := range l.RevokedCertificateEntries {
			named[e.SerialNumber.String()] = true
		}
		if l.Number != nil && (newest < 0 || l.Number.Cmp(lists[newest].Number) > 0) {
			newest = i
		}
	}
	all := !slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return !named[c.SerialNumber.String()] })
	if all && newest >= 0 && len(lists[newest].RevokedCertificateEntries) == len(named) {
		return known[newest], nil
	}
	return jami.ExtendCRL(archive.Account, archive.AccountKey, now, certs, lists...)
}
