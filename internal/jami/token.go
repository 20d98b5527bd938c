package jami

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
)

// SessionKeys makes a key that does not know SessionKeyLen, as those of PKCS#11 tokens
// and TPMs, one for [Decrypt] and [Value.Decrypt]: where the block has a wrong padding or
// a key of another length it returns a random key, without a word. damaged tells such an
// error of the key's from one that the token itself has, which is passed on.
//
// The time that the token takes may still tell the padding; that is the token's to hide.
func SessionKeys(key crypto.Decrypter, damaged func(error) bool) crypto.Decrypter {
	return &sessionKeys{key, damaged}
}

type sessionKeys struct {
	crypto.Decrypter
	damaged func(error) bool
}

// Decrypt is [crypto.Decrypter]'s.
func (k *sessionKeys) Decrypt(r io.Reader, block []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	o, ok := opts.(*rsa.PKCS1v15DecryptOptions)
	if !ok || o.SessionKeyLen <= 0 {
		return k.Decrypter.Decrypt(r, block, opts)
	}
	random := make([]byte, o.SessionKeyLen)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	got, err := k.Decrypter.Decrypt(r, block, &rsa.PKCS1v15DecryptOptions{})
	switch {
	case err != nil && !k.damaged(err):
		return nil, err
	case err != nil || len(got) != len(random):
		return random, nil
	}
	return got, nil
}
