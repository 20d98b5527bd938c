package jami

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"math/bits"

	"golang.org/x/crypto/scrypt"
)

// pemEncryptedKey is the label of an encrypted PKCS#8 key (RFC 7468 §11).
const pemEncryptedKey = "ENCRYPTED PRIVATE KEY"

// What we write: scrypt at the cost that OWASP asks for with the 16 MiB at which OpenSSL,
// whose limit is 32 MiB, still reads it.
const (
	scryptN = 1 << 14
	scryptR = 8
	scryptP = 5
)

// Bounds of what is read: a file that is not ours says itself what it costs.
const (
	maxSalt       = 128
	maxIterations = 10_000_000 // of PBKDF2: some seconds
	maxScryptMem  = 256 << 20  // bytes, 128·N·r
	maxScryptWork = 1 << 23    // N·r·p: some seconds
)

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// ErrKeyFile says that an encrypted key has another form than those that are read.
var ErrKeyFile = errors.New("encrypted key file: only PKCS#8 with AES-256-CBC and scrypt or PBKDF2 with HMAC-SHA-256, -384 or -512 is read (convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc -scrypt)")

// encryptedKey is EncryptedPrivateKeyInfo (RFC 5958 §3).
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// pbes2Params is PBES2-params (RFC 8018 §A.4).
type pbes2Params struct {
	KDF    pkix.AlgorithmIdentifier
	Cipher pkix.AlgorithmIdentifier
}

// pbkdf2Params is PBKDF2-params with the salt given (RFC 8018 §A.2).
type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// scryptParams is scrypt-params (RFC 7914 §7.1).
type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// MarshalEncryptedKey returns an RSA or ECDSA key as PEM PKCS#8, encrypted with a
// password (PBES2 with scrypt and AES-256-CBC, RFC 8018 §6.2), as openssl pkey reads it.
// It takes as long as the password's stretching: some tenths of a second.
func MarshalEncryptedKey(k crypto.Signer, password []byte) ([]byte, error) {
	if len(password) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrPassword)
	}
	if err := fit(k); err != nil {
		return nil, err
	}
	clear, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return sealKey(clear, password, scryptParams{N: scryptN, R: scryptR, P: scryptP})
}

func sealKey(clear, password []byte, kdf scryptParams) ([]byte, error) {
	iv := make([]byte, aes.BlockSize)
	kdf.Salt = make([]byte, saltSize)
	for _, b := range [][]byte{iv, kdf.Salt} {
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	key, err := kdf.stretch(password)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	pad := aes.BlockSize - len(clear)%aes.BlockSize // PKCS#7
	clear = append(clear, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(clear, clear)

	var m derWriter
	der := m.der(encryptedKey{Data: clear, Algorithm: m.algorithm(oidPBES2, pbes2Params{
		KDF: m.algorithm(oidScrypt, kdf), Cipher: m.algorithm(oidAES256CBC, iv),
	})})
	if m.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, m.err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Bytes: der}), nil
}

// derWriter keeps the first error.
type derWriter struct{ err error }

func (w *derWriter) der(v any) []byte {
	b, err := asn1.Marshal(v)
	if w.err == nil {
		w.err = err
	}
	return b
}

func (w *derWriter) algorithm(oid asn1.ObjectIdentifier, params any) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: w.der(params)}}
}

// ParseSigner reads the one private key of a PEM file, RSA of 2,048 to 8,192 bits or
// ECDSA: PKCS#8, encrypted or not, of which the password is used for the encrypted one.
// Blocks of other kinds, as certificates, are passed over.
//
// A wrong password, or none, is [ErrPassword]; so is damage to what is encrypted, which
// the cipher does not tell apart. Others are [ErrKeyFile] and [ErrKey]. No error shows
// bytes of the key.
func ParseSigner(text, password []byte) (crypto.Signer, error) {
	block, err := onlyKey(text)
	if err != nil {
		return nil, err
	}
	der := block.Bytes
	if len(der) > maxKeyBytes {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", ErrKey, len(der), maxKeyBytes)
	}
	encrypted := block.Type == pemEncryptedKey
	if encrypted {
		if der, err = openKey(der, password); err != nil {
			return nil, err
		}
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	switch {
	case err != nil && encrypted && !isSequence(der): // a padding that was right by chance
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrPassword)
	case err != nil:
		return nil, fmt.Errorf("%w: not PKCS#8", ErrKey)
	}
	return signer(k)
}

// isSequence reports whether b is one whole DER sequence, which chance does not make.
func isSequence(b []byte) bool {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(b, &v)
	return err == nil && len(rest) == 0 && v.Tag == asn1.TagSequence && v.IsCompound
}

func onlyKey(text []byte) (*pem.Block, error) {
	if len(text) > maxChainBytes {
		return nil, fmt.Errorf("%w: a file of %d bytes", ErrKey, len(text))
	}
	var found *pem.Block
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if b.Type != pemKey && b.Type != pemEncryptedKey {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: two of them in one file", ErrKey)
		}
		found = b
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no PEM block %q or %q", ErrKey, pemKey, pemEncryptedKey)
	}
	return found, nil
}

func signer(k any) (crypto.Signer, error) {
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: neither RSA nor ECDSA", ErrKey)
	}
	if err := fit(s); err != nil {
		return nil, err
	}
	return s, nil
}

// fit tells whether a key can sign for Jami's certificates.
func fit(k crypto.Signer) error {
	_, err := signedWith(k.Public(), x509.SHA384WithRSA)
	return err
}

// openKey undoes PBES2.
func openKey(der, password []byte) ([]byte, error) {
	var e encryptedKey
	var p pbes2Params
	var iv []byte
	if !whole(der, &e) || !e.Algorithm.Algorithm.Equal(oidPBES2) || !whole(e.Algorithm.Parameters.FullBytes, &p) ||
		!p.Cipher.Algorithm.Equal(oidAES256CBC) || !whole(p.Cipher.Parameters.FullBytes, &iv) ||
		len(iv) != aes.BlockSize || len(e.Data) == 0 || len(e.Data)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrKeyFile)
	}
	if len(password) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrPassword)
	}
	key, err := stretch(p.KDF, password)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	clear := make([]byte, len(e.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(clear, e.Data)
	pad := int(clear[len(clear)-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.HasSuffix(clear, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrPassword)
	}
	return clear[:len(clear)-pad], nil
}

// whole reads one DER object with nothing after it.
func whole(der []byte, v any) bool {
	rest, err := asn1.Unmarshal(der, v)
	return err == nil && len(rest) == 0
}

func stretch(kdf pkix.AlgorithmIdentifier, password []byte) ([]byte, error) {
	der := kdf.Parameters.FullBytes
	switch {
	case kdf.Algorithm.Equal(oidScrypt):
		var p scryptParams
		if whole(der, &p) {
			return p.stretch(password)
		}
	case kdf.Algorithm.Equal(oidPBKDF2):
		var p pbkdf2Params
		if whole(der, &p) {
			return p.stretch(password)
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrKey, ErrKeyFile)
}

func (p *scryptParams) stretch(password []byte) ([]byte, error) {
	switch {
	case p.N < 2 || bits.OnesCount(uint(p.N)) != 1 || p.R < 1 || p.P < 1 || len(p.Salt) > maxSalt || p.KeyLength != 0 && p.KeyLength != aesSize:
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrKeyFile)
	// One after the other, so that no product overflows.
	case p.N > maxScryptMem/128 || p.R > maxScryptMem/128/p.N || p.P > maxScryptWork/p.N/p.R:
		return nil, fmt.Errorf("%w: to open it costs too much (scrypt with N=%d, r=%d, p=%d)", ErrKey, p.N, p.R, p.P)
	}
	key, err := scrypt.Key(password, p.Salt, p.N, p.R, p.P, aesSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, nil
}

func (p *pbkdf2Params) stretch(password []byte) ([]byte, error) {
	prf := map[string]func() hash.Hash{oidHMACSHA256.String(): sha256.New, oidHMACSHA384.String(): sha512.New384, oidHMACSHA512.String(): sha512.New}
	h := prf[p.PRF.Algorithm.String()]
	switch {
	case h == nil || p.Iterations < 1 || len(p.Salt) > maxSalt || p.KeyLength != 0 && p.KeyLength != aesSize:
		return nil, fmt.Errorf("%w: %w", ErrKey, ErrKeyFile)
	case p.Iterations > maxIterations:
		return nil, fmt.Errorf("%w: to open it costs too much (PBKDF2 with %d iterations)", ErrKey, p.Iterations)
	}
	key, err := pbkdf2.Key(h, string(password), p.Salt, p.Iterations, aesSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, nil
}
