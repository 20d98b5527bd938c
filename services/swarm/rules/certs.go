// Package rules says which commits a conversation accepts: the rules of
// swarm §2.3 to §2.6 for the commits that Parley writes, and what Git and X.509
// say about their objects. It holds no state but parsed certificates.
package rules

import (
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // a Jami Id is a SHA-1 of a public key
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// ErrInvalid is every refusal of a commit or certificate.
var ErrInvalid = errors.New("commit against the rules of the conversation")

// Cert is a certificate as the rules look at it.
type Cert struct {
	*x509.Certificate
	ID        string // SHA-1 of the public key, 40 hex: a Jami Id
	LongID    string // SHA-256 of it, 64 hex: a device id
	IssuerUID string // UID of the issuer's name, 40 hex or empty
	Key       *rsa.PublicKey
}

// uid is the attribute type that holds a key id in Jami's names (RFC 4519 §2.39).
const uid = "0.9.2342.19200300.100.1.1"

// ParseCert reads the first certificate of a PEM text; a chain may follow.
func ParseCert(text []byte) (*Cert, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%w: no certificate in the file", ErrInvalid)
	}
	x, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrInvalid, err)
	}
	key, ok := x.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: certificate without an RSA key", ErrInvalid)
	}
	short, long := sha1.Sum(x.RawSubjectPublicKeyInfo), sha256.Sum256(x.RawSubjectPublicKeyInfo)
	c := &Cert{Certificate: x, ID: hex.EncodeToString(short[:]), LongID: hex.EncodeToString(long[:]), Key: key}
	for _, n := range x.Issuer.Names {
		if s, ok := n.Value.(string); ok && n.Type.String() == uid {
			c.IssuerUID = s
		}
	}
	return c, nil
}

// FirstPEM cuts a PEM text after its first certificate: devices/ holds the device
// certificate alone, without its chain (swarm §1.2).
func FirstPEM(text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: no certificate in the text", ErrInvalid)
	}
	return pem.EncodeToMemory(block), nil
}
