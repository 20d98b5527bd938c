package jami

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"
)

var testNow = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// farKey is a key in another process, a card or a chip: it is no *rsa.PrivateKey, says
// what it was asked, and may be out of order.
type farKey struct {
	k       *rsa.PrivateKey
	broken  error
	uses    int
	session int // SessionKeyLen of the last decryption
}

func (f *farKey) Public() crypto.PublicKey { return f.k.Public() }

func (f *farKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if f.uses++; f.broken != nil {
		return nil, f.broken
	}
	return f.k.Sign(r, digest, opts)
}

func (f *farKey) Decrypt(r io.Reader, block []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	if f.uses++; f.broken != nil {
		return nil, f.broken
	}
	if len(block) != f.k.Size() {
		return nil, errors.New("not one RSA block")
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	f.session = opts.(*rsa.PKCS1v15DecryptOptions).SessionKeyLen
	return f.k.Decrypt(r, block, opts)
}

func TestSecureValueRoundTrip(t *testing.T) {
	k := testKeys()
	for _, n := range []int{0, 1, 100, 10_000, 64_000} {
		from, to := &farKey{k: k[1]}, &farKey{k: k[2]}
		v := &Value{ID: 7, Priority: 1, Seq: 9, Type: 4, Data: bytes.Repeat([]byte{'x'}, n), UserType: "u"}
		e, err := v.EncryptTo(to.Public(), from)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := e.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if e, err = ParseValue(packed); err != nil {
			t.Fatal(err)
		}
		got, err := e.Decrypt(to)
		if err != nil {
			t.Fatal(err)
		}
		me, _ := CertIDs(newChain(t, testNow).Device)
		if got.ID != 7 || got.Priority != 1 || got.Seq != 0 || got.Type != 4 || got.UserType != "u" || got.To != me || !bytes.Equal(got.Data, v.Data) {
			t.Errorf("%d bytes: got %+v", n, got)
		}
		if v.Seq != 9 || v.Owner != nil || v.Sig != nil {
			t.Error("the value itself was changed")
		}
		if from.uses != 1 || to.uses != 1 || to.session != aesSize {
			t.Errorf("keys used %d and %d times, session key of %d", from.uses, to.uses, to.session)
		}
	}
}

func TestVectorSecureValuesAgain(t *testing.T) {
	key, err := ParseKey(vector(t, "recipient_device.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"enc_im_message", "enc_trust_request_confirm", "enc_connection_request", "enc_connection_answer"} {
		v, err := ParseValue(vector(t, name+".value.bin"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := v.Decrypt(&farKey{k: key})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := newPacker(0)
		c.packInner(p)
		if b, err := p.done(); err != nil || !bytes.Equal(b, vector(t, name+".clear.bin")) {
			t.Errorf("%s: packed again it differs, %v", name, err)
		}
		again, err := c.EncryptTo(key.Public(), testKeys()[0])
		if err != nil {
			t.Fatal(err)
		}
		if d, err := again.Decrypt(key); err != nil || !bytes.Equal(d.Data, c.Data) || d.Type != c.Type {
			t.Errorf("%s: made again it does not open, %v", name, err)
		}
	}
}

// sealed encrypts what is no good secure value to the device's test key.
func sealed(t testing.TB, v *Value) *Value {
	t.Helper()
	p := newPacker(0)
	v.packInner(p)
	clear, err := p.done()
	if err != nil {
		t.Fatal(err)
	}
	b, err := sealHybrid(&testKeys()[2].PublicKey, clear)
	if err != nil {
		t.Fatal(err)
	}
	return &Value{ID: v.ID, Cipher: b}
}

func TestSecureValueErrors(t *testing.T) {
	k := testKeys()
	signed := func(change func(*Value)) *Value {
		v := &Value{ID: 1, Type: 3, Data: []byte("data")}
		v.To, _, _ = PublicIDs(k[2].Public())
		if err := v.Sign(k[1]); err != nil {
			t.Fatal(err)
		}
		change(v)
		return sealed(t, v)
	}
	good := signed(func(*Value) {})
	flip := func(at int) *Value {
		c := bytes.Clone(good.Cipher)
		c[(at+len(c))%len(c)] ^= 1
		return &Value{ID: 1, Cipher: c}
	}
	short, err := EncryptTo(&k[2].PublicKey, []byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	junk, err := sealHybrid(&k[2].PublicKey, []byte("no msgpack"))
	if err != nil {
		t.Fatal(err)
	}
	down := errors.New("down")
	for _, x := range []struct {
		what string
		v    *Value
		key  *farKey
		want error
		uses int
	}{
		{"good", good, &farKey{k: k[2]}, nil, 1},
		{"another key", good, &farKey{k: k[0]}, ErrDecrypt, 1},
		{"a larger modulus", &Value{Cipher: slices.Concat(bytes.Repeat([]byte{0xff}, 256), good.Cipher[256:])}, &farKey{k: k[2]}, ErrDecrypt, 1},
		{"padding broken", flip(5), &farKey{k: k[2]}, ErrDecrypt, 1},
		{"text broken", flip(300), &farKey{k: k[2]}, ErrDecrypt, 1},
		{"tag broken", flip(-1), &farKey{k: k[2]}, ErrDecrypt, 1},
		{"not encrypted", &Value{Data: []byte("x")}, &farKey{k: k[2]}, ErrDecrypt, 0},
		{"one RSA block", &Value{Cipher: short}, &farKey{k: k[2]}, ErrDecrypt, 0},
		{"no text at all", &Value{Cipher: good.Cipher[:256+27]}, &farKey{k: k[2]}, ErrDecrypt, 0},
		{"the key is away", good, &farKey{k: k[2], broken: down}, ErrKeyFailed, 1},
		{"no value", &Value{Cipher: junk}, &farKey{k: k[2]}, ErrValue, 1},
		{"for another", signed(func(v *Value) { v.To = ID{1} }), &farKey{k: k[2]}, ErrRecipient, 1},
		{"for nobody", signed(func(v *Value) { v.To = ID{} }), &farKey{k: k[2]}, ErrRecipient, 1},
		{"not signed", signed(func(v *Value) { v.Owner, v.Sig = nil, nil }), &farKey{k: k[2]}, ErrSignature, 1},
		{"signature broken", signed(func(v *Value) { v.Sig[9] ^= 1 }), &farKey{k: k[2]}, ErrSignature, 1},
		{"data changed", signed(func(v *Value) { v.Data[0] ^= 1 }), &farKey{k: k[2]}, ErrSignature, 1},
		{"sequence changed", signed(func(v *Value) { v.Seq = 1 }), &farKey{k: k[2]}, ErrSignature, 1},
	} {
		got, err := x.v.Decrypt(x.key)
		if !errors.Is(err, x.want) || (got != nil) != (x.want == nil) || x.key.uses != x.uses {
			t.Errorf("%s: %v, %v, key used %d times", x.what, got, err, x.key.uses)
		}
		if x.want == ErrKeyFailed && !errors.Is(err, down) {
			t.Errorf("%s: the cause is lost: %v", x.what, err)
		}
	}
}

// token is a key that refuses SessionKeyLen, as those behind PKCS#11 do.
type token struct{ farKey }

var errBlock = errors.New("CKR_ENCRYPTED_DATA_INVALID")

func (k *token) Decrypt(r io.Reader, block []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	if o, ok := opts.(*rsa.PKCS1v15DecryptOptions); ok && o.SessionKeyLen != 0 {
		return nil, errors.New("unsupported option")
	}
	b, err := k.farKey.Decrypt(r, block, opts)
	if errors.Is(err, rsa.ErrDecryption) {
		err = errBlock
	}
	return b, err
}

func TestTokensHideThePadding(t *testing.T) {
	k := testKeys()
	good, err := (&Value{ID: 1, Data: []byte("x")}).EncryptTo(k[2].Public(), k[1])
	if err != nil {
		t.Fatal(err)
	}
	padding := &Value{Cipher: bytes.Clone(good.Cipher)}
	padding.Cipher[3] ^= 1
	head, err := rsaSeal(&k[2].PublicKey, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	length := &Value{Cipher: append(head, good.Cipher[256:]...)}
	damaged := func(err error) bool { return errors.Is(err, errBlock) }
	for _, x := range []struct {
		what   string
		v      *Value
		broken error
		want   error
	}{{"good", good, nil, nil}, {"padding", padding, nil, ErrDecrypt}, {"length of the key", length, nil, ErrDecrypt}, {"gone", good, io.EOF, ErrKeyFailed}} {
		if _, err := x.v.Decrypt(SessionKeys(&token{farKey{k: k[2], broken: x.broken}}, damaged)); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", x.what, err)
		}
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	opts := &rsa.PKCS1v15DecryptOptions{SessionKeyLen: aesSize}
	for _, block := range [][]byte{head, padding.Cipher[:256]} {
		if got, err := SessionKeys(&token{farKey{k: k[2]}}, damaged).Decrypt(rand.Reader, block, opts); err != nil || len(got) != aesSize {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	short, err := EncryptTo(&k[2].PublicKey, []byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decrypt(SessionKeys(&token{farKey{k: k[2]}}, damaged), short); err != nil || string(got) != "short" {
		t.Errorf("one block: %q, %v", got, err)
	}
}

func TestSecureValueIsNotMade(t *testing.T) {
	k := testKeys()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what string
		data int
		to   crypto.PublicKey
		from crypto.Signer
		want error
	}{
		{"recipient's key is ECDSA", 1, ec.Public(), k[1], ErrKey},
		{"recipient's key is weak", 1, weak.Public(), k[1], ErrKey},
		{"signer's key is ECDSA", 1, k[2].Public(), ec, ErrKey},
		{"signer's key is away", 1, k[2].Public(), &farKey{k: k[1], broken: io.EOF}, ErrKeyFailed},
		{"larger than a value", MaxValue + 1, k[2].Public(), k[1], ErrTooLarge},
		{"larger when encrypted", MaxValue - 300, k[2].Public(), k[1], ErrTooLarge},
	} {
		v := &Value{Data: make([]byte, x.data)}
		if e, err := v.EncryptTo(x.to, x.from); e != nil || !errors.Is(err, x.want) {
			t.Errorf("%s: %v, %v", x.what, e, err)
		}
	}
}

// A stranger's key of absurd size costs no time.
func TestVerifyRefusesHugeKeys(t *testing.T) {
	pub := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1<<18), E: 65537}
	pub.N.SetBit(pub.N, 0, 1)
	if err := VerifyBytes(pub, nil, make([]byte, 1<<15)); !errors.Is(err, ErrSignature) || !errors.Is(err, ErrKey) {
		t.Error(err)
	}
}

func TestReceiptBySignerElsewhere(t *testing.T) {
	c, k := newChain(t, testNow), testKeys()
	r, err := NewReceipt(&farKey{k: k[1]}, k[2].Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReceipt(r.Text, r.Sig, c.Device, c.Account); err != nil {
		t.Error(err)
	}
	if _, err := NewReceipt(&farKey{k: k[1], broken: io.EOF}, k[2].Public(), ""); !errors.Is(err, ErrKeyFailed) {
		t.Error(err)
	}
}

var bigKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var k [2]*rsa.PrivateKey
	for i := range k {
		key, err := rsa.GenerateKey(rand.Reader, KeyBits)
		if err != nil {
			panic(err)
		}
		k[i] = key
	}
	return k
})

// BenchmarkValue is what a message of 300 bytes costs with the keys that accounts have.
func BenchmarkValue(b *testing.B) {
	k := bigKeys()
	v := &Value{ID: 1, Type: 3, Data: make([]byte, 300)}
	signed := *v
	if err := signed.Sign(k[0]); err != nil {
		b.Fatal(err)
	}
	e, err := v.EncryptTo(k[1].Public(), k[0])
	if err != nil {
		b.Fatal(err)
	}
	for _, x := range []struct {
		name string
		do   func() error
	}{
		{"sign", func() error { c := *v; return c.Sign(k[0]) }},
		{"verify", signed.Verify},
		{"encrypt", func() error { _, err := v.EncryptTo(k[1].Public(), k[0]); return err }},
		{"open", func() error { _, err := e.Decrypt(k[1]); return err }},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := x.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
