package jami

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Authority is an operator's, which issues the certificates of accounts. Its key, RSA or
// ECDSA, may be anywhere.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewAuthority checks that the key is the certificate's, and that Jami takes what they
// sign for an account.
func NewAuthority(cert *x509.Certificate, key crypto.Signer, now time.Time) (*Authority, error) {
	if err := owns(key, cert); err != nil {
		return nil, err
	}
	if err := fit(key); err != nil {
		return nil, err
	}
	var err error
	switch {
	case !cert.IsCA || !cert.BasicConstraintsValid:
		err = errors.New("it is not a CA's")
	case cert.MaxPathLenZero:
		err = errors.New("it allows no authority below, which accounts are")
	case cert.KeyUsage != 0 && (cert.KeyUsage&x509.KeyUsageCertSign == 0 || cert.KeyUsage&x509.KeyUsageCRLSign == 0):
		err = errors.New("it may not sign certificates and revocation lists")
	case !bytes.Equal(cert.RawIssuer, cert.RawSubject) || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil:
		err = errors.New("it did not sign itself: Jami takes the top of a chain for the authority")
	case now.Before(cert.NotBefore) || now.After(cert.NotAfter):
		err = fmt.Errorf("it is valid from %s to %s", cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCert, err)
	}
	return &Authority{Cert: cert, Key: key}, nil
}

// Issue makes the certificate for an account's request, see [ParseRequest], and returns
// the chain: account, authority. What the request says beside its key is not taken over.
func (a *Authority) Issue(request []byte, now time.Time) ([]*x509.Certificate, error) {
	pub, err := ParseRequest(request)
	if err != nil {
		return nil, err
	}
	if err := owns(a.Key, &x509.Certificate{PublicKey: pub}); err == nil {
		return nil, fmt.Errorf("%w: its key is the authority's own", ErrRequest)
	}
	acc, err := NewAccount(pub, a.Cert, a.Key, now)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{acc, a.Cert}, nil
}

// NewCRL signs a list of revocations that is valid until its issuer's certificate ends
// (§3.7). Beyond some 1,500 entries it does not fit into a value of the DHT.
func NewCRL(issuer *x509.Certificate, key crypto.Signer, number *big.Int, revoked []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	if err := owns(key, issuer); err != nil {
		return nil, err
	}
	alg, err := signedWith(key.Public(), x509.SHA512WithRSA)
	if err != nil {
		return nil, err
	}
	by := *issuer
	if len(by.SubjectKeyId) == 0 { // the library wants one
		id, _ := CertIDs(issuer)
		by.SubjectKeyId = id[:]
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: number, RevokedCertificateEntries: revoked, SignatureAlgorithm: alg,
		ThisUpdate: now.UTC().Truncate(time.Second), NextUpdate: issuer.NotAfter,
	}, &by, key)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return der, nil
}

// ExtendCRL signs a list with the given certificates and all that is on older lists of
// the issuer, which the caller found good. Its number is one more than theirs; the first
// has a random one (§3.7).
func ExtendCRL(issuer *x509.Certificate, key crypto.Signer, now time.Time, revoke []*x509.Certificate, older ...*x509.RevocationList) ([]byte, error) {
	var entries []x509.RevocationListEntry
	named := map[string]bool{}
	add := func(serial *big.Int, at time.Time) {
		if s := serial.String(); !named[s] {
			named[s] = true
			entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: at})
		}
	}
	var number *big.Int
	for _, l := range older {
		for _, e := range l.RevokedCertificateEntries {
			add(e.SerialNumber, e.RevocationTime)
		}
		if number == nil || l.Number != nil && l.Number.Cmp(number) > 0 {
			number = l.Number
		}
	}
	for _, c := range revoke {
		add(c.SerialNumber, now.UTC().Truncate(time.Second))
	}
	if number == nil {
		var err error
		if number, err = newSerial(); err != nil {
			return nil, err
		}
	}
	return NewCRL(issuer, key, new(big.Int).Add(number, big.NewInt(1)), entries, now)
}
