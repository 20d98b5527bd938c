// Package atrest encrypts the server's keys on disk with a key that the operator
// keeps elsewhere: AES-256-GCM under Argon2 of the operator's words, with a salt that
// stands in the file.
package atrest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"

	"github.com/parley-jami/parley/internal/jami"
)

// SaltSize is how many bytes a salt has.
const SaltSize = 16

// What can be wrong.
var (
	ErrMissing = errors.New("its keys are encrypted; give the storage key (jams.storage_key_file or PARLEY_JAMS_STORAGE_KEY)")
	ErrWrong   = errors.New("its keys can't be decrypted: the storage key (jams.storage_key_file or PARLEY_JAMS_STORAGE_KEY) is another one, or the file is damaged; nothing was changed")
)

// Box encrypts and decrypts. The nil Box leaves all in clear. It is safe for
// concurrent use.
type Box struct{ aead cipher.AEAD }

// NewSalt returns a new salt.
func NewSalt() []byte {
	salt := make([]byte, SaltSize)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	return salt
}

// New stretches the operator's words, which takes half a second and 64 MiB.
func New(words, salt []byte) (*Box, error) {
	block, err := aes.NewCipher(jami.StretchKey(words, salt))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead}, nil
}

// Seal encrypts. What is opened has to have the same label: nothing can be put in the
// place of something else.
func (b *Box) Seal(label string, clear []byte) []byte {
	if b == nil {
		return clear
	}
	return b.aead.Seal(nil, nil, clear, []byte(label)) // nonce 12 | ciphertext | tag 16
}

// Open decrypts, or fails with [ErrWrong].
func (b *Box) Open(label string, sealed []byte) ([]byte, error) {
	if b == nil {
		return sealed, nil
	}
	clear, err := b.aead.Open(nil, nil, sealed, []byte(label))
	if err != nil {
		return nil, ErrWrong
	}
	return clear, nil
}
