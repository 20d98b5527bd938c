package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// use is one way in which a key may be used; the last two are of signatures.
type use struct {
	key          contract.KeyName
	scheme, hash string
}

// policy is who may have what signed. The caller's name is a token of the subject
// that the bus pins to the process, so it cannot be claimed by another. Scheme and
// hash are part of it: a signature of one format is not to be had where another is
// needed. Nobody uses the account key over the bus: what it signs (receipts, device
// certificates) identity signs itself, when they are made.
var policy = map[string][]use{
	"swarm": {{contract.KeyDevice, "pkcs1", "SHA-512"}}, // commits (swarm §1.8)
	"connect": {{contract.KeyDevice, "pss", "SHA-384"}, {contract.KeyDevice, "pss", "SHA-512"}, // TLS 1.3 (connect-and-calls §1.5)
		{contract.KeyDevice, "pkcs1", "SHA-384"}}, // DTLS 1.2, which has no PSS; the device key makes no other signatures of this form
}

// openers is who may have what decrypted: nobody, until the overlay carries values
// that are encrypted to this device.
var openers = map[string][]contract.KeyName{}

// hashes are the digests of Jami's formats and of TLS 1.3 with RSA-PSS.
var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

// Bounds of a session key in bytes: those of AES.
const (
	minSession = 16
	maxSession = 32
)

func (s *hosted) sign(ctx context.Context, r *bus.Request[contract.SignRequest]) (*contract.SignReply, error) {
	caller, q := r.Param(1), &r.Body
	if !slices.Contains(policy[caller], use{q.Key, q.Scheme, q.Hash}) {
		return nil, contract.ErrForbidden.With("%.32q may not sign with the key %.32q, %.32q and %.32q", caller, q.Key, q.Scheme, q.Hash)
	}
	if err := s.acc.Revoked(); err != nil {
		return nil, contract.ErrStateDamaged.With("%v", err)
	}
	if ctx.Err() != nil {
		return nil, contract.ErrTimeout // nobody waits for it any more
	}
	opts, err := signerOpts(q)
	if err != nil {
		return nil, err
	}
	sig, err := s.acc.DeviceKey().Sign(rand.Reader, q.Digest, opts)
	if err != nil {
		return nil, err
	}
	return &contract.SignReply{Signature: sig}, nil
}

func signerOpts(q *contract.SignRequest) (crypto.SignerOpts, error) {
	h, ok := hashes[q.Hash]
	if !ok {
		return nil, contract.ErrBadRequest.With("hash %q: use SHA-256, SHA-384 or SHA-512", q.Hash)
	}
	if len(q.Digest) != h.Size() {
		return nil, contract.ErrBadRequest.With("a digest of %d bytes, %s has %d", len(q.Digest), q.Hash, h.Size())
	}
	switch q.Scheme {
	case "pkcs1":
		return h, nil
	case "pss":
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}, nil
	}
	return nil, contract.ErrBadRequest.With("scheme %q: use pkcs1 or pss", q.Scheme)
}

func (s *hosted) open(_ context.Context, r *bus.Request[contract.DecryptRequest]) (*contract.DecryptReply, error) {
	caller, q := r.Param(1), &r.Body
	if !slices.Contains(openers[caller], q.Key) {
		return nil, contract.ErrForbidden.With("%.32q may not decrypt with the key %.32q", caller, q.Key)
	}
	key := s.acc.DeviceKey()
	if pub, ok := key.Public().(*rsa.PublicKey); !ok || len(q.Cipher) != pub.Size() {
		return nil, contract.ErrBadRequest.With("%d bytes to decrypt, a block of this key has another size", len(q.Cipher))
	}
	if q.Session < minSession || q.Session > maxSession {
		return nil, contract.ErrBadRequest.With("a session key has %d to %d bytes", minSession, maxSession)
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	clear, err := key.Decrypt(rand.Reader, q.Cipher, &rsa.PKCS1v15DecryptOptions{SessionKeyLen: q.Session})
	if err != nil {
		return nil, contract.ErrBadRequest.With("not a block of this key")
	}
	return &contract.DecryptReply{Clear: clear}, nil
}
