package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// pool has keys of several kinds, made once.
var pool = sync.OnceValue(func() map[string]crypto.Signer {
	out := map[string]crypto.Signer{}
	for name, bits := range map[string]int{"ca": 2048, "account": 2048, "device": 2048, "other": 2048, "small": 1024} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		out[name] = k
	}
	for name, c := range map[string]elliptic.Curve{"p224": elliptic.P224(), "p256": elliptic.P256()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		out[name] = k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	out["ed25519"] = ed
	return out
})

// spec is one certificate of a chain to be made.
type spec struct {
	key    string // in the pool
	signer string // whose key signs; empty: the next one's
	t      x509.Certificate
	uid    string // empty: the key id
	noUID  bool
}

func good() []spec {
	ca := func(cn string) x509.Certificate {
		return x509.Certificate{Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	return []spec{
		{key: "device", t: x509.Certificate{Subject: pkix.Name{CommonName: "Jami device"}}},
		{key: "account", t: ca("Jami")},
		{key: "ca", t: ca("Jami CA")},
	}
}

func build(t testing.TB, specs []spec) []*x509.Certificate {
	t.Helper()
	out := make([]*x509.Certificate, len(specs))
	for i := len(specs) - 1; i >= 0; i-- {
		s := specs[i]
		c := s.t
		key := pool()[s.key]
		id, _, err := jami.PublicIDs(key.Public())
		if err != nil {
			der, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			id = jami.KeyID(der)
		}
		uid := s.uid
		if uid == "" {
			uid = id.String()
		}
		if !s.noUID {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oidUID, Value: uid})
		}
		if c.SerialNumber == nil {
			c.SerialNumber = big.NewInt(int64(1000 + i))
		}
		if c.NotBefore.IsZero() {
			c.NotBefore, c.NotAfter = now.AddDate(-1, 0, 0), now.AddDate(9, 0, 0)
		}
		parent, signer := &c, key
		if i < len(specs)-1 {
			parent, signer = &x509.Certificate{RawSubject: out[i+1].RawSubject}, pool()[specs[i+1].key]
		}
		if s.signer != "" {
			signer = pool()[s.signer]
			parent = &x509.Certificate{Subject: parent.Subject, RawSubject: parent.RawSubject}
			if parent.RawSubject == nil {
				raw, err := asn1.Marshal(parent.Subject.ToRDNSequence())
				if err != nil {
					t.Fatal(err)
				}
				parent.RawSubject = raw
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, &c, parent, key.Public(), signer)
		if err != nil {
			t.Fatalf("%s: %v", place(i), err)
		}
		if out[i], err = x509.ParseCertificate(der); err != nil {
			t.Fatalf("%s: %v", place(i), err)
		}
	}
	return out
}

func rules() *Rules { return &Rules{Now: func() time.Time { return now }} }

func TestGoodChains(t *testing.T) {
	for name, change := range map[string]func([]spec) []spec{
		"device, account, CA":        func(s []spec) []spec { return s },
		"the account signed itself":  func(s []spec) []spec { return s[:2] },
		"an organisation's ECDSA CA": func(s []spec) []spec { s[2].key, s[2].noUID = "p256", true; return s },
		"an Ed25519 CA":              func(s []spec) []spec { s[2].key = "ed25519"; return s },
		"an authority between": func(s []spec) []spec {
			return append(s, spec{key: "other", t: x509.Certificate{Subject: pkix.Name{CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true}})
		},
		"PSS":                  func(s []spec) []spec { s[0].t.SignatureAlgorithm = x509.SHA512WithRSAPSS; return s },
		"a path length of one": func(s []spec) []spec { s[2].t.MaxPathLen = 1; return s },
		"no UID":               func(s []spec) []spec { s[0].noUID, s[1].noUID = true, true; return s },
		"clocks that differ": func(s []spec) []spec {
			s[0].t.NotBefore, s[0].t.NotAfter = now.Add(time.Minute), now.AddDate(1, 0, 0)
			return s
		},
		"ended a moment ago": func(s []spec) []spec {
			s[0].t.NotBefore, s[0].t.NotAfter = now.AddDate(-1, 0, 0), now.Add(-time.Minute)
			return s
		},
		"a UID that is no id": func(s []spec) []spec { s[1].uid = "alice"; return s },
		"a UID in upper case": func(s []spec) []spec {
			id, _, _ := jami.PublicIDs(pool()["account"].Public())
			s[1].uid = strings.ToUpper(id.String())
			return s
		},
		"an unknown extension": func(s []spec) []spec {
			s[0].t.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: []byte{5, 0}}}
			return s
		},
		"an account without KU": func(s []spec) []spec { s[1].t.KeyUsage = 0; return s },
	} {
		t.Run(name, func(t *testing.T) {
			certs := build(t, change(good()))
			c, err := rules().Check(certs)
			if err != nil {
				t.Fatal(err)
			}
			if id, _ := jami.CertIDs(certs[1]); c.JamiID != id || len(c.Authorities) != len(certs)-2 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// wrongChains are chains with one thing wrong each.
func wrongChains(t testing.TB) map[string]struct {
	certs []*x509.Certificate
	rules *Rules
	want  Reason
} {
	type wrong = struct {
		certs []*x509.Certificate
		rules *Rules
		want  Reason
	}
	out := map[string]wrong{}
	add := func(name string, want Reason, change func(s []spec) []spec, twist ...func([]*x509.Certificate, *Rules) []*x509.Certificate) {
		certs, r := build(t, change(good())), rules()
		for _, f := range twist {
			certs = f(certs, r)
		}
		out[name] = wrong{certs, r, want}
	}
	same := func(s []spec) []spec { return s }
	at := func(i int, f func(*spec)) func([]spec) []spec {
		return func(s []spec) []spec { f(&s[i]); return s }
	}
	dated := func(from, to time.Time) func(*spec) {
		return func(s *spec) { s.t.NotBefore, s.t.NotAfter = from, to }
	}
	for i, who := range []string{"device", "account", "CA"} {
		add("expired "+who, Expired, at(i, dated(now.AddDate(-2, 0, 0), now.AddDate(0, 0, -1))))
		add(who+" of tomorrow", NotYetValid, at(i, dated(now.AddDate(0, 0, 1), now.AddDate(1, 0, 0))))
		add("small key of the "+who, SmallKey, at(i, func(s *spec) { s.key = "small" }))
		for size, n := range map[string]*big.Int{"too long": new(big.Int).Lsh(big.NewInt(1), 160), "zero": new(big.Int)} {
			add("serial of the "+who+" "+size, BadSerial, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
				x := *c[i] // x509 makes none
				x.SerialNumber = n
				c[i] = &x
				return c
			})
		}
		add("critical extension in the "+who, CriticalExtension, at(i, func(s *spec) {
			s.t.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}))
		add("signature of the "+who+" by another key", BadSignature, at(i, func(s *spec) { s.signer = "other" }))
		add("signature of the "+who+" flipped", BadSignature, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
			return replaced(t, c, i, func(der []byte) { der[len(der)-1] ^= 1 })
		})
		add("body of the "+who+" changed", BadSignature, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
			return replaced(t, c, i, func(der []byte) { // the last digit of the year it ends in
				at := bytes.LastIndex(der[:len(der)/2], []byte("350601120000Z"))
				der[at+1] = '6'
			})
		})
		add("validity of the "+who+" ends before it begins", BadValidity, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
			x := *c[i]
			x.NotBefore, x.NotAfter = x.NotAfter, x.NotBefore
			c[i] = &x
			return c
		})
	}
	add("device alone", NoIssuer, func(s []spec) []spec { return s }, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate { return c[:1] })
	add("nothing", NoIssuer, same, func([]*x509.Certificate, *Rules) []*x509.Certificate { return nil })
	add("CA missing", MissingCA, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate { return c[:2] })
	add("account missing", OutOfOrder, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		return []*x509.Certificate{c[0], c[2]}
	})
	add("swapped order", OutOfOrder, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		return []*x509.Certificate{c[1], c[0], c[2]}
	})
	add("upside down", OutOfOrder, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		return []*x509.Certificate{c[2], c[1], c[0]}
	})
	add("another's account above", OutOfOrder, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		s := good()
		s[1].key = "other"
		return []*x509.Certificate{c[0], build(t, s)[1], c[2]}
	})
	add("CA twice", SameKey, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		return append(c, c[2])
	})
	add("nine certificates", TooLarge, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		for len(c) < 9 {
			c = append(c, c[2])
		}
		return c
	})
	add("a certificate of 20 KiB", TooLarge, at(0, func(s *spec) {
		s.t.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: make([]byte, 20<<10)}}
	}))
	add("SHA-1", WeakSignature, same, func(c []*x509.Certificate, _ *Rules) []*x509.Certificate {
		c[0] = signedAgain(t, c[0], "account", crypto.SHA1, func(tbs []byte) {
			at := bytes.Index(tbs, oidSHA256WithRSA)
			tbs[at+len(oidSHA256WithRSA)-1] = 5
		})
		return c
	})
	add("device with an ECDSA key", WrongKeyType, at(0, func(s *spec) { s.key = "p256" }))
	add("account with an Ed25519 key", WrongKeyType, at(1, func(s *spec) { s.key = "ed25519" }))
	add("CA on P-224", WrongKeyType, at(2, func(s *spec) { s.key = "p224" }))
	add("device and account of one key", SameKey, at(0, func(s *spec) { s.key = "account" }))
	add("account is no CA", NotCA, at(1, func(s *spec) { s.t.IsCA, s.t.KeyUsage = false, 0 }))
	add("account without constraints", NotCA, at(1, func(s *spec) { s.t.IsCA, s.t.BasicConstraintsValid, s.t.KeyUsage = false, false, 0 }))
	add("account may not sign", MayNotSign, at(1, func(s *spec) { s.t.KeyUsage = x509.KeyUsageCRLSign }))
	add("path too long", PathTooLong, at(2, func(s *spec) { s.t.MaxPathLenZero = true }))
	add("UID of another device", UIDMismatch, at(0, func(s *spec) { s.uid = strings.Repeat("a", 40) }))
	add("UID of another account", UIDMismatch, at(1, func(s *spec) { s.uid = strings.Repeat("b", 40) }))
	add("another account than expected", WrongAccount, same, func(c []*x509.Certificate, r *Rules) []*x509.Certificate {
		r.Account, _ = jami.CertIDs(c[2])
		return c
	})
	add("another device than expected", WrongDevice, same, func(c []*x509.Certificate, r *Rules) []*x509.Certificate {
		_, r.Device = jami.CertIDs(c[1])
		return c
	})
	add("revoked device", Revoked, same, revoking(t, 0, "account"))
	add("revoked device with a negative serial", Revoked, same, negative(t), revoking(t, 0, "account"))
	add("revoked account", Revoked, same, revoking(t, 1, "ca"))
	add("not a root that was named", UnknownCA, same, func(c []*x509.Certificate, r *Rules) []*x509.Certificate {
		s := good()
		s[2].key = "other"
		r.Roots = build(t, s)[2:]
		return c
	})
	add("name constraints", Forbidden, func(s []spec) []spec {
		s[2].t.PermittedDNSDomains, s[2].t.PermittedDNSDomainsCritical = []string{"example.org"}, true
		s[0].t.DNSNames = []string{"example.com"}
		return s
	})
	return out
}

func revoking(t testing.TB, i int, by string) func([]*x509.Certificate, *Rules) []*x509.Certificate {
	return func(c []*x509.Certificate, r *Rules) []*x509.Certificate {
		r.Revoked = new(Revocations)
		news, err := r.Revoked.Add(crl(t, c[i+1], by, c[i].SerialNumber), c[i+1])
		if err != nil || !news {
			t.Fatalf("news %v, %v", news, err)
		}
		return c
	}
}

// negative gives the device a serial below zero, which x509 reads but does not write.
func negative(t testing.TB) func([]*x509.Certificate, *Rules) []*x509.Certificate {
	return func([]*x509.Certificate, *Rules) []*x509.Certificate {
		s := good()
		s[0].t.SerialNumber = big.NewInt(0x1122334455667788)
		c := build(t, s)
		c[0] = signedAgain(t, c[0], "account", crypto.SHA256, func(tbs []byte) {
			tbs[bytes.Index(tbs, s[0].t.SerialNumber.Bytes())] |= 0x80
		})
		if c[0].SerialNumber.Sign() >= 0 {
			t.Fatal("the serial is not negative")
		}
		return c
	}
}

// oidSHA256WithRSA is 1.2.840.113549.1.1.11 in DER.
var oidSHA256WithRSA = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}

// signedAgain edits the body of a certificate and signs it anew.
func signedAgain(t testing.TB, c *x509.Certificate, key string, h crypto.Hash, edit func(tbs []byte)) *x509.Certificate {
	t.Helper()
	tbs := bytes.Clone(c.RawTBSCertificate)
	edit(tbs)
	sum := h.New()
	sum.Write(tbs)
	sig, err := pool()[key].Sign(rand.Reader, sum.Sum(nil), h)
	if err != nil {
		t.Fatal(err)
	}
	alg := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	if h == crypto.SHA1 {
		alg.Algorithm[6] = 5
	}
	der, err := asn1.Marshal(struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, alg, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func crl(t testing.TB, issuer *x509.Certificate, key string, serials ...*big.Int) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 1), SignatureAlgorithm: x509.SHA512WithRSA}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: now})
	}
	x := *issuer
	x.SubjectKeyId = []byte{1}
	der, err := x509.CreateRevocationList(rand.Reader, l, &x, pool()[key])
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// replaced changes bytes of a certificate that still parses.
func replaced(t testing.TB, certs []*x509.Certificate, i int, f func([]byte)) []*x509.Certificate {
	t.Helper()
	der := bytes.Clone(certs[i].Raw)
	f(der)
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	certs[i] = c
	return certs
}

func TestNegativeSerial(t *testing.T) {
	if _, err := rules().Check(negative(t)(nil, nil)); err != nil {
		t.Fatal(err)
	}
}

func TestWrongChains(t *testing.T) {
	reasons := map[Reason]int{}
	for name, w := range wrongChains(t) {
		t.Run(name, func(t *testing.T) {
			_, err := w.rules.Check(w.certs)
			if !errors.Is(err, &Error{Reason: w.want}) {
				t.Fatalf("%v, want %s", err, w.want)
			}
			reasons[w.want]++
		})
	}
	t.Logf("%d wrong chains refused, for %d reasons", len(wrongChains(t)), len(reasons))
}

// TestOpenSSLAgrees: what we accept, openssl accepts, and it reads our lists.
func TestOpenSSLAgrees(t *testing.T) {
	c := build(t, good())
	dir := t.TempDir()
	write := func(name, typ string, der ...[]byte) string {
		var b bytes.Buffer
		for _, d := range der {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: d}))
		}
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	dev, acc, ca := write("dev.pem", "CERTIFICATE", c[0].Raw), write("acc.pem", "CERTIFICATE", c[1].Raw), write("ca.pem", "CERTIFICATE", c[2].Raw)
	list := write("crl.pem", "X509 CRL", crl(t, c[1], "account", c[0].SerialNumber))
	out, err := exec.Command("openssl", "verify", "-attime", "1780315200", "-CAfile", ca, "-untrusted", acc, dev).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v %s", err, out)
	}
	out, err = exec.Command("openssl", "crl", "-in", list, "-CAfile", acc, "-noout", "-text").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "verify OK") {
		t.Errorf("openssl crl: %v %s", err, out)
	}
}

func TestRevocations(t *testing.T) {
	c := build(t, good())
	r := new(Revocations)
	if r.Has(c[0], c[1]) || (*Revocations)(nil).Has(c[0], c[1]) {
		t.Error("revoked without a list")
	}
	if news, err := r.Add(crl(t, c[1], "account", c[0].SerialNumber), c[1]); err != nil || !news {
		t.Errorf("news %v, %v", news, err)
	}
	if news, err := r.Add(crl(t, c[1], "account"), c[1]); err != nil || news || !r.Has(c[0], c[1]) {
		t.Errorf("an empty list later: news %v, %v, revoked %v", news, err, r.Has(c[0], c[1]))
	}
	if r.Has(c[1], c[2]) {
		t.Error("the same serial of another issuer is revoked")
	}
	for name, der := range map[string][]byte{
		"another's signature": crl(t, c[1], "account")[:200],
		"another issuer":      crl(t, c[2], "ca"),
		"empty":               nil,
		"huge":                make([]byte, maxCRL+1),
	} {
		if _, err := r.Add(der, c[1]); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	flipped := crl(t, c[1], "account")
	flipped[len(flipped)-1] ^= 1
	if _, err := r.Add(flipped, c[1]); err == nil {
		t.Error("a flipped signature was taken")
	}
}

func TestPEM(t *testing.T) {
	c := build(t, good())
	text := jami.MarshalChain(c...)
	if got, err := rules().Parse(append([]byte("a comment\n"), text...)); err != nil || !got.Device.Equal(c[0]) {
		t.Fatalf("%v", err)
	}
	block := func(typ string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}) }
	for name, x := range map[string]struct {
		text []byte
		want Reason
	}{
		"empty":          {nil, Malformed},
		"no PEM":         {[]byte("hello"), Malformed},
		"a key":          {append(text[:len(text):len(text)], block("PRIVATE KEY", []byte{1})...), Malformed},
		"not DER":        {block("CERTIFICATE", []byte("nonsense")), Malformed},
		"cut":            {block("CERTIFICATE", c[0].Raw[:len(c[0].Raw)-9]), Malformed},
		"something more": {block("CERTIFICATE", append(bytes.Clone(c[0].Raw), 0)), Malformed},
		"huge":           {make([]byte, 1<<20), TooLarge},
		"a huge one":     {block("CERTIFICATE", make([]byte, maxCert+1)), TooLarge},
		"nine":           {bytes.Repeat(block("CERTIFICATE", c[2].Raw), 9), TooLarge},
	} {
		if _, err := rules().Parse(x.text); !errors.Is(err, &Error{Reason: x.want}) {
			t.Errorf("%s: %v, want %s", name, err, x.want)
		}
	}
}

// TestStockCRL: a list that jamid made names a negative serial.
func TestStockCRL(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "jami", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	c, err := (&Rules{AnyTime: true}).Parse(read("recipient_device.chain.pem"))
	if err != nil {
		t.Fatal(err)
	}
	der := read("account.crl.der")
	l, err := ParseCRL(der, c.Account)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.RevokedCertificateEntries) != 1 || l.RevokedCertificateEntries[0].SerialNumber.Sign() >= 0 {
		t.Fatalf("entries %v; want one with a negative serial", l.RevokedCertificateEntries)
	}
	r := new(Revocations)
	if _, err := r.Add(der, c.Account); err != nil || r.Has(c.Device, c.Account) {
		t.Errorf("the chain's device is revoked: %v", err)
	}
	dev := *c.Device
	dev.SerialNumber = l.RevokedCertificateEntries[0].SerialNumber
	if !r.Has(&dev, c.Account) {
		t.Error("a revoked serial passed")
	}
	if _, err := ParseCRL(der, c.Authorities[0]); err == nil {
		t.Error("accepted from another issuer")
	}
}

// TestAnyTime: dates are not looked at, but there has to be a moment for all.
func TestAnyTime(t *testing.T) {
	s := good()
	s[0].t.NotBefore, s[0].t.NotAfter = now.AddDate(-2, 0, 0), now.AddDate(0, 0, -1)
	for i := 1; i <= 2; i++ {
		s[i].t.NotBefore, s[i].t.NotAfter = now.AddDate(-3, 0, 0), now.AddDate(3, 0, 0)
	}
	r := rules()
	r.AnyTime = true
	c, err := r.Check(build(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Parse(c.PEM()); err != nil || again.JamiID != c.JamiID {
		t.Errorf("%+v, %v", again, err)
	}
	s[1].t.NotBefore = now
	if _, err := r.Check(build(t, s)); !errors.Is(err, &Error{Reason: BadValidity}) {
		t.Errorf("at no time valid together: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	c := build(f, good())
	f.Add(jami.MarshalChain(c...))
	f.Add(jami.MarshalChain(c[1:]...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := rules().Parse(b)
		if (got == nil) == (err == nil) {
			t.Fatalf("%v and %v", got, err)
		}
		if e := new(Error); err != nil && !errors.As(err, &e) {
			t.Fatalf("%T", err)
		}
	})
}

func FuzzCRL(f *testing.F) {
	c := build(f, good())
	f.Add(crl(f, c[1], "account", big.NewInt(1), big.NewInt(-5)))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseCRL(b, c[1]); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}

// Half of stock Jami's lists have a number that looks negative.
func TestListWithANegativeNumber(t *testing.T) {
	for in, want := range map[string]string{
		"-1": "ff", "-128": "80", "-129": "ff7f", "-9223372036854775808": "8000000000000000", "-5": "fb",
		"-1234605616436508552": "eeddccbbaa998878",
	} {
		n, ok := new(big.Int).SetString(in, 10)
		if !ok {
			t.Fatal(in)
		}
		if got := unsigned(n).Text(16); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
	issuer := build(t, good())[1]
	t2 := &x509.RevocationList{Number: big.NewInt(-5), ThisUpdate: now, NextUpdate: now.AddDate(1, 0, 0), SignatureAlgorithm: x509.SHA512WithRSA}
	x := *issuer
	x.SubjectKeyId = []byte{1}
	der, err := x509.CreateRevocationList(rand.Reader, t2, &x, pool()["account"])
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseCRL(der, issuer)
	if err != nil || l.Number.Cmp(big.NewInt(251)) != 0 {
		t.Errorf("number %v, %v", l.Number, err)
	}
}
