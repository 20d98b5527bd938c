package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// use is what a caller may do with a key.
type use struct {
	sign, open []contract.KeyName
}

// policy is who may use which key. The caller's name is a token of the subject
// that the bus pins to the process, so it cannot be claimed by another. Nobody
// uses the account key over the bus: what it signs (receipts, device
// certificates) identity signs itself, when they are made.
var policy = map[string]use{
	"swarm": {sign: []contract.KeyName{contract.KeyDevice}}, // commits
	"dht": {sign: []contract.KeyName{contract.KeyDevice}, // values
		open: []contract.KeyName{contract.KeyDevice}}, // values for this device
}

// hashes are the digests that may be signed: those of Jami's formats and of
// TLS 1.3 with RSA-PSS.
var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

// maxCipher is what a value of the DHT can hold.
const maxCipher = jami.MaxValue

func (s *Service) sign(_ context.Context, r *bus.Request[contract.SignRequest]) (*contract.SignReply, error) {
	caller, q := r.Param(1), &r.Body
	if !slices.Contains(policy[caller].sign, q.Key) {
		return nil, contract.ErrForbidden.With("%s may not sign with the key %q", caller, q.Key)
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

func (s *Service) open(_ context.Context, r *bus.Request[contract.DecryptRequest]) (*contract.DecryptReply, error) {
	caller, q := r.Param(1), &r.Body
	if !slices.Contains(policy[caller].open, q.Key) {
		return nil, contract.ErrForbidden.With("%s may not decrypt with the key %q", caller, q.Key)
	}
	if len(q.Cipher) > maxCipher {
		return nil, contract.ErrBadRequest.With("%d bytes to decrypt, at most %d", len(q.Cipher), maxCipher)
	}
	clear, err := jami.Decrypt(s.acc.DeviceKey(), q.Cipher)
	if err != nil {
		return nil, contract.ErrBadRequest.With("not encrypted to this key, or damaged")
	}
	return &contract.DecryptReply{Clear: clear}, nil
}
