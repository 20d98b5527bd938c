package swarm

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/repo"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// signTimeout bounds one signature; identity takes some 5 ms for RSA-4096.
const signTimeout = 3 * time.Second

// deviceSigner is the account's device key, which stays in identity.
type deviceSigner struct {
	ctx context.Context //nolint:containedctx // crypto.Signer has no place for one
	c   *bus.Conn
	pub crypto.PublicKey
}

// Public returns the device's public key.
func (s *deviceSigner) Public() crypto.PublicKey { return s.pub }

// Sign asks identity for a PKCS#1 v1.5 signature.
func (s *deviceSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, signTimeout)
	defer cancel()
	a, err := bus.Call(ctx, s.c, contract.IdentitySign,
		&contract.SignRequest{Key: contract.KeyDevice, Hash: opts.HashFunc().String(), Scheme: "pkcs1", Digest: digest}, "swarm")
	if err != nil {
		return nil, err
	}
	return a.Signature, nil
}

// author asks identity for the certificates and makes of them who commits.
func author(ctx context.Context, c *bus.Conn, alias string) (*repo.Author, error) {
	certs, err := bus.Call(ctx, c, contract.IdentityCerts, &contract.None{})
	if err != nil {
		return nil, err
	}
	devPEM, err := rules.FirstPEM([]byte(certs.DevicePEM))
	if err != nil {
		return nil, fmt.Errorf("device certificate: %w", err)
	}
	dev, err := rules.ParseCert(devPEM)
	if err != nil {
		return nil, fmt.Errorf("device certificate: %w", err)
	}
	acc, err := rules.ParseCert([]byte(certs.AccountPEM))
	if err != nil {
		return nil, fmt.Errorf("account certificate: %w", err)
	}
	return &repo.Author{Name: alias, URI: acc.ID, Device: dev.LongID, AccountPEM: []byte(certs.AccountPEM), DevicePEM: devPEM,
		Signer: &deviceSigner{ctx: ctx, c: c, pub: dev.Key}}, nil
}
