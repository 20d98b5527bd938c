// Package ca is the organisation's certificate authority: it issues the certificate
// of each user's account, and account keys issue those of devices.
package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/jams/atrest"
)

// fileCA holds key and certificate: one file, one write.
const fileCA = "ca.pem"

// pemSealed is an encrypted key (atrest): salt 16 | sealed PKCS#8.
const (
	pemSealed = "PARLEY SEALED PRIVATE KEY"
	label     = "authority"
)

// Keys that peers can check.
const (
	minKey = 2048
	maxKey = 8192
)

// CA is the authority.
type CA struct {
	Cert *x509.Certificate
	key  *rsa.PrivateKey

	path  string // of what is to be encrypted; "" is nothing
	words []byte
}

// Own returns the authority kept in dir, which is made when there is none. words is
// the storage key, nil is none; a key of before that stays in clear until
// [CA.Encrypt].
func Own(dir string, bits int, now time.Time, words []byte) (*CA, error) {
	path := filepath.Join(dir, fileCA)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if text, err = makeOwn(bits, now, words); err == nil {
			err = atomicfile.Write(path, text, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	clear, err := opened(text, words)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", path, err)
	}
	c, err := parse(clear, clear, now)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w; put its copy in its place", path, err)
	}
	if words != nil && bytes.Equal(clear, text) {
		c.path, c.words = path, words
	}
	return c, nil
}

// Encrypt encrypts the authority's key in its file, where that is in clear and there
// is a storage key. It reports whether it did.
func (c *CA) Encrypt() (bool, error) {
	if c.path == "" {
		return false, nil
	}
	text, err := sealed(c.key, c.Cert, c.words)
	if err == nil {
		err = atomicfile.Write(c.path, text, 0o600)
	}
	if err != nil {
		return false, fmt.Errorf("authority %s: encrypting its key: %w", c.path, err)
	}
	c.path, c.words = "", nil
	return true, nil
}

func sealed(key *rsa.PrivateKey, cert *x509.Certificate, words []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	salt := atrest.NewSalt()
	box, err := atrest.New(words, salt)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemSealed, Bytes: append(salt, box.Seal(label, der)...)})
	return append(text, jami.MarshalChain(cert)...), nil
}

// opened returns the file with its key in clear.
func opened(text, words []byte) ([]byte, error) {
	b, rest := pem.Decode(text)
	if b == nil || b.Type != pemSealed {
		return text, nil
	}
	switch {
	case words == nil:
		return nil, atrest.ErrMissing
	case len(b.Bytes) < atrest.SaltSize:
		return nil, atrest.ErrWrong
	}
	box, err := atrest.New(words, b.Bytes[:atrest.SaltSize])
	if err != nil {
		return nil, err
	}
	der, err := box.Open(label, b.Bytes[atrest.SaltSize:])
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), rest...), nil
}

// Given returns the authority of the operator's PEM files.
func Given(certFile, keyFile string, now time.Time) (*CA, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	return parse(cert, key, now)
}

func makeOwn(bits int, now time.Time, words []byte) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	cert, err := jami.NewCA(key, now)
	if err != nil {
		return nil, err
	}
	if words != nil {
		return sealed(key, cert, words)
	}
	text, err := jami.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return append(text, jami.MarshalChain(cert)...), nil
}

// block returns the only PEM block of text whose type ends with kind.
func block(text []byte, kind string) (found *pem.Block, err error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if !bytes.HasSuffix([]byte(b.Type), []byte(kind)) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("there are two PEM blocks %q", kind)
		}
		found = b
	}
	if found == nil {
		return nil, fmt.Errorf("there is no PEM block %q", kind)
	}
	return found, nil
}

func parse(certText, keyText []byte, now time.Time) (*CA, error) {
	cb, err := block(certText, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	kb, err := block(keyText, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(cb.Bytes)
	if err != nil {
		return nil, err
	}
	var any any
	switch kb.Type {
	case "PRIVATE KEY":
		any, err = x509.ParsePKCS8PrivateKey(kb.Bytes)
	case "RSA PRIVATE KEY":
		any, err = x509.ParsePKCS1PrivateKey(kb.Bytes)
	default:
		err = errors.New("an unknown kind")
	}
	key, ok := any.(*rsa.PrivateKey)
	switch bits := 0; {
	case err != nil:
		return nil, errors.New("the key is not an unencrypted key of PKCS#8 or PKCS#1") // the cause may quote it
	case !ok:
		return nil, errors.New("the key is not RSA")
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, errors.New("the key is not the certificate's")
	default:
		if bits = key.N.BitLen(); bits < minKey || bits > maxKey {
			return nil, fmt.Errorf("the key has %d bits, %d to %d are taken", bits, minKey, maxKey)
		}
	}
	if _, err := jami.NewAuthority(cert, key, now); err != nil {
		return nil, err
	}
	return &CA{Cert: cert, key: key}, nil
}

// Account is what an account can do: sign devices and revoke them.
type Account struct {
	Cert *x509.Certificate
	Key  *rsa.PrivateKey
	Eth  string // address of the account's secp256k1 key, which nobody needs here
}

// NewAccount issues the certificate of an account's key.
func (c *CA) NewAccount(key *rsa.PrivateKey, now time.Time) (*Account, error) {
	cert, err := jami.NewAccount(&key.PublicKey, c.Cert, c.key, now)
	if err != nil {
		return nil, err
	}
	eth, err := jami.NewEthKey()
	if err != nil {
		return nil, err
	}
	addr, err := jami.EthAddress(eth)
	if err != nil {
		return nil, err
	}
	return &Account{Cert: cert, Key: key, Eth: addr}, nil
}

// CRL signs a list of the accounts that are revoked.
func (c *CA) CRL(number *big.Int, revoked []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	return jami.NewCRL(c.Cert, c.key, number, revoked, now)
}

// CRL signs a list of the account's devices that are revoked (dht-and-identity §3.7).
func (a *Account) CRL(number *big.Int, revoked []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	return jami.NewCRL(a.Cert, a.Key, number, revoked, now)
}
