package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// fakeOverlay is a dht service that keeps what is put and tells who listens, for one
// account.
type fakeOverlay struct {
	t      testing.TB
	conn   *bus.Conn
	refuse atomic.Bool // to put

	mu     sync.Mutex
	values map[string]map[uint64]contract.DHTValue
	leased map[string]bool
}

func startOverlay(t *testing.T, srv *bustest.Server, account string) *fakeOverlay {
	t.Helper()
	c := srv.Conn("dht")
	c.SetAccount(account)
	o := &fakeOverlay{t: t, conn: c, values: map[string]map[uint64]contract.DHTValue{}, leased: map[string]bool{}}
	svc, err := bus.NewService(c, "dht", "0.0.0", "an overlay for a test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.DHTPutCmd, func(_ context.Context, r *bus.Request[contract.DHTPut]) (*contract.DHTValue, error) {
			if o.refuse.Load() {
				return nil, contract.ErrTimeout
			}
			o.put(r.Body.Value)
			return &r.Body.Value, nil
		}),
		bus.Serve(svc, contract.DHTNodeGet, func(context.Context, *bus.Request[contract.None]) (*contract.DHTNode, error) {
			return &contract.DHTNode{Public: []string{"192.0.2.1", "2001:db8::1"}}, nil
		}),
		bus.Serve(svc, contract.DHTGetCmd, func(_ context.Context, r *bus.Request[contract.DHTKey]) (*contract.DHTValues, error) {
			return &contract.DHTValues{Values: o.get(r.Body.Key)}, nil
		}),
		bus.Serve(svc, contract.DHTCancelCmd, func(_ context.Context, r *bus.Request[contract.DHTCancel]) (*contract.None, error) {
			o.drop(r.Body.Key, r.Body.ID)
			return &contract.None{}, nil
		}),
		bus.Serve(svc, contract.DHTListenCmd, func(_ context.Context, r *bus.Request[contract.DHTListen]) (*contract.DHTListening, error) {
			o.mu.Lock()
			o.leased[r.Body.Key] = true
			o.mu.Unlock()
			return &contract.DHTListening{Key: r.Body.Key, Values: o.get(r.Body.Key)}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *fakeOverlay) put(v contract.DHTValue) {
	o.mu.Lock()
	if o.values[v.Key] == nil {
		o.values[v.Key] = map[uint64]contract.DHTValue{}
	}
	o.values[v.Key][v.ID] = v
	listened := o.leased[v.Key]
	o.mu.Unlock()
	if listened {
		o.tell(v, false)
	}
}

func (o *fakeOverlay) drop(key string, id uint64) {
	o.mu.Lock()
	v, had := o.values[key][id]
	delete(o.values[key], id)
	listened := o.leased[key]
	o.mu.Unlock()
	if had && listened {
		o.tell(v, true)
	}
}

func (o *fakeOverlay) tell(v contract.DHTValue, gone bool) {
	if err := bus.Publish(context.Background(), o.conn, contract.DHTChanged, &contract.DHTChange{Value: v, Expired: gone}, v.Key); err != nil {
		o.t.Error(err)
	}
}

// forget is what a start of dht does to its leases.
func (o *fakeOverlay) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.leased)
}

func (o *fakeOverlay) listened(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leased[key]
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
		return bus.Call(ctx, cli, contract.DeviceRevoke, sealed(t, cli, contract.DeviceRevoke.Name, x))
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

// However a revocation gets here it is told, and told again to who may have missed it:
// lists that don't name what others do come along.
func TestEachRevocationIsTold(t *testing.T) {
	srv := bustest.Start(t)
	var svc *Service
	start(t, srv, readyKeys, func(s *Service) { svc = s })
	cli, admin := srv.Conn("cli"), srv.Admin()
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	admin.SetAccount(acc.ID)
	account := svc.hosts[0].acc.Chain.Account
	told := make(chan *contract.RevocationList, 64)
	sub, err := bus.Subscribe(admin, contract.AccountRevoked, func(_ context.Context, _ []string, l *contract.RevocationList) { told <- l })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	held := func(lists ...[]byte) *trust.Revocations {
		r := new(trust.Revocations)
		for _, der := range lists {
			if _, err := r.Add(der, account); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	serial := func(n int64) *x509.Certificate { return &x509.Certificate{SerialNumber: big.NewInt(n)} }
	wait := func(what string, serials ...int64) {
		t.Helper()
		for {
			select {
			case l := <-told:
				r := held(append(l.Older, l.CRL)...)
				if !slices.ContainsFunc(serials, func(n int64) bool { return !r.Has(serial(n), account) }) {
					return
				}
			case <-time.After(patience):
				t.Fatalf("%s: not told", what)
			}
		}
	}
	svc.hosts[0].take(t.Context(), crl(t, account, 10, big.NewInt(1)))
	wait("from the overlay", 1)
	svc.hosts[0].take(t.Context(), crl(t, account, 5, big.NewInt(2)))
	wait("an older list that names another", 1, 2)
	// An archive that another process put here is read when something changes it.
	put := func(a *jami.Archive) error { a.CRL = crl(t, account, 20, big.NewInt(3)); return nil }
	if err := svc.hosts[0].acc.ChangeArchive(nil, put); err != nil {
		t.Fatal(err)
	}
	if err := svc.hosts[0].acc.ChangeArchive(nil, func(*jami.Archive) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wait("from the archive", 1, 2, 3)
	certs, err := bus.Call(t.Context(), cli, contract.IdentityCerts, &contract.None{})
	if err != nil {
		t.Fatal(err)
	}
	if r := held(append(certs.OlderCRLs, certs.CRL)...); !r.Has(serial(1), account) || !r.Has(serial(2), account) || !r.Has(serial(3), account) {
		t.Error("who asks is not told all")
	}
	if err := svc.conn.NATS().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	wait("after the bus was away", 1, 2, 3)
}
