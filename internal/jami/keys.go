package jami

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"golang.org/x/crypto/sha3"
)

// KeyBits is the size of each RSA key of an account.
const KeyBits = 4096

// minKeyBits is what GnuTLS's "medium" profile asks of a peer's key (§2).
const minKeyBits = 2048

// maxKeyBits is as far as the time of a check is no burden.
const maxKeyBits = 8192

// maxKeyBytes bounds a key in PKCS#8, far above the 4.7 KB of RSA-8192: checking one of
// absurd size takes minutes.
const maxKeyBytes = 8 << 10

// pemKey is the label of an unencrypted PKCS#8 key.
const pemKey = "PRIVATE KEY"

// ErrKey says that a key does not parse or is not fit for Jami.
var ErrKey = errors.New("key")

// checkRSA tells whether a public key is one to work with, before it is used: the time
// of a use grows with the square of its length.
func checkRSA(k *rsa.PublicKey) error {
	if bits := k.N.BitLen(); bits < minKeyBits || bits > maxKeyBits || k.N.Bit(0) == 0 || k.E < 3 || k.E%2 == 0 {
		return fmt.Errorf("%w: RSA of %d bits and exponent %d, %d to %d bits are taken", ErrKey, bits, k.E, minKeyBits, maxKeyBits)
	}
	return nil
}

// MarshalKey returns the key as PEM PKCS#8, unencrypted.
func MarshalKey(k *rsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// ParseKey reads an unencrypted PEM PKCS#8 RSA key. The error never shows bytes
// of the key.
func ParseKey(b []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("%w: no PEM block %q", ErrKey, pemKey)
	}
	if len(block.Bytes) > maxKeyBytes {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", ErrKey, len(block.Bytes), maxKeyBytes)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS#8", ErrKey)
	}
	r, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: not RSA", ErrKey)
	}
	if err := checkRSA(&r.PublicKey); err != nil {
		return nil, err
	}
	return r, nil
}

// NewEthKey makes the account's secp256k1 key, 32 bytes (§3.1).
func NewEthKey() ([]byte, error) {
	k, err := secp256k1.GeneratePrivateKeyFromRand(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return k.Serialize(), nil
}

// EthAddress returns the address of an ethKey: the last 20 bytes of
// Keccak-256(x | y), 40 hex digits without 0x.
func EthAddress(key []byte) (string, error) {
	var s secp256k1.ModNScalar
	if len(key) != 32 || s.SetByteSlice(key) || s.IsZero() {
		return "", fmt.Errorf("%w: not a secp256k1 key", ErrKey)
	}
	h := sha3.NewLegacyKeccak256()
	h.Write(secp256k1.NewPrivateKey(&s).PubKey().SerializeUncompressed()[1:])
	return hex.EncodeToString(h.Sum(nil)[12:]), nil
}
