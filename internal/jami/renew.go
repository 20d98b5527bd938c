package jami

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrNoCAKey says that the archive lacks the key that its certificates are signed with.
var ErrNoCAKey = errors.New("the archive has no CA key (ringCaKey), so that its certificates can't be renewed: make a new account, or ask who runs the account's server")

// NeedsRenewal reports whether a certificate is over, or will be within ahead.
func NeedsRenewal(c *x509.Certificate, now time.Time, ahead time.Duration) bool {
	return now.Add(ahead).After(c.NotAfter)
}

// Renew signs the account certificate, and that of its CA, again where they are over,
// will be within ahead, or are no authority's, which stock calls in need of migration
// (§3.1). Keys, names and ids stay, so that all they signed stays good: devices'
// certificates, receipts, lists of revocations. It reports whether something was
// renewed; with an error nothing is changed. The error is [ErrNoCAKey] or [ErrCert].
//
// A list of revocations ends with the certificate that it had: sign it anew too, with
// [ExtendCRL].
func (a *Archive) Renew(now time.Time, ahead time.Duration) (renewed bool, err error) {
	due := func(c *x509.Certificate) bool { return NeedsRenewal(c, now, ahead) || !c.IsCA }
	ca, acc := a.CA, a.Account
	if ca != nil && due(ca) {
		if ca, err = a.renew(ca, ca, a.CAKey, now); err != nil {
			return false, err
		}
	}
	switch {
	case !due(acc):
	case ca != nil:
		acc, err = a.renew(acc, ca, a.CAKey, now)
	default: // it signed itself
		acc, err = a.renew(acc, acc, a.AccountKey, now)
	}
	if err != nil {
		return false, err
	}
	renewed = ca != a.CA || acc != a.Account
	a.CA, a.Account = ca, acc
	return renewed, nil
}

func (a *Archive) renew(c, issuer *x509.Certificate, key *rsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	if key == nil {
		return nil, fmt.Errorf("%w: %w", ErrCert, ErrNoCAKey)
	}
	return renew(c, issuer, key, now, true)
}

// RenewDevice signs a device's certificate again: same key and name, new serial and
// dates. The receipt stays good. The error is [ErrCert].
func RenewDevice(device, account *x509.Certificate, accountKey crypto.Signer, now time.Time) (*x509.Certificate, error) {
	return renew(device, account, accountKey, now, false)
}

func renew(c, issuer *x509.Certificate, key crypto.Signer, now time.Time, ca bool) (*x509.Certificate, error) {
	if err := owns(key, issuer); err != nil {
		return nil, err
	}
	t, err := template("", c.PublicKey, now, ca)
	if err != nil {
		return nil, err
	}
	t.RawSubject = c.RawSubject
	if c == issuer {
		issuer = t
	}
	return create(t, issuer, c.PublicKey, key)
}

// owns checks that a key is a certificate's.
func owns(key crypto.Signer, c *x509.Certificate) error {
	if pub, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return fmt.Errorf("%w: the key is not that of %.64q", ErrCert, c.Subject.CommonName)
	}
	return nil
}
