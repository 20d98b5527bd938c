package remotekey_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/remotekey"
	"github.com/parley-jami/parley/internal/jami"
)

type device struct {
	key   *rsa.PrivateKey
	certs contract.Certificates
}

var made = sync.OnceValue(func() *device {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	key := func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		must(err)
		return k
	}
	ca, acc, dev := key(), key(), key()
	now := time.Now().Add(-time.Hour)
	caCert, err := jami.NewCA(ca, now)
	must(err)
	accCert, err := jami.NewAccount(&acc.PublicKey, caCert, ca, now)
	must(err)
	devCert, err := jami.NewDevice(&dev.PublicKey, accCert, acc, now)
	must(err)
	return &device{dev, contract.Certificates{DevicePEM: string(jami.MarshalChain(devCert)), AccountPEM: string(jami.MarshalChain(accCert, caCert))}}
})

// identity answers with a key of its own, and with what sign says of a request.
func identity(t *testing.T, srv *bustest.Server, sign func(*contract.SignRequest, string) ([]byte, error)) {
	t.Helper()
	svc, err := bus.NewService(srv.Conn("identity"), "identity", "0.0.0-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.IdentityCerts, func(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
			return &made().certs, nil
		}),
		bus.Serve(svc, contract.IdentitySign, func(_ context.Context, r *bus.Request[contract.SignRequest]) (*contract.SignReply, error) {
			b, err := sign(&r.Body, r.Param(1))
			return &contract.SignReply{Signature: b}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Conn("identity").NATS().Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestSign(t *testing.T) {
	srv := bustest.Start(t)
	identity(t, srv, func(q *contract.SignRequest, caller string) ([]byte, error) {
		if caller != "swarm" || q.Key != contract.KeyDevice {
			return nil, contract.ErrForbidden
		}
		h := map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-512": crypto.SHA512}[q.Hash]
		if q.Scheme == "pss" {
			return made().key.Sign(rand.Reader, q.Digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h})
		}
		return made().key.Sign(rand.Reader, q.Digest, h)
	})
	work, cancel := context.WithCancel(t.Context())
	key, err := remotekey.Device(t.Context(), work, srv.Conn("swarm"), "swarm")
	if err != nil {
		t.Fatal(err)
	}
	pub := &made().key.PublicKey
	if !pub.Equal(key.Public()) {
		t.Error("another public key")
	}
	d256, d512 := sha256.Sum256([]byte("x")), sha512.Sum512([]byte("x"))
	sig, err := key.Sign(nil, d512[:], crypto.SHA512)
	if err == nil {
		err = rsa.VerifyPKCS1v15(pub, crypto.SHA512, d512[:], sig)
	}
	if err != nil {
		t.Errorf("PKCS #1 v1.5: %v", err)
	}
	for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto, 32} {
		o := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		sig, err := key.Sign(nil, d256[:], o)
		if err == nil {
			err = rsa.VerifyPSS(pub, crypto.SHA256, d256[:], sig, o)
		}
		if err != nil {
			t.Errorf("PSS with salt %d: %v", salt, err)
		}
	}
	if _, err := key.Sign(nil, d256[:], &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}); err == nil {
		t.Error("signed with a salt of another length")
	}
	//lint:ignore SA1019 OpenDHT's wire has no other padding
	for _, opts := range []crypto.DecrypterOpts{nil, &rsa.OAEPOptions{}, &rsa.PKCS1v15DecryptOptions{}} {
		if _, err := key.Decrypt(nil, make([]byte, 256), opts); err == nil || errors.Is(err, contract.ErrForbidden) {
			t.Errorf("%T: %v, want a refusal before identity is asked", opts, err)
		}
	}
	cancel()
	if _, err := key.Sign(nil, d512[:], crypto.SHA512); err == nil {
		t.Error("signed after the end")
	}
}

func TestARefusalIsTheContracts(t *testing.T) {
	srv := bustest.Start(t)
	identity(t, srv, func(*contract.SignRequest, string) ([]byte, error) { return nil, contract.ErrForbidden })
	key, err := remotekey.Device(t.Context(), t.Context(), srv.Conn("swarm"), "swarm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Sign(nil, make([]byte, 64), crypto.SHA512); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("got %v", err)
	}
}
