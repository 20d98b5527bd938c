package dht

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/jami"
)

const patience = 20 * time.Second

// person is an account with one device.
type person struct {
	id       jami.ID
	announce []byte // packed, id 0
}

var people = sync.OnceValue(func() [2]person {
	var out [2]person
	for i := range out {
		var k [2]*rsa.PrivateKey
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
		out[i] = person{r.Account, packed}
	}
	return out
})

// identity answers in identity's place.
func identity(t *testing.T, srv *bustest.Server, who person) {
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
			return &contract.IdentityState{State: "ready", Account: contract.Account{ID: who.id.String()}}, nil
		}),
		bus.Serve(svc, contract.IdentityCerts, func(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
			return &contract.Certificates{Announcement: who.announce}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
}

// node runs the service on a bus of its own and returns a client and how to end it.
func node(t *testing.T, srv *bustest.Server, who person, bootstrap ...string) (*bus.Conn, *host.Env, func()) {
	t.Helper()
	env := srv.Env("dht")
	env.Config.DHT.Listen, env.Config.DHT.Bootstrap = "127.0.0.1:0", bootstrap
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

func start(t *testing.T) (*bus.Conn, *host.Env) {
	t.Helper()
	srv := bustest.Start(t)
	identity(t, srv, people()[0])
	c, env, _ := node(t, srv, people()[0])
	describe(t, c)
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
	wait(t, "own account online", func() (bool, any) { return online(me.id.String()), false })
	if online(other.id.String()) {
		t.Error("an account that nobody announced is online")
	}
	// What another account signed, or nobody, does not make one online.
	for _, data := range [][]byte{me.announce, []byte("junk")} {
		put := &contract.DHTPut{Value: contract.DHTValue{Key: other.id.String(), Data: data}}
		if _, err := bus.Call(t.Context(), c, contract.DHTPutCmd, put); err != nil {
			t.Fatal(err)
		}
	}
	if online(other.id.String()) {
		t.Error("online by a forged announcement")
	}
}

func TestTwoNodes(t *testing.T) {
	a, b := people()[0], people()[1]
	srvA, srvB := bustest.Start(t), bustest.Start(t)
	identity(t, srvA, a)
	identity(t, srvB, b)
	ca, _, stopA := node(t, srvA, a)
	cb, _, _ := node(t, srvB, b, describe(t, ca).Addresses[0])
	wait(t, "peers", func() (bool, any) { n := describe(t, cb); return n.Peers > 0, n })
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
	ca, _, _ = node(t, srvA, a)
	wait(t, "value after a restart", func() (bool, any) {
		got, err := bus.Call(t.Context(), ca, contract.DHTGetCmd, &contract.DHTKey{Key: "room"})
		return err == nil && len(got.Values) == 1 && got.Values[0].ID == v.ID, err
	})
	if _, err := bus.Call(t.Context(), ca, contract.DHTCancelCmd, &contract.DHTCancel{Key: "room", ID: v.ID}); err != nil {
		t.Error(err)
	}
}

func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{"node.key", "permanent.json"} {
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
			c, env, _ := node(t, srv, people()[0])
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
