package jami

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// testKeys are CA, account, device; shorter than Jami's, for the time they take.
var testKeys = sync.OnceValue(func() [3]*rsa.PrivateKey {
	var k [3]*rsa.PrivateKey
	for i := range k {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		k[i] = key
	}
	return k
})

func newChain(t testing.TB, now time.Time) *chain {
	t.Helper()
	k := testKeys()
	ca, err := NewCA(k[0], now)
	if err != nil {
		t.Fatal(err)
	}
	acc, err := NewAccount(&k[1].PublicKey, ca, k[0], now)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := NewDevice(&k[2].PublicKey, acc, k[1], now)
	if err != nil {
		t.Fatal(err)
	}
	return &chain{Device: dev, Account: acc, CA: ca}
}

// TestCertificatesAreLikeJamis compares ours with those of jamid 13.7, field by
// field where they do not depend on keys, dates or chance.
func TestCertificatesAreLikeJamis(t *testing.T) {
	now := time.Now()
	ours, stock := newChain(t, now), vecChain(t)
	for _, x := range []struct {
		name        string
		ours, stock *x509.Certificate
	}{{"CA", ours.CA, stock.CA}, {"account", ours.Account, stock.Account}, {"device", ours.Device, stock.Device}} {
		id, _ := CertIDs(x.ours)
		stockID, _ := CertIDs(x.stock)
		// The name's bytes, string types and order included, differ in the id alone.
		want := bytes.Replace(x.stock.RawSubject, []byte(stockID.String()), []byte(id.String()), 1)
		if !bytes.Equal(x.ours.RawSubject, want) {
			t.Errorf("%s: subject %x, want %x", x.name, x.ours.RawSubject, want)
		}
		if x.ours.SignatureAlgorithm != x.stock.SignatureAlgorithm || x.ours.Version != x.stock.Version ||
			x.ours.KeyUsage != x.stock.KeyUsage || x.ours.IsCA != x.stock.IsCA || x.ours.MaxPathLen != x.stock.MaxPathLen {
			t.Errorf("%s: %v v%d usage %v CA %v", x.name, x.ours.SignatureAlgorithm, x.ours.Version, x.ours.KeyUsage, x.ours.IsCA)
		}
		if got := x.ours.NotAfter.Sub(x.ours.NotBefore); got != x.stock.NotAfter.Sub(x.stock.NotBefore) {
			t.Errorf("%s: valid for %s", x.name, got)
		}
		if x.ours.SerialNumber.Sign() <= 0 || x.ours.SerialNumber.BitLen() > 63 {
			t.Errorf("%s: serial %v", x.name, x.ours.SerialNumber)
		}
		exts := func(c *x509.Certificate) (out []string) {
			for _, e := range c.Extensions {
				s := e.Id.String()
				if e.Critical {
					s += " critical"
				}
				out = append(out, s)
			}
			return out
		}
		o, s := exts(x.ours), exts(x.stock)
		for _, e := range s {
			if !strings.Contains(strings.Join(o, ","), e) {
				t.Errorf("%s: extensions %v, want %v", x.name, o, s)
			}
		}
		if len(o) != len(s) {
			t.Errorf("%s: extensions %v, want %v", x.name, o, s)
		}
		if x.stock.IsCA && !bytes.Equal(x.ours.SubjectKeyId, id[:]) {
			t.Errorf("%s: subject key id %x", x.name, x.ours.SubjectKeyId)
		}
	}
}

func TestReceiptIsForThisDeviceAlone(t *testing.T) {
	c := newChain(t, time.Now())
	k := testKeys()
	r, err := NewReceipt(k[1], k[2].Public(), "85c4d63e24982777261f5ee46813ddcd4a6819e1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReceipt(r.Text, r.Sig, c.Device, c.Account); err != nil {
		t.Fatal(err)
	}
	if want := string(vector(t, "receipt.json")); r.Text[:7] != want[:7] || strings.Count(r.Text, `"`) != strings.Count(want, `"`) {
		t.Errorf("receipt %s", r.Text)
	}
	other, err := NewReceipt(k[1], k[0].Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReceipt(other.Text, other.Sig, c.Device, c.Account); err == nil {
		t.Error("accepted the receipt of another device")
	}
	foreign, err := NewReceipt(k[0], k[2].Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReceipt(foreign.Text, foreign.Sig, c.Device, c.Account); err == nil {
		t.Error("accepted the receipt of another account")
	}
}

func TestEncryptedValues(t *testing.T) {
	k := testKeys()
	for _, data := range [][]byte{nil, []byte("short"), bytes.Repeat([]byte{1}, 50_000)} {
		v := &Value{ID: 5, Type: 3, Data: data, UserType: "text/plain"}
		enc, err := v.EncryptTo(&k[2].PublicKey, k[1])
		if err != nil {
			t.Fatal(err)
		}
		packed, err := enc.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseValue(packed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := got.Decrypt(k[0]); err == nil {
			t.Error("decrypted with another key")
		}
		clear, err := got.Decrypt(k[2])
		if err != nil || !bytes.Equal(clear.Data, data) || clear.UserType != v.UserType || clear.ID != 5 {
			t.Errorf("%d bytes: %v", len(data), err)
		}
	}
	// Signed for the account, then encrypted to the device: not for its eyes.
	v := &Value{ID: 5, Data: []byte("x")}
	var err error
	if v.To, _, err = PublicIDs(k[1].Public()); err != nil {
		t.Fatal(err)
	}
	if err := v.Sign(k[1]); err != nil {
		t.Fatal(err)
	}
	p := newPacker(64)
	v.packInner(p)
	inner, err := p.done()
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := EncryptTo(&k[2].PublicKey, inner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Value{Cipher: cipher}).Decrypt(k[2]); err == nil {
		t.Error("accepted a value for another recipient")
	}
}

func TestValueBounds(t *testing.T) {
	if _, err := (&Value{Data: make([]byte, MaxValue+1)}).Pack(); err == nil {
		t.Error("packed too large a value")
	}
	deep := append([]byte("\x83\xa2id\x01\xa1x"), bytes.Repeat([]byte{0x91}, 60_000)...)
	for name, b := range map[string][]byte{
		"empty":        nil,
		"no data":      []byte("\x81\xa2id\x01"),
		"nested deep":  deep,
		"huge map":     []byte("\xdf\xff\xff\xff\xff"),
		"huge bin":     []byte("\x82\xa2id\x01\xa3dat\xc6\xff\xff\xff\xff"),
		"key twice":    []byte("\x82\xa2id\x01\xa2id\x02"),
		"more after":   []byte("\x82\xa2id\x01\xa3dat\xc4\x01x\x00"),
		"owner no sig": []byte("\x82\xa2id\x01\xa3dat\x81\xa4body\x83\xa3seq\x00\xa4type\x00\xa5owner\xc4\x00"),
	} {
		if _, err := ParseValue(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestKeyBounds(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	text, err := MarshalKey(small)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"small":     text,
		"absurd":    pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: make([]byte, maxKeyBytes+1)}),
		"not a key": pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: []byte("x")}),
		"empty":     nil,
	} {
		if _, err := ParseKey(b); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
