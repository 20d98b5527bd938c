package secret

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"
)

// ErrSealed says that something is not sealed to this key or for this purpose, or is
// damaged: the cipher does not tell these apart.
var ErrSealed = errors.New("not sealed to this key, or damaged")

// Key opens what was sealed to it. It lives as long as the process that made it.
type Key struct{ key hpke.PrivateKey }

// kem is DHKEM(X25519, HKDF-SHA256) of RFC 9180, used with HKDF-SHA256 and AES-256-GCM.
func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// NewKey makes a key.
func NewKey() (*Key, error) {
	k, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("key to seal to: %w", err)
	}
	return &Key{k}, nil
}

// Public is what [Seal] takes, 32 bytes.
func (k *Key) Public() []byte { return k.key.PublicKey().Bytes() }

// Open returns what was sealed to the key for that purpose, else [ErrSealed].
func (k *Key) Open(purpose string, sealed []byte) ([]byte, error) {
	clear, err := hpke.Open(k.key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(purpose), sealed)
	if err != nil {
		return nil, ErrSealed
	}
	return clear, nil
}

// Seal encrypts so that only the holder of the key reads it, and for that purpose alone.
func Seal(public []byte, purpose string, clear []byte) ([]byte, error) {
	pub, err := kem().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("key to seal to: %w", err)
	}
	b, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(purpose), clear)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return b, nil
}
