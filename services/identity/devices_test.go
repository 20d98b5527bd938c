package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// fakeOverlay is a dht service that keeps what is put.
type fakeOverlay struct {
	mu     sync.Mutex
	values map[string]map[uint64]contract.DHTValue
}

func startOverlay(t *testing.T, srv *bustest.Server, account string) *fakeOverlay {
	t.Helper()
	o := &fakeOverlay{values: map[string]map[uint64]contract.DHTValue{}}
	c := srv.Conn("dht")
	c.SetAccount(account)
	svc, err := bus.NewService(c, "dht", "0.0.0", "an overlay for a test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.DHTPutCmd, func(_ context.Context, r *bus.Request[contract.DHTPut]) (*contract.DHTValue, error) {
			o.put(r.Body.Value)
			return &r.Body.Value, nil
		}),
		bus.Serve(svc, contract.DHTGetCmd, func(_ context.Context, r *bus.Request[contract.DHTKey]) (*contract.DHTValues, error) {
			return &contract.DHTValues{Values: o.get(r.Body.Key)}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *fakeOverlay) put(v contract.DHTValue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.values[v.Key] == nil {
		o.values[v.Key] = map[uint64]contract.DHTValue{}
	}
	o.values[v.Key][v.ID] = v
}

func (o *fakeOverlay) get(key string) (out []contract.DHTValue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range o.values[key] {
		out = append(out, v)
	}
	return out
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// crl makes a list of the test's account.
func crl(t *testing.T, issuer *x509.Certificate, number int64, serials ...*big.Int) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now(), NextUpdate: issuer.NotAfter}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, issuer, testKeys().Account)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestDevicesOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	env := start(t, srv, readyKeys, func(s *Service) { s.lookEvery = 20 * time.Millisecond })
	cli := srv.Conn("cli")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	over := startOverlay(t, srv, acc.ID)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	revoked := make(chan *contract.RevocationList, 8)
	admin := srv.Admin()
	admin.SetAccount(acc.ID)
	sub, err := bus.Subscribe(admin, contract.AccountRevoked, func(_ context.Context, _ []string, l *contract.RevocationList) { revoked <- l })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()

	named, err := bus.Call(ctx, cli, contract.DeviceRename, &contract.DeviceName{Name: " Küche "})
	if err != nil || named.Name != "Küche" || named.ID != acc.DeviceID || !named.This {
		t.Errorf("%+v, %v", named, err)
	}
	if _, err := bus.Call(ctx, cli, contract.DeviceRename, &contract.DeviceName{Name: "a\nb"}); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("a name of two lines: %v", err)
	}
	certs, err := bus.Call(ctx, cli, contract.IdentityCerts, &contract.None{})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := new(trust.Rules).Parse([]byte(certs.DevicePEM + certs.AccountPEM))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate is in the overlay", func() bool {
		for _, v := range over.get(acc.DeviceShort) {
			got, err := certificates(v)
			return err == nil && v.Type == typeCertificate && got[0].Equal(chain.Device)
		}
		return false
	})

	// Another device announces itself; its key is of this test.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := jami.NewDevice(&key.PublicKey, chain.Account, testKeys().Account, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	short, long := jami.CertIDs(dev)
	receipt, err := jami.NewReceipt(testKeys().Account, key.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	announcement, err := receipt.Announcement.Pack()
	if err != nil {
		t.Fatal(err)
	}
	pem := jami.MarshalChain(append([]*x509.Certificate{dev}, chain.Certs()[1:]...)...)
	packed, err := jami.PackBin(pem)
	if err != nil {
		t.Fatal(err)
	}
	over.put(contract.DHTValue{Key: short.String(), ID: certificateID, Type: typeCertificate, Data: packed})
	over.put(contract.DHTValue{Key: acc.ID, ID: 5, Data: announcement})
	over.put(contract.DHTValue{Key: acc.ID, ID: 6, Data: []byte("nonsense")})
	device := func() (d contract.Device) {
		l, err := bus.Call(ctx, cli, contract.DeviceList, &contract.None{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Devices {
			if d.ID == long.String() {
				return d
			}
		}
		return d
	}
	eventually(t, "the other device is known", func() bool { return device().ID != "" })

	revoke := func(x contract.Secret) (*contract.DeviceRevoked, error) {
		x.For = contract.DeviceRevoke.Name
		return bus.Call(ctx, cli, contract.DeviceRevoke, sealed(t, x))
	}
	for id, want := range map[string]error{acc.DeviceID: contract.ErrForbidden, strings.Repeat("1", 64): contract.ErrNotFound} {
		if _, err := revoke(contract.Secret{Device: id}); !errors.Is(err, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := revoke(contract.Secret{Device: long.String(), Certificate: "junk"}); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("a certificate of junk: %v", err)
	}
	began := time.Now()
	got, err := revoke(contract.Secret{Device: short.String(), Certificate: string(jami.MarshalChain(dev))})
	if err != nil || got.ID != long.String() || !got.Revoked {
		t.Fatalf("%+v, %v", got, err)
	}
	held := new(trust.Revocations)
	l := <-revoked
	if news, err := held.Add(l.CRL, chain.Account); err != nil || !news || !held.Has(dev, chain.Account) {
		t.Errorf("%v, %v", news, err)
	}
	t.Logf("told of %s after the command", time.Since(began))
	eventually(t, "the list is in the overlay", func() bool {
		for _, v := range over.get(acc.ID) {
			if der, err := jami.ParseBin(v.Data); err == nil && string(der) == string(l.CRL) && v.Type == 0 {
				return true
			}
		}
		return false
	})
	if certs, err = bus.Call(ctx, cli, contract.IdentityCerts, &contract.None{}); err != nil || string(certs.CRL) != string(l.CRL) {
		t.Errorf("the list is not with the certificates: %v", err)
	}
	if !device().Revoked {
		t.Error("listed as if it were good")
	}

	// Another device of the account shuts this one out.
	list, err := jami.PackBin(crl(t, chain.Account, 1<<62, chain.Device.SerialNumber))
	if err != nil {
		t.Fatal(err)
	}
	over.put(contract.DHTValue{Key: acc.ID, ID: 7, Data: list})
	st := waitState(t, cli, stateDamaged)
	if !strings.Contains(st.Message, "was revoked") {
		t.Errorf("%+v", st)
	}
	eventually(t, "not ready", func() bool { return !env.Ready() })
	swarm := srv.Conn("swarm")
	swarm.SetAccount(acc.ID)
	q := &contract.SignRequest{Key: contract.KeyDevice, Hash: "SHA-512", Scheme: "pkcs1", Digest: make([]byte, 64)}
	if _, err := bus.Call(ctx, swarm, contract.IdentitySign, q, "swarm"); !errors.Is(err, contract.ErrStateDamaged) {
		t.Errorf("a revoked device signs: %v", err)
	}
}
