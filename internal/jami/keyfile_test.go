package jami

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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The files openssl_* were made by OpenSSL 3.0 (pkcs8 -topk8) with vecPassword.
func TestOpenSSLKeyFiles(t *testing.T) {
	clear, err := ParseSigner(vector(t, "openssl_clear.key.pem"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openssl_scrypt", "openssl_pbkdf2"} {
		k, err := ParseSigner(vector(t, name+".key.pem"), []byte(vecPassword))
		if err != nil || !k.(*rsa.PrivateKey).Equal(clear) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k, err := ParseSigner(vector(t, "openssl_ec.key.pem"), []byte(vecPassword))
	if _, ok := k.(*ecdsa.PrivateKey); !ok || err != nil {
		t.Errorf("%T, %v", k, err)
	}
}

func TestOpenSSLOpensOurs(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{testKeys()[0], ec} {
		b, err := MarshalEncryptedKey(k, []byte(vecPassword))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		in, pw := filepath.Join(dir, "k"), filepath.Join(dir, "pw")
		if err := errors.Join(os.WriteFile(in, b, 0o600), os.WriteFile(pw, []byte(vecPassword+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		var errText strings.Builder
		cmd := exec.Command(openssl, "pkey", "-in", in, "-passin", "file:"+pw, "-pubout", "-outform", "DER")
		cmd.Stderr = &errText
		got, err := cmd.Output()
		if err != nil {
			t.Fatal(err, errText.String())
		}
		if want, err := x509.MarshalPKIXPublicKey(k.Public()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("openssl has another key, %v", err)
		}
	}
}

func TestEncryptedKeyRoundTrip(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	k, pw := testKeys()[0], []byte("pw")
	b, err := MarshalEncryptedKey(k, pw)
	if err != nil {
		t.Fatal(err)
	}
	withCert := append(MarshalChain(newChain(t, testNow).CA), b...)
	if got, err := ParseSigner(withCert, pw); err != nil || !k.Equal(got) {
		t.Error(err)
	}
	again, err := MarshalEncryptedKey(k, pw)
	if err != nil || bytes.Equal(b, again) {
		t.Errorf("salt or IV are the same, %v", err)
	}
	plain, err := MarshalKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseSigner(plain, pw); err != nil || !k.Equal(got) {
		t.Error(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MarshalEncryptedKey(ed, pw); !errors.Is(err, ErrKey) {
		t.Error(err)
	}
	if _, err := MarshalEncryptedKey(k, nil); !errors.Is(err, ErrPassword) {
		t.Error(err)
	}
}

// keyFile makes an encrypted key with parameters of any kind.
func keyFile(t testing.TB, kdf asn1.ObjectIdentifier, params any, ciph asn1.ObjectIdentifier, iv, data []byte) []byte {
	t.Helper()
	var m derWriter
	der := m.der(encryptedKey{Data: data, Algorithm: m.algorithm(oidPBES2, pbes2Params{KDF: m.algorithm(kdf, params), Cipher: m.algorithm(ciph, iv)})})
	if m.err != nil {
		t.Fatal(m.err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Bytes: der})
}

func TestHostileKeyFiles(t *testing.T) {
	iv, data, salt := make([]byte, 16), make([]byte, 64), make([]byte, 16)
	sha256 := pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256, Parameters: asn1.NullRawValue}
	sha1 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}}
	good := vector(t, "openssl_pbkdf2.key.pem")
	scrypted := func(p scryptParams) []byte { return keyFile(t, oidScrypt, p, oidAES256CBC, iv, data) }
	pbkdf2ed := func(p pbkdf2Params) []byte { return keyFile(t, oidPBKDF2, p, oidAES256CBC, iv, data) }
	for _, x := range []struct {
		what string
		file []byte
		want error
	}{
		{"nothing", nil, ErrKey},
		{"no key", MarshalChain(vecChain(t).Device), ErrKey},
		{"two keys", append(bytes.Clone(good), good...), ErrKey},
		{"too long", append(make([]byte, maxChainBytes), good...), ErrKey},
		{"no DER", pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Bytes: []byte("text")}), ErrKeyFile},
		{"scrypt with N of 2^40", scrypted(scryptParams{salt, 1 << 40, 8, 1, 0}), ErrKey},
		{"scrypt with a GiB", scrypted(scryptParams{salt, 1 << 20, 8, 1, 0}), ErrKey},
		{"scrypt with a large r", scrypted(scryptParams{salt, 1 << 14, 1 << 30, 1, 0}), ErrKey},
		{"scrypt with a large p", scrypted(scryptParams{salt, 1 << 14, 8, 1 << 40, 0}), ErrKey},
		{"scrypt with products that overflow", scrypted(scryptParams{salt, 2, 1 << 62, 1 << 62, 0}), ErrKey},
		{"scrypt with N no power of 2", scrypted(scryptParams{salt, 1000, 8, 1, 0}), ErrKeyFile},
		{"scrypt with negative numbers", scrypted(scryptParams{salt, -1 << 63, -8, -1, 0}), ErrKeyFile},
		{"scrypt with zeros", scrypted(scryptParams{salt, 0, 0, 0, 0}), ErrKeyFile},
		{"scrypt for another length", scrypted(scryptParams{salt, 1 << 4, 8, 1, 16}), ErrKeyFile},
		{"a large salt", scrypted(scryptParams{make([]byte, 2000), 1 << 4, 8, 1, 0}), ErrKeyFile},
		{"PBKDF2 for ever", pbkdf2ed(pbkdf2Params{salt, 1 << 40, 0, sha256}), ErrKey},
		{"PBKDF2 without a round", pbkdf2ed(pbkdf2Params{salt, 0, 0, sha256}), ErrKeyFile},
		{"PBKDF2 with SHA-1", pbkdf2ed(pbkdf2Params{salt, 1000, 0, sha1}), ErrKeyFile},
		{"PBKDF2 without a hash", pbkdf2ed(pbkdf2Params{Salt: salt, Iterations: 1000}), ErrKeyFile},
		{"an unknown stretching", keyFile(t, oidAES256CBC, salt, oidAES256CBC, iv, data), ErrKeyFile},
		{"another cipher", keyFile(t, oidScrypt, scryptParams{salt, 1 << 4, 8, 1, 0}, oidScrypt, iv, data), ErrKeyFile},
		{"a short IV", keyFile(t, oidScrypt, scryptParams{salt, 1 << 4, 8, 1, 0}, oidAES256CBC, iv[1:], data), ErrKeyFile},
		{"no whole block", keyFile(t, oidScrypt, scryptParams{salt, 1 << 4, 8, 1, 0}, oidAES256CBC, iv, data[1:]), ErrKeyFile},
		{"no data", keyFile(t, oidScrypt, scryptParams{salt, 1 << 4, 8, 1, 0}, oidAES256CBC, iv, nil), ErrKeyFile},
		{"something else inside", scrypted(scryptParams{salt, 1 << 4, 8, 1, 0}), ErrPassword},
	} {
		start := time.Now()
		k, err := ParseSigner(x.file, []byte("pw"))
		if k != nil || !errors.Is(err, ErrKey) || !errors.Is(err, x.want) || (x.want == ErrKey && errors.Is(err, ErrPassword)) {
			t.Errorf("%s: %v, %v", x.what, k, err)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%s: took %s", x.what, d)
		}
	}
}

// Whatever the padding happens to be, a wrong password is one error.
func TestWrongPasswordIsOneError(t *testing.T) {
	var m derWriter
	kdf := scryptParams{Salt: []byte("salt"), N: 2, R: 1, P: 1} // cheap: many tries
	block, _ := pem.Decode(vector(t, "openssl_scrypt.key.pem"))
	var e encryptedKey
	if !whole(block.Bytes, &e) {
		t.Fatal("the vector")
	}
	e.Algorithm = m.algorithm(oidPBES2, pbes2Params{KDF: m.algorithm(oidScrypt, kdf), Cipher: m.algorithm(oidAES256CBC, make([]byte, 16))})
	file := pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Bytes: m.der(e)})
	var texts = map[string]bool{}
	for i := range 3000 {
		_, err := ParseSigner(file, []byte{byte(i), byte(i >> 8), 1})
		if !errors.Is(err, ErrPassword) {
			t.Fatal(err)
		}
		texts[err.Error()] = true
	}
	for _, pw := range [][]byte{nil, []byte("wrong")} {
		_, err := ParseSigner(vector(t, "openssl_pbkdf2.key.pem"), pw)
		if !errors.Is(err, ErrPassword) {
			t.Error(err)
		}
		texts[err.Error()] = true
	}
	if len(texts) != 1 {
		t.Errorf("%d texts: %v", len(texts), texts)
	}
}

func BenchmarkMarshalEncryptedKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := MarshalEncryptedKey(testKeys()[0], []byte(vecPassword)); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzParseSigner leaves out what is allowed and takes seconds.
func FuzzParseSigner(f *testing.F) {
	ec, err := ParseSigner(vector(f, "openssl_ec.key.pem"), []byte(vecPassword))
	if err != nil {
		f.Fatal(err)
	}
	clear, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		f.Fatal(err)
	}
	cheap, err := sealKey(clear, []byte(vecPassword), scryptParams{N: 2, R: 1, P: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, clear)
	for _, file := range [][]byte{cheap, vector(f, "openssl_ec.key.pem"), vector(f, "openssl_scrypt.key.pem")} {
		block, _ := pem.Decode(file)
		f.Add(true, block.Bytes)
	}
	f.Fuzz(func(t *testing.T, encrypted bool, der []byte) {
		var e encryptedKey
		var p pbes2Params
		var s scryptParams
		var k pbkdf2Params
		kind := pemKey
		if encrypted {
			kind = pemEncryptedKey
			if whole(der, &e) && whole(e.Algorithm.Parameters.FullBytes, &p) {
				if whole(p.KDF.Parameters.FullBytes, &s) && (s.N > 1<<10 || s.R > 8 || s.P > 8) || whole(p.KDF.Parameters.FullBytes, &k) && k.Iterations > 1000 {
					return
				}
			}
		}
		got, err := ParseSigner(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), []byte(vecPassword))
		if (got == nil) != (err != nil) || err != nil && !errors.Is(err, ErrKey) {
			t.Errorf("%v, %v", got, err)
		}
	})
}
