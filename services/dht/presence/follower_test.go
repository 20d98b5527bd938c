package presence

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// fakeOverlay holds values and tells listeners at once, as the real ones do: not of a value
// that was refreshed, and of the end of one when it has expired.
type fakeOverlay struct {
	mu        sync.Mutex
	peers     int
	gets      int
	refuse    error
	values    map[overlay.Key][]*stored
	listeners map[overlay.Key]map[int]func(overlay.Change)
	next      int
}

type stored struct {
	v     overlay.Value
	timer *time.Timer
}

func newOverlay() *fakeOverlay {
	return &fakeOverlay{peers: 1, values: map[overlay.Key][]*stored{}, listeners: map[overlay.Key]map[int]func(overlay.Change){}}
}

func (o *fakeOverlay) Node() overlay.Node {
	o.mu.Lock()
	defer o.mu.Unlock()
	return overlay.Node{Peers: o.peers}
}

func (o *fakeOverlay) Get(_ context.Context, key overlay.Key) ([]overlay.Value, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gets++
	return o.atLocked(key), o.refuse
}

func (o *fakeOverlay) atLocked(key overlay.Key) (out []overlay.Value) {
	for _, s := range o.values[key] {
		out = append(out, s.v)
	}
	return out
}

func (o *fakeOverlay) Listen(_ context.Context, key overlay.Key, fn func(overlay.Change)) ([]overlay.Value, func(), error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuse != nil {
		return nil, nil, o.refuse
	}
	if o.listeners[key] == nil {
		o.listeners[key] = map[int]func(overlay.Change){}
	}
	n := o.next
	o.next++
	o.listeners[key][n] = fn
	return o.atLocked(key), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.listeners[key], n)
	}, nil
}

func (o *fakeOverlay) listening() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.listeners {
		n += len(l)
	}
	return n
}

func (o *fakeOverlay) change(c overlay.Change) {
	o.mu.Lock()
	var fns []func(overlay.Change)
	for _, fn := range o.listeners[c.Value.Key] {
		fns = append(fns, fn)
	}
	o.mu.Unlock()
	for _, fn := range fns {
		fn(c)
	}
}

// put stores a value, or refreshes it where it is there.
func (o *fakeOverlay) put(v overlay.Value) {
	life := overlay.Lifetime(v.Type)
	o.mu.Lock()
	for _, s := range o.values[v.Key] {
		if s.v.ID == v.ID {
			s.timer.Reset(life)
			o.mu.Unlock()
			return
		}
	}
	o.values[v.Key] = append(o.values[v.Key], &stored{v, time.AfterFunc(life, func() { o.drop(v) })})
	o.mu.Unlock()
	o.change(overlay.Change{Value: v})
}

func (o *fakeOverlay) drop(v overlay.Value) {
	if o.remove(v) {
		o.change(overlay.Change{Value: v, Expired: true})
	}
}

// remove takes a value away of which listeners are not told.
func (o *fakeOverlay) remove(v overlay.Value) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.values[v.Key], func(s *stored) bool { return s.v.ID == v.ID })
	if i < 0 {
		return false
	}
	o.values[v.Key][i].timer.Stop()
	o.values[v.Key] = slices.Delete(o.values[v.Key], i, i+1)
	return true
}

// gate is an account's judge.
type gate struct {
	mu      sync.Mutex
	refuse  error
	watches map[int]func(error)
	next    int
}

func (g *gate) Watch(_ *trust.Chain, fn func(error)) (func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuse != nil {
		return nil, g.refuse
	}
	if g.watches == nil {
		g.watches = map[int]func(error){}
	}
	n := g.next
	g.next++
	g.watches[n] = fn
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watches, n)
	}, nil
}

func (g *gate) bar(err error) {
	g.mu.Lock()
	g.refuse = err
	fns := g.watches
	g.watches = nil
	g.mu.Unlock()
	for _, fn := range fns {
		fn(err)
	}
}

// someone is an account with two devices.
type someone struct {
	id       jami.ID
	key      *rsa.PrivateKey
	account  *x509.Certificate
	devices  [2]overlay.Value // their certificates, at their ids
	certs    [2]*x509.Certificate
	announce [2][]byte
}

var people = sync.OnceValue(func() [2]*someone {
	var out [2]*someone
	for i := range out {
		key := func() *rsa.PrivateKey {
			k, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			return k
		}
		must := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		top, acc := key(), key()
		at := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC) // before the clock of a bubble begins
		ca, err := jami.NewCA(top, at)
		must(err)
		cert, err := jami.NewAccount(&acc.PublicKey, ca, top, at)
		must(err)
		p := &someone{key: acc, account: cert}
		for j := range p.devices {
			k := key()
			dev, err := jami.NewDevice(&k.PublicKey, cert, acc, at)
			must(err)
			short, _ := jami.CertIDs(dev)
			pem, err := jami.PackBin(jami.MarshalChain(dev, cert, ca))
			must(err)
			p.certs[j] = dev
			p.devices[j] = overlay.Value{Key: overlay.Key(short), ID: 1, Type: 8, Data: pem}
			r, err := jami.NewReceipt(acc, k.Public(), "")
			must(err)
			p.id = r.Account
			p.announce[j], err = r.Announcement.Pack()
			must(err)
		}
		out[i] = p
	}
	return out
})

// announcement of one of the devices, under an id.
func (p *someone) announcement(device int, id uint64) overlay.Value {
	return overlay.Value{Key: overlay.Key(p.id), ID: id, Data: p.announce[device]}
}

func (p *someone) list(t *testing.T, id uint64, certs ...*x509.Certificate) overlay.Value {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: p.account.NotAfter, SignatureAlgorithm: x509.SHA512WithRSA}
	for _, c := range certs {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, p.account, p.key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := jami.PackBin(der)
	if err != nil {
		t.Fatal(err)
	}
	return overlay.Value{Key: overlay.Key(p.id), ID: id, Data: data}
}

// ear notes what a follower tells.
type ear struct {
	mu   sync.Mutex
	said []State
}

func (e *ear) tell(_ string, s State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.said = append(e.said, s)
}

// heard returns what was told since the last time.
func (e *ear) heard() (out []bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.said {
		out = append(out, s.Online)
	}
	e.said = nil
	return out
}

// play runs a scene in which the clock of the test is the scene's alone.
func play(t *testing.T, scene func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone)) {
	t.Helper()
	p := people()[0]
	synctest.Test(t, func(t *testing.T) {
		o, e := newOverlay(), new(ear)
		f := NewFollower(o, zap.NewNop(), e.tell)
		defer func() {
			f.Close()
			if n := o.listening(); n != 0 {
				t.Errorf("%d listeners are left", n)
			}
		}()
		for _, v := range p.devices {
			o.put(v)
		}
		scene(t, o, f, e, p)
	})
}

// pass lets time go by; a second is enough for what is to be told at once.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const account = "main"

func want(t *testing.T, e *ear, what string, states ...bool) {
	t.Helper()
	if got := e.heard(); !slices.Equal(got, states) {
		t.Errorf("%s: told %v, not %v", what, got, states)
	}
}

func TestWhoComesAndGoes(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		f.Set(account, new(gate), []jami.ID{p.id, people()[1].id})
		pass(time.Second)
		want(t, e, "nobody is there", false, false)
		first := p.announcement(0, 7)
		o.put(first)
		pass(time.Second)
		want(t, e, "it comes", true)
		if s := f.Of(account); len(s) != 2 {
			t.Errorf("%+v", s)
		}
		for range 20 { // refreshed for an hour and more
			pass(4 * time.Minute)
			o.put(first)
		}
		want(t, e, "refreshed")
		// It starts anew: another id, while the old one is still there, or just after it ended.
		second := p.announcement(0, 8)
		o.put(second)
		pass(time.Minute)
		o.drop(first)
		pass(time.Minute)
		o.drop(second)
		o.put(first)
		pass(time.Minute)
		want(t, e, "announced anew")
		o.put(p.announcement(1, 9))
		pass(time.Minute)
		o.drop(first)
		pass(time.Minute)
		want(t, e, "another device is there")
		pass(8*time.Minute - time.Second)
		want(t, e, "just before it expires")
		pass(2 * time.Second)
		want(t, e, "expired", false)
		o.put(first)
		pass(time.Minute)
		want(t, e, "it comes again", true)
		o.drop(first)
		pass(time.Second)
		want(t, e, "withdrawn", false)
	})
}

// What the listener was told is gone, and is there all the same, as where two overlays are
// followed as one, or one of its copies ended.
func TestSearchedOnceMore(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		f.Set(account, new(gate), []jami.ID{p.id})
		v := p.announcement(0, 7)
		o.put(v)
		pass(time.Second)
		want(t, e, "there", true)
		o.change(overlay.Change{Value: v, Expired: true})
		pass(5 * time.Minute)
		want(t, e, "it is still there")
		o.remove(v)
		pass(time.Minute)
		want(t, e, "gone, which no listener is told", false)
	})
}

func TestNotBelieved(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		g := new(gate)
		f.Set(account, g, []jami.ID{p.id})
		pass(time.Second)
		want(t, e, "at first", false)
		other := people()[1]
		o.put(overlay.Value{Key: overlay.Key(p.id), ID: 1, Data: other.announce[0]}) // another account's
		o.put(overlay.Value{Key: overlay.Key(p.id), ID: 2, Data: []byte("junk")})
		pass(time.Minute)
		want(t, e, "what the account did not sign")
		o.remove(p.devices[1])
		o.put(p.announcement(1, 3))
		pass(time.Minute)
		want(t, e, "without a certificate")
		o.put(p.devices[1])
		pass(retryMost)
		want(t, e, "the certificate comes later", true)
		o.put(other.list(t, 4, p.certs[1]))
		pass(time.Minute)
		want(t, e, "another account's list")
		o.put(p.list(t, 5, p.certs[1]))
		pass(time.Second)
		want(t, e, "revoked", false)
		o.put(p.announcement(0, 6))
		pass(3 * time.Second)
		want(t, e, "its other device", true)
		g.bar(errors.New("banned"))
		pass(3 * time.Second)
		want(t, e, "banned", false)
	})
}

// A list that was there before the device is announced counts too.
func TestRevokedBefore(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		o.put(p.list(t, 1, p.certs[0]))
		o.put(p.announcement(0, 2))
		f.Set(account, new(gate), []jami.ID{p.id})
		pass(time.Minute)
		want(t, e, "revoked", false)
	})
}

// Who comes and goes without end is told of at most every two seconds, and what nobody signed costs
// no search.
func TestStorm(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		f.Set(account, new(gate), []jami.ID{p.id})
		pass(time.Second)
		for i := range 600 {
			v := p.announcement(0, uint64(i+1))
			o.put(v)
			pass(50 * time.Millisecond)
			o.drop(v)
			pass(50 * time.Millisecond)
		}
		if n := len(e.heard()); n > 31 {
			t.Errorf("%d changes in a minute", n)
		}
		pass(time.Minute)
		e.heard()
		before := o.gets
		for i := range 1_000 {
			o.put(overlay.Value{Key: overlay.Key(p.id), ID: uint64(i + 1000), Data: []byte("junk")})
		}
		pass(time.Minute)
		if n := o.gets - before; n != 0 {
			t.Errorf("%d searches for values of no use", n)
		}
		want(t, e, "junk")
	})
}

// A node that has just started and knows nobody yet says of nobody that he is offline.
func TestNoPeersYet(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		o.mu.Lock()
		o.peers, o.refuse = 0, errors.New("not yet")
		o.mu.Unlock()
		f.Set(account, new(gate), []jami.ID{p.id})
		pass(10 * time.Second)
		o.mu.Lock()
		o.refuse = nil
		o.mu.Unlock()
		pass(10 * time.Second)
		want(t, e, "without peers")
		if s := f.Of(account); len(s) != 0 {
			t.Errorf("%+v", s)
		}
		o.put(p.announcement(0, 1))
		pass(5 * time.Second)
		want(t, e, "there", true)
	})
}

func TestFollowedNoMore(t *testing.T) {
	play(t, func(t *testing.T, o *fakeOverlay, f *Follower, e *ear, p *someone) {
		g := new(gate)
		f.Set(account, g, []jami.ID{p.id})
		o.put(p.announcement(0, 1))
		pass(time.Second)
		want(t, e, "there", true)
		f.Set(account, g, nil)
		pass(time.Second)
		if n, s := o.listening(), f.Of(account); n != 0 || len(s) != 0 {
			t.Errorf("%d listeners, %+v", n, s)
		}
		g.mu.Lock()
		if len(g.watches) != 0 {
			t.Errorf("%d watches are left", len(g.watches))
		}
		g.mu.Unlock()
		f.Set("another", g, []jami.ID{p.id})
		pass(time.Second)
		want(t, e, "for another account", true)
	})
}
