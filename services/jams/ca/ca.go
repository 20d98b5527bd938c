// Package ca is the organisation's certificate authority: it issues the certificate
// of each user's account, and account keys issue those of devices.
package ca

import (
	"bytes"
	"crypto"
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
)

// fileCA holds key and certificate: one file, one write.
const fileCA = "ca.pem"

// Keys that peers can check.
const (
	minKey = 2048
	maxKey = 8192
)

// CA is the authority.
type CA struct {
	Cert *x509.Certificate
	key  *rsa.PrivateKey
}

// Own returns the authority kept in dir, which is made when there is none.
func Own(dir string, bits int, now time.Time) (*CA, error) {
	path := filepath.Join(dir, fileCA)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if text, err = makeOwn(bits, now); err == nil {
			err = atomicfile.Write(path, text, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	c, err := parse(text, text, now)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w; put its copy in its place", path, err)
	}
	return c, nil
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

func makeOwn(bits int, now time.Time) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	cert, err := jami.NewCA(key, now)
	if err != nil {
		return nil, err
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
	switch {
	case !cert.IsCA || !cert.BasicConstraintsValid:
		return nil, errors.New("the certificate is not a CA's")
	case cert.MaxPathLenZero:
		return nil, errors.New("the certificate allows no authority below, which accounts are")
	case cert.KeyUsage != 0 && (cert.KeyUsage&x509.KeyUsageCertSign == 0 || cert.KeyUsage&x509.KeyUsageCRLSign == 0):
		return nil, errors.New("the certificate may not sign certificates and revocation lists")
	case !bytes.Equal(cert.RawIssuer, cert.RawSubject) || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil:
		return nil, errors.New("the certificate did not sign itself: Jami takes the top of a chain for the authority")
	case now.Before(cert.NotBefore) || now.After(cert.NotAfter):
		return nil, fmt.Errorf("the certificate is valid from %s to %s", cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
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
	return crl(c.Cert, c.key, number, revoked, now)
}

// CRL signs a list of the account's devices that are revoked (dht-and-identity §3.7).
func (a *Account) CRL(number *big.Int, revoked []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	return crl(a.Cert, a.Key, number, revoked, now)
}

func crl(issuer *x509.Certificate, key crypto.Signer, number *big.Int, revoked []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: number, RevokedCertificateEntries: revoked, SignatureAlgorithm: x509.SHA512WithRSA,
		ThisUpdate: now.UTC().Truncate(time.Second), NextUpdate: issuer.NotAfter,
	}, issuer, key)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return der, nil
}
