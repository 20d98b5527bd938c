package jami

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// Sizes of the encrypted forms (§2).
const (
	ivSize   = 12
	saltSize = 16
	tagSize  = 16
	aesSize  = 32
	// pkcs1Overhead is what PKCS#1 v1.5 padding takes of a block (RFC 8017 §7.2).
	pkcs1Overhead = 11
)

// Parameters of Argon2i 1.3 (§2): passes, KiB of memory, lanes.
const (
	argonTime   = 16
	argonMemory = 64 << 10
	argonLanes  = 1
)

// ErrDecrypt says that bytes are not for this key or password, or not whole. It
// deliberately tells no more.
var ErrDecrypt = errors.New("cannot be decrypted")

// ErrKeyFailed says that a private key could not be used: its process, card or chip
// did not answer. Nothing is known about what it was used on.
var ErrKeyFailed = errors.New("the private key could not be used")

// EncryptTo encrypts clear to an RSA key of 2,048 to 8,192 bits.
func EncryptTo(pub *rsa.PublicKey, clear []byte) ([]byte, error) {
	if err := checkRSA(pub); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if len(clear) <= pub.Size()-pkcs1Overhead {
		return rsaSeal(pub, clear)
	}
	return sealHybrid(pub, clear)
}

// sealHybrid is the form with an AES key of its own, which readers take at any length.
func sealHybrid(pub *rsa.PublicKey, clear []byte) ([]byte, error) {
	key := make([]byte, aesSize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	head, err := rsaSeal(pub, key)
	if err != nil {
		return nil, err
	}
	body, err := Seal(key, clear)
	if err != nil {
		return nil, err
	}
	return append(head, body...), nil
}

func rsaSeal(pub *rsa.PublicKey, clear []byte) ([]byte, error) {
	//lint:ignore SA1019 PKCS#1 v1.5 is what OpenDHT's wire has; there is no other form
	b, err := rsa.EncryptPKCS1v15(rand.Reader, pub, clear)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return b, nil
}

// Decrypt opens what [EncryptTo] or a stock peer made. key's public half has to be
// RSA; the private one may be anywhere. It gets the RSA block alone, with
// [*rsa.PKCS1v15DecryptOptions]: with SessionKeyLen for the long form, where it has to
// return a random key for a wrong padding as [*rsa.PrivateKey] does; see [SessionKeys].
//
// The error is [ErrDecrypt], or [ErrKeyFailed] where the key itself did not work. For
// the short form ErrDecrypt tells that the padding is wrong (Bleichenbacher's oracle):
// don't let strangers see how that ends. What comes from the DHT is opened by
// [Value.Decrypt], which takes the long form alone.
func Decrypt(key crypto.Decrypter, b []byte) ([]byte, error) {
	pub, ok := key.Public().(*rsa.PublicKey)
	if !ok || len(b) < pub.Size() {
		return nil, ErrDecrypt
	}
	if len(b) > pub.Size() {
		return openHybrid(key, pub, b)
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	clear, err := key.Decrypt(rand.Reader, b, &rsa.PKCS1v15DecryptOptions{})
	if err != nil {
		return nil, ErrDecrypt
	}
	return clear, nil
}

// openHybrid opens the form with an AES key. With a wrong padding that key is a random
// one, so that neither the answer nor its time depends on the padding: the tag fails.
func openHybrid(key crypto.Decrypter, pub *rsa.PublicKey, b []byte) ([]byte, error) {
	if len(b) < pub.Size()+ivSize+tagSize { // before the key is used: it may be far and slow
		return nil, ErrDecrypt
	}
	aesKey := make([]byte, aesSize)
	if _, err := rand.Read(aesKey); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	got, err := key.Decrypt(rand.Reader, b[:pub.Size()], &rsa.PKCS1v15DecryptOptions{SessionKeyLen: aesSize})
	if errors.Is(err, rsa.ErrDecryption) { // a block of a larger modulus
		return nil, ErrDecrypt
	}
	if err != nil { // not the padding: see above
		return nil, fmt.Errorf("%w: %w", ErrKeyFailed, err)
	}
	if len(got) == aesSize {
		aesKey = got
	}
	return Open(aesKey, b[pub.Size():])
}

// Seal encrypts with AES-GCM: IV 12 | ciphertext | tag 16.
func Seal(key, clear []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, ivSize, ivSize+len(clear)+gcm.Overhead())
	if _, err := rand.Read(out); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return gcm.Seal(out, out, clear, nil), nil
}

// Open opens what Seal made.
func Open(key, b []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil || len(b) < ivSize+gcm.Overhead() {
		return nil, ErrDecrypt
	}
	clear, err := gcm.Open(nil, b[:ivSize], b[ivSize:], nil)
	if err != nil {
		return nil, ErrDecrypt
	}
	return clear, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return cipher.NewGCM(block)
}

// StretchKey turns a password into an AES key. It takes about half a second and
// 64 MiB of memory: it is meant to.
func StretchKey(password, salt []byte) []byte {
	k := sha256.Sum256(argon2.Key(password, salt, argonTime, argonMemory, argonLanes, aesSize))
	return k[:]
}

// SealPassword encrypts with a password and a new salt.
func SealPassword(password, clear []byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	body, err := Seal(StretchKey(password, salt), clear)
	if err != nil {
		return nil, err
	}
	return append(salt, body...), nil
}

// OpenPassword opens what SealPassword made.
func OpenPassword(password, b []byte) ([]byte, error) {
	if len(b) < saltSize+ivSize {
		return nil, ErrDecrypt
	}
	return Open(StretchKey(password, b[:saltSize]), b[saltSize:])
}
