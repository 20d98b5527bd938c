package dht

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/jami"
)

const patience = 20 * time.Second

// person is an account with one device.
type person struct {
	id       jami.ID
	short    jami.ID
	announce []byte // packed, id 0
	key      *rsa.PrivateKey
	certs    []*x509.Certificate // device, account, CA
}

var people = sync.OnceValue(func() [2]person {
	var out [2]person
	for i := range out {
		var k [3]*rsa.PrivateKey
		for j := range k {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			k[j] = key
		}
		r, err := jami.NewReceipt(k[0], k[1].Public(), "")
		if err != nil {
			panic(err)
		}
		packed, err := r.Announcement.Pack()
		if err != nil {
			panic(err)
		}
		at := time.Now().Add(-time.Hour)
		ca, err := jami.NewCA(k[2], at)
		if err != nil {
			panic(err)
		}
		acc, err := jami.NewAccount(&k[0].PublicKey, ca, k[2], at)
		if err != nil {
			panic(err)
		}
		dev, err := jami.NewDevice(&k[1].PublicKey, acc, k[0], at)
		if err != nil {
			panic(err)
		}
		short, _ := jami.CertIDs(dev)
		out[i] = person{r.Account, short, packed, k[0], []*x509.Certificate{dev, acc, ca}}
	}
	return out
})

// certificate is the value at the device's short id.
func certificate(t *testing.T, short jami.ID, certs ...*x509.Certificate) contract.DHTValue {
	t.Helper()
	b, err := jami.PackBin(jami.MarshalChain(certs...))
	if err != nil {
		t.Fatal(err)
	}
	return contract.DHTValue{Key: short.String(), Type: 8, Data: b}
}

// crl is a list of a person's that names certificates.
func (p *person) crl(t *testing.T, certs ...*x509.Certificate) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: p.certs[1].NotAfter, SignatureAlgorithm: x509.SHA512WithRSA}
	for _, c := range certs {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	issuer := *p.certs[1]
	issuer.SubjectKeyId = p.id[:]
	der, err := x509.CreateRevocationList(rand.Reader, l, &issuer, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func put(t *testing.T, c *bus.Conn, v contract.DHTValue) {
	t.Helper()
	if _, err := bus.Call(t.Context(), c, contract.DHTPutCmd, &contract.DHTPut{Value: v}); err != nil {
		t.Fatal(err)
	}
}

// identity answers in identity's place.
func identity(t *testing.T, srv *bustest.Server, who person) *bus.Conn {
	t.Helper()
	return identityIn(t, srv, who, func() string { return "ready" })
}

// identityIn is one whose state changes.
func identityIn(t *testing.T, srv *bustest.Server, who person, state func() string) *bus.Conn {
	t.Helper()
	c := srv.Conn("identity")
	c.SetAccount(who.id.String())
	svc, err := bus.NewService(c, "identity", "0.0.0-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			switch st := state(); st {
			case "ready":
			case "without":
				return &contract.IdentityState{State: "ready"}, nil
			default:
				return &contract.IdentityState{State: st}, nil
			}
			return &contract.IdentityState{State: "ready", Account: contract.Account{ID: who.id.String()}, Accounts: []contract.Account{{ID: who.id.String()}}}, nil
		}),
		bus.Serve(svc, contract.IdentityCerts, func(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
			return &contract.Certificates{Announcement: who.announce, DevicePEM: string(jami.MarshalChain(who.certs[0])),
				AccountPEM: string(jami.MarshalChain(who.certs[1:]...))}, nil
		}),
		bus.Serve(svc, contract.ContactList, func(context.Context, *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
			return &contract.Contacts{Revision: 100}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// node runs the service on a bus of its own and returns a client and how to end it.
func node(t *testing.T, srv *bustest.Server, who person, bootstrap ...string) (*bus.Conn, *host.Env, func()) {
	t.Helper()
	return nodeOn(t, srv, who, "libp2p", bootstrap...)
}

// nodeOn is node with an overlay; the addresses in bootstrap may be of any.
func nodeOn(t *testing.T, srv *bustest.Server, who person, overlay string, bootstrap ...string) (*bus.Conn, *host.Env, func()) {
	t.Helper()
	return nodeWith(t, srv, who, overlay, func(*config.DHT) {}, bootstrap...)
}

// nodeWith is nodeOn with more settings.
func nodeWith(t *testing.T, srv *bustest.Server, who person, overlay string, more func(*config.DHT), bootstrap ...string) (*bus.Conn, *host.Env, func()) {
	t.Helper()
	env := srv.Env("dht")
	set := &env.Config.DHT
	more(set)
	set.Overlay, set.Listen, set.OpenDHTListen = overlay, "127.0.0.1:0", "127.0.0.1:0"
	for _, a := range bootstrap {
		switch {
		case strings.HasPrefix(a, "/"):
			set.Bootstrap = append(set.Bootstrap, a)
		case strings.HasPrefix(a, "http"):
			set.Proxy = append(set.Proxy, a)
		default:
			set.OpenDHTBootstrap = append(set.OpenDHTBootstrap, a)
		}
	}
	r, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("dht ended with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	c := srv.Admin()
	c.SetAccount(who.id.String())
	return c, env, stop
}

func wait(t *testing.T, what string, ok func() (bool, any)) {
	t.Helper()
	deadline := time.After(patience)
	for {
		done, saw := ok()
		if done {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: last saw %v", what, saw)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func describe(t *testing.T, c *bus.Conn) *contract.DHTNode {
	t.Helper()
	var n *contract.DHTNode
	wait(t, "node", func() (bool, any) {
		var err error
		n, err = bus.Call(t.Context(), c, contract.DHTNodeGet, &contract.None{})
		return err == nil, err
	})
	return n
}

// opened waits until the node knows whom its account refuses.
func opened(t *testing.T, c *bus.Conn) {
	t.Helper()
	wait(t, "the gate is open", func() (bool, any) {
		_, err := bus.Call(t.Context(), c, contract.DHTPresenceGet, &contract.DHTPresence{ID: people()[0].id.String()})
		return err == nil, err
	})
}

func start(t *testing.T) (*bus.Conn, *host.Env) {
	t.Helper()
	srv := bustest.Start(t)
	identity(t, srv, people()[0])
	c, env, _ := node(t, srv, people()[0])
	describe(t, c)
	opened(t, c)
	return c, env
}

func TestPutGetCancelAlone(t *testing.T) {
	c, env := start(t)
	wait(t, "ready", func() (bool, any) { return env.Ready(), false })
	put := &contract.DHTPut{Value: contract.DHTValue{Key: "some text", Type: 3, Data: []byte("hello")}}
	v, err := bus.Call(t.Context(), c, contract.DHTPutCmd, put)
	if err != nil {
		t.Fatal(err)
	}
	if v.Peers != 0 || v.ID == 0 || v.Writer == "" || v.TTLMs <= 0 || v.TTLMs > 5*60*1000 {
		t.Errorf("stored %+v", v)
	}
	for _, key := range []string{"some text", jami.HashKey("some text").String()} {
		got, err := bus.Call(t.Context(), c, contract.DHTGetCmd, &contract.DHTKey{Key: key})
		if err != nil || len(got.Values) != 1 || string(got.Values[0].Data) != "hello" {
			t.Errorf("get %q: %+v, %v", key, got, err)
		}
	}
	cancel := &contract.DHTCancel{Key: "some text", ID: v.ID}
	if _, err := bus.Call(t.Context(), c, contract.DHTCancelCmd, cancel); err != nil {
		t.Error(err)
	}
	if _, err := bus.Call(t.Context(), c, contract.DHTCancelCmd, cancel); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("cancelled twice: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	c, _ := start(t)
	for name, v := range map[string]contract.DHTValue{
		"no key":   {},
		"zero key": {Key: strings.Repeat("0", 40)},
		"long key": {Key: strings.Repeat("x", 2000)},
		"too big":  {Key: "k", Data: make([]byte, 65537)},
	} {
		if _, err := bus.Call(t.Context(), c, contract.DHTPutCmd, &contract.DHTPut{Value: v}); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var err error
	for range 1000 {
		if _, err = bus.Call(t.Context(), c, contract.DHTPutCmd, &contract.DHTPut{Value: contract.DHTValue{Key: "k", Data: []byte("x")}}); err != nil {
			break
		}
	}
	if !errors.Is(err, contract.ErrFull) {
		t.Errorf("values without end under one key: %v", err)
	}
	if _, err := bus.Call(t.Context(), c, contract.DHTPresenceGet, &contract.DHTPresence{ID: "nobody"}); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("presence of no id: %v", err)
	}
}

func TestPresence(t *testing.T) {
	c, _ := start(t)
	online := func(id string) bool {
		p, err := bus.Call(t.Context(), c, contract.DHTPresenceGet, &contract.DHTPresence{ID: id})
		return err == nil && p.Online
	}
	me, other := people()[0], people()[1]
	put(t, c, certificate(t, me.short, me.certs...))
	wait(t, "own account online", func() (bool, any) { return online(me.id.String()), false })
	if online(other.id.String()) {
		t.Error("an account that nobody announced is online")
	}
	// What another account signed, or nobody, does not make one online.
	put(t, c, certificate(t, other.short, other.certs...))
	for _, data := range [][]byte{me.announce, []byte("junk")} {
		put(t, c, contract.DHTValue{Key: other.id.String(), Data: data})
	}
	if online(other.id.String()) {
		t.Error("online by a forged announcement")
	}
}

func TestTwoNodes(t *testing.T) {
	for _, overlay := range []string{"libp2p", "opendht", "both"} {
		t.Run(overlay, func(t *testing.T) { twoNodes(t, overlay) })
	}
}

func twoNodes(t *testing.T, overlay string) {
	a, b := people()[0], people()[1]
	srvA, srvB := bustest.Start(t), bustest.Start(t)
	identity(t, srvA, a)
	identity(t, srvB, b)
	ca, _, stopA := nodeOn(t, srvA, a, overlay)
	cb, _, _ := nodeOn(t, srvB, b, overlay, describe(t, ca).Addresses...)
	wait(t, "peers, who say what our address is", func() (bool, any) {
		n := describe(t, cb)
		return n.Peers > 0 && len(n.Public) == 1 && n.Public[0] == "127.0.0.1", n
	})
	put(t, ca, certificate(t, a.short, a.certs...))
	wait(t, "a online at b", func() (bool, any) {
		p, err := bus.Call(t.Context(), cb, contract.DHTPresenceGet, &contract.DHTPresence{ID: a.id.String()})
		return err == nil && p.Online, err
	})
	changes := make(chan contract.DHTChange, 16)
	l, err := bus.Call(t.Context(), cb, contract.DHTListenCmd, &contract.DHTListen{Key: "room", TTLMs: 60_000})
	if err != nil || len(l.Key) != 40 || len(l.Values) != 0 {
		t.Fatalf("listen: %+v, %v", l, err)
	}
	sub, err := bus.Subscribe(cb, contract.DHTChanged, func(_ context.Context, _ []string, e *contract.DHTChange) { changes <- *e }, l.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	put := &contract.DHTPut{Value: contract.DHTValue{Key: "room", Data: []byte("hello")}, Permanent: true}
	v, err := bus.Call(t.Context(), ca, contract.DHTPutCmd, put)
	if err != nil || v.Peers == 0 {
		t.Fatalf("put: %+v, %v", v, err)
	}
	next := func() contract.DHTChange {
		t.Helper()
		select {
		case c := <-changes:
			return c
		case <-time.After(patience):
			t.Fatal("no change was told")
		}
		panic("unreachable")
	}
	if c := next(); c.Expired || string(c.Value.Data) != "hello" {
		t.Errorf("change %+v", c)
	}
	// The process of a ends and starts again: the permanent value is still its own.
	stopA()
	ca, _, _ = nodeOn(t, srvA, a, overlay)
	wait(t, "value after a restart", func() (bool, any) {
		got, err := bus.Call(t.Context(), ca, contract.DHTGetCmd, &contract.DHTKey{Key: "room"})
		return err == nil && len(got.Values) == 1 && got.Values[0].ID == v.ID, err
	})
	if _, err := bus.Call(t.Context(), ca, contract.DHTCancelCmd, &contract.DHTCancel{Key: "room", ID: v.ID}); err != nil {
		t.Error(err)
	}
}

func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{"node.key", "permanent.json", "opendht.key"} {
		t.Run(name, func(t *testing.T) {
			srv := bustest.Start(t)
			identity(t, srv, people()[0])
			path := filepath.Join(srv.Config().Data, "dht", name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("{junk"), 0o600); err != nil {
				t.Fatal(err)
			}
			c, env, _ := nodeOn(t, srv, people()[0], "both")
			wait(t, "refusal", func() (bool, any) {
				_, err := bus.Call(t.Context(), c, contract.DHTNodeGet, &contract.None{})
				return errors.Is(err, contract.ErrStateDamaged) && strings.Contains(err.Error(), path), err
			})
			if env.Ready() {
				t.Error("ready")
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "{junk" {
				t.Errorf("file changed to %q, %v", b, err)
			}
		})
	}
}

// Online is who has a device whose certificates are found and good.
func TestAnnouncementsOfWhomTrustRefuses(t *testing.T) {
	me, other := people()[0], people()[1]
	long, err := jami.NewDevice(other.certs[0].PublicKey.(*rsa.PublicKey), other.certs[1], other.key, time.Now().AddDate(-30, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	list := func(der []byte) contract.DHTValue {
		b, err := jami.PackBin(der)
		if err != nil {
			t.Fatal(err)
		}
		return contract.DHTValue{Key: other.id.String(), ID: 9, Data: b}
	}
	announcement := contract.DHTValue{Key: other.id.String(), ID: 5, Data: other.announce}
	good := certificate(t, other.short, other.certs...)
	for _, tt := range []struct {
		name   string
		values []contract.DHTValue
		want   bool
	}{
		{"good", []contract.DHTValue{announcement, good}, true},
		{"no announcement", []contract.DHTValue{good}, false},
		{"no certificate", []contract.DHTValue{announcement}, false},
		{"of another device", []contract.DHTValue{announcement, certificate(t, other.short, me.certs...)}, false},
		{"without its account", []contract.DHTValue{announcement, certificate(t, other.short, other.certs[0])}, false},
		{"expired", []contract.DHTValue{announcement, certificate(t, other.short, long, other.certs[1], other.certs[2])}, false},
		{"an expired one beside a good one", []contract.DHTValue{announcement, certificate(t, other.short, long, other.certs[1], other.certs[2]), good}, true},
		{"revoked by its account", []contract.DHTValue{announcement, good, list(other.crl(t, other.certs[0]))}, false},
		{"revoked by another", []contract.DHTValue{announcement, good, list(me.crl(t, other.certs[0]))}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := start(t)
			for _, v := range tt.values {
				put(t, c, v)
			}
			p, err := bus.Call(t.Context(), c, contract.DHTPresenceGet, &contract.DHTPresence{ID: other.id.String()})
			if err != nil || p.Online != tt.want {
				t.Errorf("%+v, %v; want %v", p, err, tt.want)
			}
		})
	}
}

// Nobody looks after who is banned: presence is refused, and listening ends with the ban.
func TestBanned(t *testing.T) {
	srv := bustest.Start(t)
	me, other := people()[0], people()[1]
	ident := identity(t, srv, me)
	c, _, _ := node(t, srv, me)
	describe(t, c)
	opened(t, c)
	presence := func() error {
		_, err := bus.Call(t.Context(), c, contract.DHTPresenceGet, &contract.DHTPresence{ID: other.id.String()})
		return err
	}
	listen := func() error {
		_, err := bus.Call(t.Context(), c, contract.DHTListenCmd, &contract.DHTListen{Key: other.id.String(), TTLMs: 600_000})
		return err
	}
	changes := make(chan contract.DHTChange, 16)
	sub, err := bus.Subscribe(c, contract.DHTChanged, func(_ context.Context, _ []string, e *contract.DHTChange) { changes <- *e })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	heard := func() bool {
		put(t, c, contract.DHTValue{Key: other.id.String(), Data: []byte("x")})
		select {
		case <-changes:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	revision := uint64(100)
	ban := func(yes bool) {
		t.Helper()
		revision++
		e := &contract.ContactChanged{Contact: contract.Contact{ID: other.id.String(), Banned: yes}, Revision: revision}
		if err := bus.Publish(t.Context(), ident, contract.ContactEvents, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(presence(), listen(), listen()); err != nil {
		t.Fatal(err)
	}
	if !heard() {
		t.Fatal("a change is not told")
	}
	ban(true)
	wait(t, "listening has ended", func() (bool, any) { return !heard(), "a change" })
	if err := presence(); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("presence: %v", err)
	}
	for range 2 { // the first leaves nothing behind
		if err := listen(); !errors.Is(err, contract.ErrForbidden) {
			t.Errorf("listen: %v", err)
		}
	}
	ban(false)
	wait(t, "no longer banned", func() (bool, any) { err := listen(); return err == nil, err })
	if !heard() {
		t.Error("a change is not told")
	}
}

// An account that was taken out of use and comes again bans as before, also whom it listened
// to all the time.
func TestBannedByAnAccountThatCameAgain(t *testing.T) {
	srv := bustest.Start(t)
	me, other := people()[0], people()[1]
	var without atomic.Bool
	ident := identityIn(t, srv, me, func() string {
		if without.Load() {
			return "without"
		}
		return "ready"
	})
	c, _, _ := node(t, srv, me)
	describe(t, c)
	opened(t, c)
	listen := func() error {
		_, err := bus.Call(t.Context(), c, contract.DHTListenCmd, &contract.DHTListen{Key: other.id.String(), TTLMs: 600_000})
		return err
	}
	if err := listen(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{true, false} {
		without.Store(gone)
		if err := bus.Publish(t.Context(), ident, contract.IdentityReady, &contract.IdentityState{State: "ready"}); err != nil {
			t.Fatal(err)
		}
		wait(t, "the account is away, and back", func() (bool, any) {
			_, err := bus.Call(t.Context(), c, contract.DHTPresenceGet, &contract.DHTPresence{ID: other.id.String()})
			return errors.Is(err, contract.ErrUnavailable) == gone, err
		})
	}
	if err := listen(); err != nil {
		t.Fatal(err)
	}
	e := &contract.ContactChanged{Contact: contract.Contact{ID: other.id.String(), Banned: true}, Revision: 101}
	if err := bus.Publish(t.Context(), ident, contract.ContactEvents, e); err != nil {
		t.Fatal(err)
	}
	wait(t, "listening is refused", func() (bool, any) { err := listen(); return errors.Is(err, contract.ErrForbidden), err })
}

// A device that was revoked announces itself no more, also where identity has said so
// before: it is not ready any more then.
func TestOwnDeviceRevoked(t *testing.T) {
	srv := bustest.Start(t)
	me := people()[0]
	var revoked atomic.Bool
	ident := identityIn(t, srv, me, func() string {
		if revoked.Load() {
			return "damaged"
		}
		return "ready"
	})
	c, _, _ := node(t, srv, me)
	announced := func() (bool, any) {
		got, err := bus.Call(t.Context(), c, contract.DHTGetCmd, &contract.DHTKey{Key: me.id.String()})
		return err == nil && len(got.Values) == 1, err
	}
	wait(t, "announced", announced)
	revoked.Store(true)
	e := &contract.RevocationList{AccountPEM: string(jami.MarshalChain(me.certs[1])), CRL: me.crl(t, me.certs[0])}
	if err := bus.Publish(t.Context(), ident, contract.AccountRevoked, e); err != nil {
		t.Fatal(err)
	}
	wait(t, "taken away", func() (bool, any) { is, err := announced(); return !is && err == nil, err })
}
