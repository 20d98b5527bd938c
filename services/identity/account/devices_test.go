package account

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// second is another device of the account.
func second(t *testing.T, a *Account) []*x509.Certificate {
	t.Helper()
	dev, err := jami.NewDevice(&testKeys().CA.PublicKey, a.Chain.Account, testKeys().Account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{dev, a.Chain.Account}
}

// selfSigned makes an account without an authority, so that the authority's key can be
// another device's.
func selfSigned(t *testing.T) (root string, a *Account) {
	t.Helper()
	k := testKeys()
	acc, err := jami.NewCA(k.Account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&jami.Archive{AccountKey: k.Account, Account: acc, Settings: archiveSettings(testSettings)}).Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	if a, _, err = (&Store{Root: root}).Import(b, nil, k.Device, Alone, time.Now()); err != nil {
		t.Fatal(err)
	}
	return root, a
}

func TestDevices(t *testing.T) {
	root, a := selfSigned(t)
	if err := a.Rename("Küche", time.Now()); err != nil {
		t.Fatal(err)
	}
	certs := second(t, a)
	for i, want := range []bool{true, false} {
		if news, err := a.Learn(certs, time.Now()); err != nil || news != want {
			t.Fatalf("learnt %d: %v, %v", i, news, err)
		}
	}
	if news, err := a.Learn(a.Chain.Certs(), time.Now()); err != nil || news {
		t.Errorf("itself: %v, %v", news, err)
	}
	_, other := create(t)
	strange, err := jami.NewDevice(&testKeys().Device.PublicKey, other.Chain.Account, testKeys().CA, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, chain := range map[string][]*x509.Certificate{"nothing": nil, "no signature of the account": {strange, a.Chain.Account}} {
		if _, err := a.Learn(chain, time.Now()); err == nil {
			t.Errorf("learnt %s", name)
		}
	}
	if a, err = (&Store{Root: root}).Load(); err != nil {
		t.Fatal(err)
	}
	ds := a.Devices()
	if len(ds) != 2 || !ds[0].This || ds[0].Name != "Küche" || ds[1].This || ds[1].Revoked || ds[1].Seen.IsZero() || ds[1].Created.IsZero() {
		t.Errorf("devices %+v", ds)
	}
}

func TestRevoke(t *testing.T) {
	root, a := selfSigned(t)
	certs := second(t, a)
	if _, err := a.Learn(certs, time.Now()); err != nil {
		t.Fatal(err)
	}
	short, long := jami.CertIDs(certs[0])
	for id, want := range map[string]error{
		a.Chain.DeviceID.String(): ErrThisDevice, a.Chain.DeviceShort.String(): ErrThisDevice,
		strings.Repeat("0", 64): ErrNoDevice, "": ErrNoDevice, "..": ErrNoDevice,
	} {
		if _, err := a.Revoke(id, nil, time.Now()); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", id, err, want)
		}
	}
	d, err := a.Revoke(strings.ToUpper(short.String()), nil, time.Now())
	if err != nil || !d.Revoked || d.ID != long {
		t.Fatalf("%+v, %v", d, err)
	}
	first := a.CRL()
	l, err := trust.ParseCRL(first, a.Chain.Account)
	if err != nil || l.SignatureAlgorithm != x509.SHA512WithRSA || !l.NextUpdate.Equal(a.Chain.Account.NotAfter) || len(l.RevokedCertificateEntries) != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	if d, err = a.Revoke(long.String(), nil, time.Now()); err != nil || !bytes.Equal(a.CRL(), first) {
		t.Errorf("again: %+v, %v", d, err)
	}
	// Loaded anew it is revoked, of the archive alone and of the file alone.
	if a, err = (&Store{Root: root}).Load(); err != nil || !a.Devices()[1].Revoked {
		t.Fatal(err)
	}
	list := filepath.Join(root, dirCRLs, a.Chain.JamiID.String())
	if err := os.Rename(list, list+".away"); err != nil {
		t.Fatal(err)
	}
	if a, err = (&Store{Root: root}).Load(); err != nil || !a.Devices()[1].Revoked {
		t.Fatal(err)
	}
	if err := os.Rename(list+".away", list); err != nil {
		t.Fatal(err)
	}
	if err := a.SetPassword(nil, []byte("pw")); err != nil {
		t.Fatal(err)
	}
	if a, err = (&Store{Root: root}).Load(); err != nil || a.Guard() != Locked || !a.Devices()[1].Revoked {
		t.Fatal(err)
	}
	if _, err := a.Revoke(long.String(), nil, time.Now()); !errors.Is(err, ErrPassword) {
		t.Errorf("without the password: %v", err)
	}
	// The next list has the number after, and the earlier entry.
	third, err := jami.NewDevice(&testKeys().CA.PublicKey, a.Chain.Account, testKeys().Account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	next, err := nextCRL(&jami.Archive{Account: a.Chain.Account, AccountKey: testKeys().Account, CRL: first}, [][]byte{first}, []*x509.Certificate{third}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n, err := trust.ParseCRL(next, a.Chain.Account)
	if err != nil || len(n.RevokedCertificateEntries) != 2 || new(big.Int).Sub(n.Number, l.Number).Int64() != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	if news, err := a.AddCRL(next); err != nil || !news {
		t.Errorf("%v, %v", news, err)
	}
	if news, err := a.AddCRL(first); err != nil || news || !bytes.Equal(a.CRL(), next) {
		t.Errorf("an older one: %v, %v", news, err)
	}
	path := filepath.Join(t.TempDir(), "crl")
	if err := os.WriteFile(path, next, 0o600); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(ca, jami.MarshalChain(a.Chain.Account), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "crl", "-inform", "DER", "-in", path, "-CAfile", ca, "-noout", "-text").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "verify OK") {
		t.Errorf("openssl: %v %s", err, out)
	}
}

func TestListFromElsewhereShutsThisDeviceOut(t *testing.T) {
	root, a := selfSigned(t)
	if a.Revoked() != nil {
		t.Fatal(a.Revoked())
	}
	der, err := nextCRL(&jami.Archive{Account: a.Chain.Account, AccountKey: testKeys().Account}, nil, []*x509.Certificate{a.Chain.Device}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(der)
	flipped[len(flipped)-1] ^= 1
	if _, err := a.AddCRL(flipped); err == nil {
		t.Error("took a list that the account didn't sign")
	}
	if news, err := a.AddCRL(der); err != nil || !news {
		t.Fatal(news, err)
	}
	var d *DamagedError
	if _, err := (&Store{Root: root}).Load(); !errors.As(a.Revoked(), &d) || !errors.As(err, &d) || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("%v; loaded: %v", a.Revoked(), err)
	}
}

// TestRevokeKeepsStockEntries: jamid's serials are negative as often as not.
func TestRevokeKeepsStockEntries(t *testing.T) {
	archive, err := jami.ParseArchive(stock(t, stockPassword), []byte(stockPW))
	if err != nil {
		t.Fatal(err)
	}
	old, err := trust.ParseCRL(archive.CRL, archive.Account)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := jami.NewDevice(&testKeys().Device.PublicKey, archive.Account, archive.AccountKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := nextCRL(archive, nil, []*x509.Certificate{dev}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := trust.ParseCRL(der, archive.Account)
	if err != nil || len(l.RevokedCertificateEntries) != 2 || l.RevokedCertificateEntries[0].SerialNumber.Cmp(old.RevokedCertificateEntries[0].SerialNumber) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// A device that was certified anew is revoked with all certificates that are known of it.
func TestRevokeDeviceThatWasCertifiedAnew(t *testing.T) {
	root, a := selfSigned(t)
	first := second(t, a)
	fresh, err := jami.RenewDevice(first[0], a.Chain.Account, testKeys().Account, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	anew := []*x509.Certificate{fresh, a.Chain.Account}
	for _, certs := range [][]*x509.Certificate{anew, first} { // in any order
		if news, err := a.Learn(certs, time.Now()); err != nil || !news {
			t.Fatalf("learnt: %v, %v", news, err)
		}
	}
	if news, err := a.Learn(anew, time.Now()); err != nil || news {
		t.Errorf("learnt again: %v, %v", news, err)
	}
	if a, err = (&Store{Root: root}).Load(); err != nil {
		t.Fatal(err)
	}
	_, id := jami.CertIDs(fresh)
	if c := a.Other(id); len(a.Devices()) != 2 || c == nil || !c.Device.Equal(fresh) {
		t.Fatalf("devices %+v, want the newest certificate of one other", a.Devices())
	}
	if d, err := a.Revoke(id.String(), nil, time.Now()); err != nil || !d.Revoked {
		t.Fatal(d, err)
	}
	for i, c := range []*x509.Certificate{first[0], fresh} {
		if !a.Revocations().Has(c, a.Chain.Account) {
			t.Errorf("certificate %d is not revoked", i)
		}
	}
}
