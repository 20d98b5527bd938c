package jami

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// sameIdentity checks what a renewal must not touch.
func sameIdentity(t *testing.T, what string, old, renewed *x509.Certificate, now time.Time) {
	t.Helper()
	oldID, oldLong := CertIDs(old)
	id, long := CertIDs(renewed)
	if id != oldID || long != oldLong || !bytes.Equal(renewed.RawSubject, old.RawSubject) || !bytes.Equal(renewed.RawIssuer, old.RawIssuer) {
		t.Errorf("%s: became %s, %s by %s", what, id, renewed.Subject, renewed.Issuer)
	}
	if renewed.SerialNumber.Cmp(old.SerialNumber) == 0 || renewed.SerialNumber.Sign() <= 0 {
		t.Errorf("%s: serial %v, was %v", what, renewed.SerialNumber, old.SerialNumber)
	}
	if !renewed.NotBefore.Equal(now) || renewed.NotAfter.Sub(now) != Validity {
		t.Errorf("%s: from %s to %s", what, renewed.NotBefore, renewed.NotAfter)
	}
}

func testArchive(t testing.TB, now time.Time) (*Archive, *chain) {
	t.Helper()
	c, k := newChain(t, now), testKeys()
	return &Archive{AccountKey: k[1], Account: c.Account, CA: c.CA, CAKey: k[0]}, c
}

// The account goes on with a chain that is good again, and what its keys signed before is too.
func TestRenewExpiredAccount(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	k := testKeys()
	a, c := testArchive(t, testNow.Add(-Validity-time.Hour))
	receipt, err := NewReceipt(k[1], k[2].Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	if renewed, err := a.Renew(testNow, 0); !renewed || err != nil {
		t.Fatal(renewed, err)
	}
	sameIdentity(t, "CA", c.CA, a.CA, testNow)
	sameIdentity(t, "account", c.Account, a.Account, testNow)
	dev, err := RenewDevice(c.Device, a.Account, &farKey{k: k[1]}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	sameIdentity(t, "device", c.Device, dev, testNow)
	if len(dev.Extensions) != 0 || len(a.Account.Extensions) != len(c.Account.Extensions) {
		t.Errorf("extensions %v, %v", dev.Extensions, a.Account.Extensions)
	}
	for _, device := range []*x509.Certificate{dev, c.Device} { // the old one is over, but signed
		if err := device.CheckSignatureFrom(a.Account); err != nil {
			t.Error(err)
		}
	}
	verify(t, dev, a.Account, a.CA)
	if _, err := ParseReceipt(receipt.Text, receipt.Sig, dev, a.Account); err != nil {
		t.Error(err)
	}
	if renewed, err := a.Renew(testNow, 24*time.Hour); renewed || err != nil {
		t.Errorf("renewed a good one: %v, %v", renewed, err)
	}
}

func verify(t *testing.T, certs ...*x509.Certificate) {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(certs[len(certs)-1])
	for _, c := range certs[1 : len(certs)-1] {
		between.AddCert(c)
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: testNow.Add(time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}

func TestRenewWhatIsDue(t *testing.T) {
	k := testKeys()
	fresh, old := newChain(t, testNow), newChain(t, testNow.Add(-Validity+time.Hour))
	self, err := NewCA(k[1], testNow.Add(-2*Validity))
	if err != nil {
		t.Fatal(err)
	}
	noCA, err := NewDevice(&k[1].PublicKey, fresh.CA, k[0], testNow)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what        string
		a           Archive
		ahead       time.Duration
		ca, account bool
		want        error
	}{
		{"good", Archive{Account: fresh.Account, CA: fresh.CA, CAKey: k[0]}, time.Hour, false, false, nil},
		{"good, without the key", Archive{Account: fresh.Account, CA: fresh.CA}, time.Hour, false, false, nil},
		{"over soon, not looked ahead", Archive{Account: old.Account, CA: old.CA, CAKey: k[0]}, time.Minute, false, false, nil},
		{"over soon", Archive{Account: old.Account, CA: old.CA, CAKey: k[0]}, 2 * time.Hour, true, true, nil},
		{"the account alone", Archive{Account: old.Account, CA: fresh.CA, CAKey: k[0]}, 2 * time.Hour, false, true, nil},
		{"the CA alone", Archive{Account: fresh.Account, CA: old.CA, CAKey: k[0]}, 2 * time.Hour, true, false, nil},
		{"self-signed", Archive{Account: self}, 0, false, true, nil},
		{"an account that is no authority", Archive{Account: noCA, CA: fresh.CA, CAKey: k[0]}, 0, false, true, nil},
		{"over, without the key", Archive{Account: old.Account, CA: old.CA}, 2 * time.Hour, false, false, ErrNoCAKey},
		{"the account over, without the key", Archive{Account: old.Account, CA: fresh.CA}, 2 * time.Hour, false, false, ErrNoCAKey},
		{"another key", Archive{Account: old.Account, CA: old.CA, CAKey: k[2]}, 2 * time.Hour, false, false, ErrCert},
	} {
		a := x.a
		a.AccountKey = k[1]
		renewed, err := a.Renew(testNow, x.ahead)
		if !errors.Is(err, x.want) || renewed != (x.ca || x.account) || (a.CA != x.a.CA) != x.ca || (a.Account != x.a.Account) != x.account {
			t.Errorf("%s: renewed %v, CA %v, account %v, %v", x.what, renewed, a.CA != x.a.CA, a.Account != x.a.Account, err)
		}
		if x.account && (!a.Account.IsCA || a.Account.KeyUsage != fresh.Account.KeyUsage) {
			t.Errorf("%s: the account is no authority", x.what)
		}
	}
	if _, err := RenewDevice(fresh.Device, fresh.Account, k[0], testNow); !errors.Is(err, ErrCert) {
		t.Error(err)
	}
}

func TestRequests(t *testing.T) {
	k := testKeys()
	for cn, make := range map[string]func(crypto.Signer) ([]byte, error){"Jami device": NewDeviceRequest, "Jami": NewAccountRequest} {
		text, err := make(&farKey{k: k[2]})
		if err != nil {
			t.Fatal(err)
		}
		if pub, err := ParseRequest(text); err != nil || !pub.Equal(k[2].Public()) {
			t.Errorf("%s: %v, %v", cn, pub, err)
		}
		block, _ := pem.Decode(text)
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		dev := newChain(t, testNow).Device
		want := bytes.Replace(dev.RawSubject, []byte("\x0bJami device"), append([]byte{byte(len(cn))}, cn...), 1)
		if block.Type != "NEW CERTIFICATE REQUEST" || csr.SignatureAlgorithm != x509.SHA384WithRSA || len(csr.Extensions) != 0 || csr.Subject.CommonName != cn ||
			cn == dev.Subject.CommonName && !bytes.Equal(csr.RawSubject, want) {
			t.Errorf("%s: %s %s %x", cn, block.Type, csr.SignatureAlgorithm, csr.RawSubject)
		}
		if _, err := make(&farKey{k: k[2], broken: io.EOF}); !errors.Is(err, ErrKeyFailed) {
			t.Error(err)
		}
		if _, err := make(ecKey(t, elliptic.P256())); !errors.Is(err, ErrRequest) {
			t.Error(err)
		}
	}
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signerOnly hides what a key can beside signing.
type signerOnly struct{ crypto.Signer }

func operatorCA(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Org", Organization: []string{"Example"}},
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(Validity), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAuthorityIssues(t *testing.T) {
	k := testKeys()
	request, err := NewAccountRequest(k[1])
	if err != nil {
		t.Fatal(err)
	}
	for what, key := range map[string]crypto.Signer{"RSA": k[0], "P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521())} {
		a, err := NewAuthority(operatorCA(t, key, func(*x509.Certificate) {}), signerOnly{key}, testNow)
		if err != nil {
			t.Fatal(what, err)
		}
		got, err := a.Issue(request, testNow)
		if err != nil || len(got) != 2 || got[1] != a.Cert {
			t.Fatal(what, err)
		}
		acc, stock := got[0], newChain(t, testNow).Account
		id, _ := CertIDs(acc)
		if !bytes.Equal(acc.RawSubject, stock.RawSubject) || !acc.IsCA || acc.KeyUsage != stock.KeyUsage || !bytes.Equal(acc.SubjectKeyId, id[:]) || acc.AuthorityKeyId != nil {
			t.Errorf("%s: %+v", what, acc.Subject)
		}
		dev, err := NewDevice(&k[2].PublicKey, acc, k[1], testNow)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, dev, acc, a.Cert)
		opensslVerifies(t, dev, acc, a.Cert)
		crl, err := ExtendCRL(a.Cert, a.Key, testNow, got[:1])
		if err != nil {
			t.Fatal(err)
		}
		if l, err := x509.ParseRevocationList(crl); err != nil || l.CheckSignatureFrom(a.Cert) != nil || len(l.RevokedCertificateEntries) != 1 {
			t.Errorf("%s: revocation list: %v", what, err)
		}
	}
	a := &Authority{Cert: newChain(t, testNow).CA, Key: k[0]}
	own, err := NewAccountRequest(k[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{nil, own} {
		if _, err := a.Issue(text, testNow); !errors.Is(err, ErrRequest) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// opensslVerifies asks a second implementation, where there is one.
func opensslVerifies(t *testing.T, device, account, ca *x509.Certificate) {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return
	}
	dir := t.TempDir()
	for name, c := range map[string]*x509.Certificate{"dev": device, "acc": account, "ca": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), MarshalChain(c), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(openssl, "verify", "-no_check_time", "-CAfile", "ca", "-untrusted", "acc", "dev")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl: %s", out)
	}
}

func TestUnfitAuthorities(t *testing.T) {
	k := testKeys()
	c := newChain(t, testNow)
	for what, x := range map[string]struct {
		cert *x509.Certificate
		key  crypto.Signer
		at   time.Time
	}{
		"another key":        {c.CA, k[1], testNow},
		"not self-signed":    {c.Account, k[1], testNow},
		"a device":           {c.Device, k[2], testNow},
		"over":               {c.CA, k[0], testNow.Add(2 * Validity)},
		"not yet":            {c.CA, k[0], testNow.Add(-time.Hour)},
		"weak curve":         {operatorCA(t, ecKey(t, elliptic.P224()), func(*x509.Certificate) {}), nil, testNow},
		"nothing below":      {operatorCA(t, k[0], func(c *x509.Certificate) { c.MaxPathLenZero = true }), k[0], testNow},
		"may not sign lists": {operatorCA(t, k[0], func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }), k[0], testNow},
	} {
		if x.key == nil {
			x.key = &ecdsa.PrivateKey{PublicKey: *x.cert.PublicKey.(*ecdsa.PublicKey)}
		}
		if a, err := NewAuthority(x.cert, x.key, x.at); a != nil || !errors.Is(err, ErrCert) {
			t.Errorf("%s: %v, %v", what, a, err)
		}
	}
}

func TestExtendCRL(t *testing.T) {
	k, c := testKeys(), newChain(t, testNow)
	parse := func(der []byte, err error) *x509.RevocationList {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.CheckSignatureFrom(c.Account); err != nil {
			t.Error(err)
		}
		return l
	}
	serial := func(n int64) *x509.Certificate { return &x509.Certificate{SerialNumber: big.NewInt(n)} }
	first := parse(ExtendCRL(c.Account, k[1], testNow, []*x509.Certificate{serial(-5)}))
	other := parse(ExtendCRL(c.Account, k[1], testNow, []*x509.Certificate{serial(7)}, first))
	later := testNow.Add(time.Hour)
	l := parse(ExtendCRL(c.Account, &farKey{k: k[1]}, later, []*x509.Certificate{serial(9), serial(7)}, first, other))
	if len(l.RevokedCertificateEntries) != 3 || l.SignatureAlgorithm != x509.SHA512WithRSA || !l.NextUpdate.Equal(c.Account.NotAfter) {
		t.Errorf("%d entries, %s, until %s", len(l.RevokedCertificateEntries), l.SignatureAlgorithm, l.NextUpdate)
	}
	for i, want := range []int64{-5, 7, 9} { // negative ones are stock's
		e := l.RevokedCertificateEntries[i]
		if at := e.RevocationTime; e.SerialNumber.Int64() != want || !at.Equal(map[bool]time.Time{true: later, false: testNow}[i == 2]) {
			t.Errorf("entry %d: %v at %s", i, e.SerialNumber, at)
		}
	}
	if got, want := l.Number, new(big.Int).Add(other.Number, big.NewInt(1)); got.Cmp(want) != 0 || other.Number.Cmp(first.Number) <= 0 {
		t.Errorf("numbers %v, %v, %v", first.Number, other.Number, got)
	}
	stock, err := x509.ParseRevocationList(vector(t, "account.crl.der"))
	if err != nil {
		t.Fatal(err)
	}
	if l := parse(ExtendCRL(c.Account, k[1], testNow, nil, stock)); len(l.RevokedCertificateEntries) != 1 ||
		l.RevokedCertificateEntries[0].SerialNumber.Cmp(stock.RevokedCertificateEntries[0].SerialNumber) != 0 {
		t.Error("stock's entry is lost")
	}
	bare := *c.Account // as another's software may have made it
	bare.SubjectKeyId = nil
	parse(ExtendCRL(&bare, k[1], testNow, nil))
	if _, err := ExtendCRL(c.Account, k[0], testNow, nil); !errors.Is(err, ErrCert) {
		t.Error(err)
	}
}

func FuzzParseRequest(f *testing.F) {
	text, err := NewAccountRequest(testKeys()[1])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := ParseRequest(b)
		if (pub == nil) != (err != nil) || err != nil && !errors.Is(err, ErrRequest) {
			t.Errorf("%v, %v", pub, err)
		}
	})
}
