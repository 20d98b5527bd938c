package jams

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/parley-jami/parley/internal/jami"
)

// MaxCSR bounds a request for a certificate in bytes of PEM; with an RSA-4096 key it
// has 1.7 KiB.
const MaxCSR = 16 << 10

// Keys of devices: what GnuTLS's "medium" profile takes, up to what is cheap to check.
const (
	minKey = 2048
	maxKey = 8192
)

// Labels of a CSR: that of stock Jami and that of RFC 7468.
const (
	pemStock = "NEW CERTIFICATE REQUEST"
	pemCSR   = "CERTIFICATE REQUEST"
)

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidUID        = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
)

// NewCSR makes a device's request as stock Jami does (dht-and-identity §3.1).
func NewCSR(device crypto.Signer) ([]byte, error) {
	id, _, err := jami.PublicIDs(device.Public())
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	subject, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: oidCommonName, Value: "Jami device"}},
		{{Type: oidUID, Value: id.String()}},
	})
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: subject, SignatureAlgorithm: x509.SHA384WithRSA}, device)
	if err != nil {
		return nil, ErrInvalid.because(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemStock, Bytes: der}), nil
}

// strong are the signatures that a request may have.
var strong = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// ParseCSR reads a request in PEM and returns the key that signed it: RSA of 2,048
// to 8,192 bits. A UID in the form of a key id has to be the key's.
func ParseCSR(text []byte) (*rsa.PublicKey, error) {
	if len(text) > MaxCSR {
		return nil, ErrRefused.with("the CSR has %d bytes, %d are allowed", len(text), MaxCSR)
	}
	// 13.7.0 sends texts with their trailing NUL.
	block, rest := pem.Decode(bytes.TrimRight(text, "\x00"))
	if block == nil || block.Type != pemStock && block.Type != pemCSR || len(bytes.TrimSpace(rest)) > 0 {
		return nil, ErrRefused.with("the CSR is not one PEM block %q", pemCSR)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, ErrRefused.with("the CSR does not parse: %v", err)
	}
	pub, ok := csr.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, ErrRefused.with("the CSR's key is not RSA")
	}
	// Before the signature: checking one with a huge key costs too much.
	if bits := pub.N.BitLen(); bits < minKey || bits > maxKey || pub.N.Bit(0) == 0 || pub.E < 3 || pub.E%2 == 0 {
		return nil, ErrRefused.with("the CSR's key of %d bits can't be used", bits)
	}
	if !slices.Contains(strong, csr.SignatureAlgorithm) {
		return nil, ErrRefused.with("the CSR is signed with %s", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, ErrRefused.with("the CSR's key did not sign it")
	}
	id, _, err := jami.PublicIDs(pub)
	if err != nil {
		return nil, ErrRefused.because(err)
	}
	for _, n := range csr.Subject.Names {
		s, ok := n.Value.(string)
		if ok && n.Type.Equal(oidUID) && len(s) == len(id.String()) && !strings.EqualFold(s, id.String()) {
			return nil, ErrRefused.with("the CSR's UID is %.40q, its key is %s", s, id)
		}
	}
	return pub, nil
}
