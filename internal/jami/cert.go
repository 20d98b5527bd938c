package jami

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Common names of the three certificates (§3.1).
const (
	nameCA      = "Jami CA"
	nameAccount = "Jami"
	nameDevice  = "Jami device"
)

// Validity is how long a certificate of ours is valid: ten years of 365 days.
const Validity = 10 * 365 * 24 * time.Hour

// maxChain bounds what [ParseCerts] accepts, in certificates and in bytes.
const (
	maxChain      = 8
	maxChainBytes = 64 << 10
)

const pemCert = "CERTIFICATE"

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidUID        = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
)

// ErrCert says that a certificate cannot be read or made.
var ErrCert = errors.New("certificate")

// NewCA makes the self-signed certificate of an account's CA key.
func NewCA(key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	t, err := template(nameCA, key.Public(), now, true)
	if err != nil {
		return nil, err
	}
	return create(t, t, key.Public(), key)
}

// NewAccount makes the account certificate, which the CA signs and which signs
// devices.
func NewAccount(pub *rsa.PublicKey, ca *x509.Certificate, caKey crypto.Signer, now time.Time) (*x509.Certificate, error) {
	t, err := template(nameAccount, pub, now, true)
	if err != nil {
		return nil, err
	}
	return create(t, ca, pub, caKey)
}

// NewDevice makes a device certificate; it has no extensions at all (§3.1).
func NewDevice(pub *rsa.PublicKey, account *x509.Certificate, accountKey crypto.Signer, now time.Time) (*x509.Certificate, error) {
	t, err := template(nameDevice, pub, now, false)
	if err != nil {
		return nil, err
	}
	return create(t, account, pub, accountKey)
}

// subjectOf encodes a name here because its order, CN then UID, and its string type
// matter to peers.
func subjectOf(cn string, pub crypto.PublicKey) ([]byte, error) {
	id, _, err := PublicIDs(pub)
	if err != nil {
		return nil, err
	}
	subject, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: oidCommonName, Value: cn}},
		{{Type: oidUID, Value: id.String()}},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: subject: %w", ErrCert, err)
	}
	return subject, nil
}

// template follows §2 "X.509 details".
func template(cn string, pub crypto.PublicKey, now time.Time, ca bool) (*x509.Certificate, error) {
	id, _, err := PublicIDs(pub)
	if err != nil {
		return nil, err
	}
	subject, err := subjectOf(cn, pub)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		RawSubject: subject, SerialNumber: serial,
		NotBefore: now.UTC().Truncate(time.Second), NotAfter: now.UTC().Truncate(time.Second).Add(Validity),
	}
	if ca {
		t.IsCA, t.BasicConstraintsValid = true, true
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		t.SubjectKeyId = id[:]
	}
	return t, nil
}

// newSerial returns 63 random bits: eight bytes as Jami has, but never negative.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).SetUint64(1<<63-1))
	if err != nil {
		return nil, fmt.Errorf("%w: serial: %w", ErrCert, err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// create signs t. The issuer goes in without its subject key id, else x509 would
// add an authority key id, which Jami's certificates don't have.
func create(t, issuer *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	var err error
	if t.SignatureAlgorithm, err = signedWith(key.Public(), x509.SHA384WithRSA); err != nil {
		return nil, err
	}
	parent := &x509.Certificate{RawSubject: issuer.RawSubject}
	if t == issuer {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCert, err)
	}
	return x509.ParseCertificate(der)
}

// signedWith is how a key signs certificates and their like: RSA as is said, ECDSA, which
// only an operator's authority has, with the hash of its size.
func signedWith(pub crypto.PublicKey, forRSA x509.SignatureAlgorithm) (x509.SignatureAlgorithm, error) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return forRSA, checkRSA(pub)
	case *ecdsa.PublicKey:
		switch bits := pub.Curve.Params().BitSize; {
		case bits > 384:
			return x509.ECDSAWithSHA512, nil
		case bits > 256:
			return x509.ECDSAWithSHA384, nil
		case bits == 256:
			return x509.ECDSAWithSHA256, nil
		}
	}
	return 0, fmt.Errorf("%w: %w: neither RSA of %d bits or more nor ECDSA of 256 or more", ErrCert, ErrKey, minKeyBits)
}

// MarshalChain returns the certificates as concatenated PEM, in the given order.
func MarshalChain(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		if c != nil {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw}))
		}
	}
	return b.Bytes()
}

// ParseCerts reads concatenated PEM certificates; at least one, at most eight. It
// judges none of them: that is internal/trust's.
func ParseCerts(b []byte) ([]*x509.Certificate, error) {
	if len(b) > maxChainBytes {
		return nil, fmt.Errorf("%w: chain of %d bytes", ErrCert, len(b))
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != pemCert {
			return nil, fmt.Errorf("%w: unexpected PEM block", ErrCert)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCert, err)
		}
		if out = append(out, c); len(out) > maxChain {
			return nil, fmt.Errorf("%w: chain of more than %d", ErrCert, maxChain)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no PEM certificate", ErrCert)
	}
	return out, nil
}
