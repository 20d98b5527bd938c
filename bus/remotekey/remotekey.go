// Package remotekey lets a process use a private key that stays in identity, as an SSH
// agent does: a crypto.Signer and crypto.Decrypter whose work is done over the bus. What a
// process may have done with a key is identity's policy; the bus pins its name.
package remotekey

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/trust"
)

// timeout bounds one use of the key; identity takes some 5 ms for RSA-4096.
const timeout = 3 * time.Second

// Key is the key of the device of one account. It is safe for concurrent use.
type Key struct {
	// Chain is the device with its account and the authorities above.
	Chain *trust.Chain

	ctx    context.Context //nolint:containedctx // crypto.Signer has no place for one
	conn   *bus.Conn
	caller string
}

// The interfaces that the standard library knows of keys.
var (
	_ crypto.Signer    = (*Key)(nil)
	_ crypto.Decrypter = (*Key)(nil)
)

// Device asks identity for the certificates of the account that conn is used for. caller
// is the name of this process. What is signed later ends with work.
func Device(ctx, work context.Context, conn *bus.Conn, caller string) (*Key, error) {
	certs, err := bus.Call(ctx, conn, contract.IdentityCerts, &contract.None{})
	if err != nil {
		return nil, err
	}
	// Its dates are identity's worry, and told there.
	chain, err := (&trust.Rules{AnyTime: true}).Parse([]byte(certs.DevicePEM + certs.AccountPEM))
	if err != nil {
		return nil, fmt.Errorf("certificates of the node: %w", err)
	}
	return &Key{Chain: chain, ctx: work, conn: conn, caller: caller}, nil
}

// Public returns the device's public key.
func (k *Key) Public() crypto.PublicKey { return k.Chain.Device.PublicKey }

// Sign signs a digest: with *rsa.PSSOptions by PSS, whose salt is as long as the hash,
// else by PKCS #1 v1.5 (RFC 8017 §8). An error is that of the bus or of identity.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	q := &contract.SignRequest{Key: contract.KeyDevice, Hash: opts.HashFunc().String(), Scheme: "pkcs1", Digest: digest}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		if n := pss.SaltLength; n != rsa.PSSSaltLengthEqualsHash && n != rsa.PSSSaltLengthAuto && n != opts.HashFunc().Size() {
			return nil, fmt.Errorf("remote key: a salt of %d bytes, only one as long as the hash is signed with", n)
		}
		q.Scheme = "pss"
	}
	ctx, cancel := context.WithTimeout(k.ctx, timeout)
	defer cancel()
	a, err := bus.Call(ctx, k.conn, contract.IdentitySign, q, k.caller)
	if err != nil {
		return nil, err
	}
	return a.Signature, nil
}

// Decrypt opens one RSA block, PKCS #1 v1.5, that has a session key: opts have to say its
// length. With a wrong padding it returns a random one.
func (k *Key) Decrypt(_ io.Reader, block []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	o, ok := opts.(*rsa.PKCS1v15DecryptOptions)
	if !ok || o.SessionKeyLen == 0 {
		return nil, errors.New("remote key: it opens session keys alone, in PKCS #1 v1.5")
	}
	ctx, cancel := context.WithTimeout(k.ctx, timeout)
	defer cancel()
	a, err := bus.Call(ctx, k.conn, contract.IdentityOpen, &contract.DecryptRequest{Key: contract.KeyDevice, Cipher: block, Session: o.SessionKeyLen}, k.caller)
	if err != nil {
		return nil, err
	}
	return a.Clear, nil
}
