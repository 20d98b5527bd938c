package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// A device that was certified anew, which this one has not heard of, is revoked with both
// certificates.
func TestRevokedWithAllItsCertificates(t *testing.T) {
	srv := bustest.Start(t)
	start(t, srv, readyKeys, func(*Service) {})
	cli := srv.Conn("cli")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	over := startOverlay(t, srv, acc.ID)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	certs, err := bus.Call(ctx, cli, contract.IdentityCerts, &contract.None{})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := new(trust.Rules).Parse([]byte(certs.DevicePEM + certs.AccountPEM))
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := jami.NewDevice(&key.PublicKey, chain.Account, testKeys().Account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := jami.RenewDevice(dev, chain.Account, testKeys().Account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	short, long := jami.CertIDs(dev)
	for i, c := range []*x509.Certificate{dev, fresh} {
		packed, err := jami.PackBin(jami.MarshalChain(append([]*x509.Certificate{c}, chain.Certs()[1:]...)...))
		if err != nil {
			t.Fatal(err)
		}
		over.put(contract.DHTValue{Key: short.String(), ID: uint64(i + 1), Type: typeCertificate, Data: packed})
	}
	got, err := bus.Call(ctx, cli, contract.DeviceRevoke, sealed(t, cli, contract.DeviceRevoke.Name,
		contract.Secret{Device: long.String(), Certificate: string(jami.MarshalChain(dev))}))
	if err != nil || !got.Revoked {
		t.Fatal(got, err)
	}
	if certs, err = bus.Call(ctx, cli, contract.IdentityCerts, &contract.None{}); err != nil {
		t.Fatal(err)
	}
	held := new(trust.Revocations)
	if _, err := held.Add(certs.CRL, chain.Account); err != nil {
		t.Fatal(err)
	}
	if !held.Has(dev, chain.Account) || !held.Has(fresh, chain.Account) {
		t.Errorf("revoked: the first %v, the new one %v", held.Has(dev, chain.Account), held.Has(fresh, chain.Account))
	}
}
