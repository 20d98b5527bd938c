package jami

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxRequest bounds a request for a certificate in bytes of PEM; with an RSA-4096 key it
// has 1.7 KiB.
const MaxRequest = 16 << 10

// Labels of a request: that of stock Jami and that of RFC 7468.
const (
	pemStockRequest = "NEW CERTIFICATE REQUEST"
	pemRequest      = "CERTIFICATE REQUEST"
)

// ErrRequest says that a request for a certificate is not to be fulfilled.
var ErrRequest = errors.New("the CSR is refused")

// NewDeviceRequest makes a device's request (PKCS#10) as stock Jami does (§3.1).
func NewDeviceRequest(key crypto.Signer) ([]byte, error) { return newRequest(nameDevice, key) }

// NewAccountRequest makes the request of an account key, for an operator's authority.
func NewAccountRequest(key crypto.Signer) ([]byte, error) { return newRequest(nameAccount, key) }

func newRequest(cn string, key crypto.Signer) ([]byte, error) {
	pub, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: %w: not RSA", ErrRequest, ErrKey)
	}
	if err := checkRSA(pub); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	subject, err := subjectOf(cn, pub)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: subject, SignatureAlgorithm: x509.SHA384WithRSA}, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFailed, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemStockRequest, Bytes: der}), nil
}

// strongRSA are the signatures that a request may have.
var strongRSA = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// ParseRequest reads a request in PEM and returns the key that signed it: RSA of 2,048
// to 8,192 bits. A UID in the form of a key id has to be the key's. The error is
// [ErrRequest].
func ParseRequest(text []byte) (*rsa.PublicKey, error) {
	if len(text) > MaxRequest {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", ErrRequest, len(text), MaxRequest)
	}
	// 13.7.0 sends texts with their trailing NUL.
	block, rest := pem.Decode(bytes.TrimRight(text, "\x00"))
	if block == nil || block.Type != pemStockRequest && block.Type != pemRequest || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: not one PEM block %q", ErrRequest, pemRequest)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not parse: %w", ErrRequest, err)
	}
	pub, ok := csr.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: its key is not RSA", ErrRequest)
	}
	// Before the signature: checking one with a huge key costs too much.
	if err := checkRSA(pub); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if !slices.Contains(strongRSA, csr.SignatureAlgorithm) {
		return nil, fmt.Errorf("%w: it is signed with %s", ErrRequest, csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: its key did not sign it", ErrRequest)
	}
	id, _, err := PublicIDs(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	for _, n := range csr.Subject.Names {
		s, ok := n.Value.(string)
		if ok && n.Type.Equal(oidUID) && len(s) == len(id.String()) && !strings.EqualFold(s, id.String()) {
			return nil, fmt.Errorf("%w: its UID is %.40q, its key is %s", ErrRequest, s, id)
		}
	}
	return pub, nil
}
