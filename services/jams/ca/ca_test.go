package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names/namestest"
)

func TestOwnIsMadeOnce(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a, err := Own(dir, 2048, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Own(dir, 2048, now, nil)
	if err != nil || !a.Cert.Equal(b.Cert) {
		t.Errorf("%v", err)
	}
	path := filepath.Join(dir, fileCA)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Own(dir, 2048, now, nil); err == nil {
		t.Error("a damaged authority is taken")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "damaged" {
		t.Errorf("it is overwritten: %q, %v", text, err)
	}
}

func TestGiven(t *testing.T) {
	keys, now := namestest.Accounts(t, 3), time.Now()
	root, err := jami.NewCA(keys[0], now)
	if err != nil {
		t.Fatal(err)
	}
	below, err := jami.NewAccount(&keys[1].PublicKey, root, keys[0], now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := jami.NewDevice(&keys[2].PublicKey, below, keys[1], now)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, ec.Public(), ec)
	if err != nil {
		t.Fatal(err)
	}
	text := func(key any) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
	}
	cert := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	for _, tt := range []struct {
		what      string
		cert, key []byte
		at        time.Time
		ok        bool
	}{
		{"good", cert(root.Raw), text(keys[0]), now, true},
		{"another key", cert(root.Raw), text(keys[1]), now, false},
		{"not self-signed", cert(below.Raw), text(keys[1]), now, false},
		{"no CA", cert(leaf.Raw), text(keys[2]), now, false},
		{"ECDSA", cert(der), text(ec), now, false},
		{"expired", cert(root.Raw), text(keys[0]), now.Add(2 * jami.Validity), false},
		{"two certificates", append(cert(root.Raw), cert(below.Raw)...), text(keys[0]), now, false},
		{"nothing", nil, nil, now, false},
	} {
		dir := t.TempDir()
		c, k := filepath.Join(dir, "c"), filepath.Join(dir, "k")
		if err := os.WriteFile(c, tt.cert, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(k, tt.key, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Given(c, k, tt.at); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := namestest.Accounts(f, 1)[0]
	c, err := jami.NewCA(key, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	text, err := jami.MarshalKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(text, jami.MarshalChain(c)...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parse(b, b, time.Now()); (a == nil) != (err != nil) {
			t.Errorf("%v, %v", a, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	keys, now := namestest.Accounts(f, 1), time.Now()
	root, err := jami.NewCA(keys[0], now)
	if err != nil {
		f.Fatal(err)
	}
	key, err := jami.MarshalKey(keys[0])
	if err != nil {
		f.Fatal(err)
	}
	whole := append(key, jami.MarshalChain(root)...)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("-----BEGIN " + pemSealed + "-----\nAAAA\n-----END " + pemSealed + "-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		clear, err := opened(b, nil)
		if err != nil {
			return
		}
		if c, err := parse(clear, clear, now); err == nil && !c.key.PublicKey.Equal(c.Cert.PublicKey) {
			t.Error("the key is another's")
		}
	})
}
