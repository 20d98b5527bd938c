package jami

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
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

// maxChain bounds what [ParseChain] accepts, in certificates and in bytes.
const (
	maxChain      = 8
	maxChainBytes = 64 << 10
)

const pemCert = "CERTIFICATE"

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidUID        = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
)

// Errors of certificates.
var (
	ErrCert    = errors.New("certificate")
	ErrRevoked = errors.New("certificate is revoked")
)

// NewCA makes the self-signed certificate of an account's CA key.
func NewCA(key *rsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	t, err := template(nameCA, &key.PublicKey, now, true)
	if err != nil {
		return nil, err
	}
	return create(t, t, &key.PublicKey, key)
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

// template follows §2 "X.509 details". The name is encoded here because its
// order, CN then UID, and its string type matter to peers.
func template(cn string, pub *rsa.PublicKey, now time.Time, ca bool) (*x509.Certificate, error) {
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
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		RawSubject: subject, SerialNumber: serial, SignatureAlgorithm: x509.SHA384WithRSA,
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
func create(t, issuer *x509.Certificate, pub *rsa.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
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

// Chain is a device's certificates in the order in which Jami stores them.
type Chain struct {
	Device, Account *x509.Certificate
	CA              *x509.Certificate // nil where the account signed itself
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

// PEM returns device, account and CA.
func (c *Chain) PEM() []byte { return MarshalChain(c.Device, c.Account, c.CA) }

// JamiID is the key id of the device's direct issuer (§3.4).
func (c *Chain) JamiID() ID { return KeyID(c.Account.RawSubjectPublicKeyInfo) }

// ParseCerts reads concatenated PEM certificates; at least one, at most eight.
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

// ParseChain reads device, account and CA and verifies that each signed the one
// before it and that all are valid at now (§3.4).
func ParseChain(b []byte, now time.Time) (*Chain, error) {
	c, err := parseChain(b)
	if err != nil {
		return nil, err
	}
	return c, c.Verify(now)
}

func parseChain(b []byte) (*Chain, error) {
	certs, err := ParseCerts(b)
	if err != nil {
		return nil, err
	}
	if len(certs) < 2 {
		return nil, fmt.Errorf("%w: the device's issuer is missing", ErrCert)
	}
	c := &Chain{Device: certs[0], Account: certs[1]}
	if len(certs) > 2 {
		c.CA = certs[2]
	}
	if len(certs) > 3 {
		return nil, fmt.Errorf("%w: chain of %d, want device, account, CA", ErrCert, len(certs))
	}
	return c, nil
}

// Verify checks the chain at a time: signatures, dates, CA flags, key sizes. The
// top of the chain is its only trusted root: a name is bound to a key by the
// Jami Id alone.
func (c *Chain) Verify(now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	all := []*x509.Certificate{c.Device, c.Account}
	if c.CA != nil {
		all = append(all, c.CA)
		roots.AddCert(c.CA)
		between.AddCert(c.Account)
	} else {
		roots.AddCert(c.Account)
	}
	for _, x := range all {
		k, ok := x.PublicKey.(*rsa.PublicKey)
		if !ok || k.N.BitLen() < minKeyBits {
			return fmt.Errorf("%w: key of %q is not RSA of %d bits or more", ErrCert, x.Subject.CommonName, minKeyBits)
		}
	}
	chains, err := c.Device.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCert, err)
	}
	// The Jami Id is that of Account: it has to be the device's direct issuer, not
	// something that stands in the file beside a chain without it.
	for _, got := range chains {
		if slices.EqualFunc(got, all, (*x509.Certificate).Equal) {
			return nil
		}
	}
	return fmt.Errorf("%w: the chain is not device, account, CA", ErrCert)
}

// During returns a time at which all of the chain's certificates are valid: one to
// check its signatures at where the clock may be wrong. ok is false when there is
// none.
func (c *Chain) During() (at time.Time, ok bool) {
	from, to := c.Device.NotBefore, c.Device.NotAfter
	for _, x := range []*x509.Certificate{c.Account, c.CA} {
		if x == nil {
			continue
		}
		if x.NotBefore.After(from) {
			from = x.NotBefore
		}
		if x.NotAfter.Before(to) {
			to = x.NotAfter
		}
	}
	return from, !from.After(to)
}

// ParseChainAnyTime is [ParseChain] without a look at the clock.
func ParseChainAnyTime(b []byte) (*Chain, error) {
	c, err := parseChain(b)
	if err != nil {
		return nil, err
	}
	at, ok := c.During()
	if !ok {
		return nil, fmt.Errorf("%w: the chain's certificates are at no time valid together", ErrCert)
	}
	return c, c.Verify(at)
}

// ParseCRL reads a revocation list and checks that issuer signed it.
func ParseCRL(der []byte, issuer *x509.Certificate) (*x509.RevocationList, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return l, nil
}

// CheckRevoked returns ErrRevoked when the list names the certificate.
func CheckRevoked(l *x509.RevocationList, c *x509.Certificate) error {
	for i := range l.RevokedCertificateEntries {
		// Serials may be negative (§2); big.Int compares them as the INTEGER they are.
		if l.RevokedCertificateEntries[i].SerialNumber.Cmp(c.SerialNumber) == 0 {
			return ErrRevoked
		}
	}
	return nil
}
