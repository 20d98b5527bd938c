package natscreds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/parley-jami/parley/bus/contract"
)

func user(t testing.TB) (token string, seed []byte) {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	uc := jwt.NewUserClaims(pub)
	uc.Name = "hall2"
	if token, err = uc.Encode(account); err != nil {
		t.Fatal(err)
	}
	if seed, err = kp.Seed(); err != nil {
		t.Fatal(err)
	}
	return token, seed
}

func authority(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	token, seed := user(t)
	ca := authority(t)
	for name, a := range map[string]contract.BusAccess{
		"in clear": {},
		"a URL":    {URLs: []string{"nats://127.0.0.1:4223"}},
		"own":      {URLs: []string{"nats://10.0.0.5:4223", "nats://10.0.0.6:4223"}, TLS: true, ServerName: "parley-bus", CA: ca + ca, Worker: "hall2"},
		"public":   {URLs: []string{"nats://bus.example.org:4223"}, TLS: true},
	} {
		raw, err := Format(token, seed, a)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "x.creds")
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(raw), "\n", map[bool]string{true: "\r\n", false: "\n"}[name == "public"])), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Read(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(f.Access, a) || f.User.Name != "hall2" {
			t.Errorf("%s: read %+v of %s", name, f, raw)
		}
		if only, err := ReadAccess(path); err != nil || !reflect.DeepEqual(only, a) {
			t.Errorf("%s: %+v, %v", name, only, err)
		}
		c, err := TLS(a)
		if err != nil || (c != nil) != a.TLS || c != nil && (c.ServerName != a.ServerName || (c.RootCAs != nil) != (a.CA != "") || c.InsecureSkipVerify) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestMalformedFilesAreRefused(t *testing.T) {
	token, seed := user(t)
	good, err := Format(token, seed, contract.BusAccess{TLS: true, ServerName: "parley-bus", CA: authority(t)})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":                     "",
		"no seed":                   strings.Replace(string(good), string(seed), "SUAAAA", 1),
		"an account's seed":         strings.Replace(string(good), string(seed), "SA"+string(seed[2:]), 1),
		"no JSON":                   strings.Replace(string(good), `{"tls"`, `{"tls`, 1),
		"no end":                    strings.Replace(string(good), "END PARLEY", "END", 1),
		"a certificate that is cut": strings.Replace(string(good), "CERTIFICATE-----\nMII", "CERTIFICATE-----\nAII", 1),
		"a name without authority":  string(good[:strings.Index(string(good), "-----BEGIN CERTIFICATE")]),
		"too long":                  string(good) + strings.Repeat("x", MaxSize),
	} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "x")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	token, seed := user(f)
	for _, a := range []contract.BusAccess{{}, {URLs: []string{"nats://a:1"}, TLS: true, ServerName: "x", CA: authority(f)}} {
		raw, err := Format(token, seed, a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if _, err := TLS(got.Access); err != nil {
			t.Fatal(err)
		}
		about, err := Trust(got.Access)
		if err != nil {
			t.Fatal(err)
		}
		again, err := access(about)
		if err != nil || !reflect.DeepEqual(normal(again), normal(got.Access)) {
			t.Fatalf("%+v, then %+v, %v", got.Access, again, err)
		}
	})
}

// normal: no URLs are as good as an empty list.
func normal(a contract.BusAccess) contract.BusAccess {
	if len(a.URLs) == 0 {
		a.URLs = nil
	}
	return a
}
