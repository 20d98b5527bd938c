package device

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
	"github.com/parley-jami/parley/services/connect/device/icetcp"
	"github.com/parley-jami/parley/services/connect/device/iceudp"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/device/request"
	"github.com/parley-jami/parley/services/connect/device/secure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judge is a gate that a test plays.
type judge struct {
	mu      sync.Mutex
	barred  map[jami.ID]error // devices
	watches map[*watch]struct{}
}

type watch struct {
	c  *trust.Chain
	fn func(error)
}

func newJudge() *judge { return &judge{barred: map[jami.ID]error{}, watches: map[*watch]struct{}{}} }

func (j *judge) Check(certs []*x509.Certificate) (*trust.Chain, error) {
	c, err := new(trust.Rules).Check(certs)
	if err != nil {
		return nil, err
	}
	return c, j.Allowed(c)
}

func (j *judge) Allowed(c *trust.Chain) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.barred[c.DeviceShort]
}

func (j *judge) Watch(c *trust.Chain, fn func(error)) (func(), error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.barred[c.DeviceShort]; err != nil {
		return nil, err
	}
	w := &watch{c, fn}
	j.watches[w] = struct{}{}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.watches, w)
	}, nil
}

func (j *judge) bar(device jami.ID, why error) {
	j.mu.Lock()
	j.barred[device] = why
	var tell []*watch
	for w := range j.watches {
		if w.c.DeviceShort == device {
			tell = append(tell, w)
		}
	}
	j.mu.Unlock()
	for _, w := range tell {
		w.fn(why)
	}
}

// overlay carries messages between the nodes of a test, which may change or lose them.
type overlay struct {
	mu    sync.Mutex
	nodes map[jami.ID]*node // by device
	meet  func(from, to *node, message []byte) []byte
	lies  func(message []byte) // nil, or told of what is sent to a device without a node
	sent  int
	log   *zap.Logger // of its nodes; nil: none

	tcpOnly bool // nodes that are made have no UDP
	noTCP   bool // TCP gets nowhere between them
}

// node is a manager with one account.
type node struct {
	*Manager
	dev      *devicetest.Device
	judge    *judge
	o        *overlay
	observed chan Observation
	taken    chan channel.Channel
	addr     string // of its port
	udp      string // the same, by UDP
}

// Send implements Overlay.
func (n *node) Send(_ context.Context, account jami.ID, peer *trust.Chain, message []byte) error {
	if account != n.dev.Chain.JamiID {
		return errors.New("another account's")
	}
	n.o.mu.Lock()
	n.o.sent++
	to, meet := n.o.nodes[peer.DeviceShort], n.o.meet
	n.o.mu.Unlock()
	if to == nil {
		if n.o.lies != nil { // else it lies there, and nobody listens
			n.o.lies(message)
		}
		return nil
	}
	if n.o.noTCP {
		message = withoutTCP(message)
	}
	if meet != nil {
		if message = meet(n, to, message); message == nil {
			return nil
		}
	}
	to.Receive(to.dev.Chain.JamiID, n.dev.Chain, message)
	return nil
}

// withoutTCP is a message whose addresses by TCP lead nowhere.
func withoutTCP(b []byte) []byte {
	m, err := request.Parse(b)
	if err != nil {
		return b
	}
	m.ICE.Candidates = nil
	if out, err := m.Pack(); err == nil {
		return out
	}
	return b
}

// Accept implements channel.Handler.
func (n *node) Accept(account jami.ID, c channel.Channel) error {
	if account != n.dev.Chain.JamiID {
		return errors.New("for another account")
	}
	n.taken <- c
	return nil
}

func (o *overlay) node(t testing.TB, dev *devicetest.Device) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	treated, err := OpenTreated(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{dev: dev, judge: newJudge(), o: o, addr: ln.Addr().String(), observed: make(chan Observation, 4096), taken: make(chan channel.Channel, 4096)}
	log := cmp.Or(o.log, zap.NewNop())
	l := icetcp.NewListener(ln, icetcp.Options{Loopback: true, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = l.Serve(ctx) }()
	var udp *iceudp.Port
	if !o.tcpOnly {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.udp = pc.LocalAddr().String()
		udp = iceudp.NewPort(pc.(*net.UDPConn), iceudp.Options{Loopback: true, Log: log})
	}
	udpServed := make(chan struct{})
	go func() {
		defer close(udpServed)
		if udp != nil {
			_ = udp.Serve(ctx)
		}
	}()
	n.Manager = New(Config{Listener: l, UDP: udp, Overlay: n, Treated: treated, Handlers: map[string]channel.Handler{"sip": n}, Log: log,
		Observe: func(o Observation) { n.observed <- o }})
	n.Add(n.asAccount())
	t.Cleanup(func() {
		n.Close()
		cancel()
		<-served
		<-udpServed
		if err := treated.Close(); err != nil {
			t.Error(err)
		}
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nodes[dev.Chain.DeviceShort] = n
	return n
}

func (n *node) asAccount() Account {
	return Account{ID: n.dev.Chain.JamiID, Own: secure.Own{Chain: n.dev.Chain, Key: n.dev.Key}, Judge: n.judge}
}

func world(t testing.TB) (o *overlay, alice, bob *node) {
	t.Helper()
	o = &overlay{nodes: map[jami.ID]*node{}}
	alice = o.node(t, devicetest.NewAccount(t).Device(t))
	bob = o.node(t, devicetest.NewAccount(t).Device(t))
	return o, alice, bob
}

func dialTo(t testing.TB, from, to *node, name string) (channel.Channel, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return from.Dial(ctx, from.dev.Chain.JamiID, to.dev.Chain, name, "audioCall")
}

func mustDial(t testing.TB, from, to *node) (ours, theirs channel.Channel) {
	t.Helper()
	c, err := dialTo(t, from, to, "sip")
	if err != nil {
		t.Fatal(err)
	}
	return c, <-to.taken
}

func talk(t testing.TB, from, to channel.Channel, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if b, err := to.ReadMessage(); err != nil || string(b) != text {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestDial(t *testing.T) {
	o, alice, bob := world(t)
	a, b := mustDial(t, alice, bob)
	talk(t, a, b, "INVITE")
	talk(t, b, a, "200")
	if p := b.Peer(); p.Account != alice.dev.Chain.JamiID || p.Device != alice.dev.Chain.DeviceShort || p.DeviceLong != alice.dev.Chain.DeviceID.String() {
		t.Errorf("bob sees %+v", p)
	}
	if p := b.Peer(); p.Over != "tcp" || p.TLS != "TLS 1.3" || p.Suite == "" {
		t.Errorf("a session of %q, %q", p.TLS, p.Suite)
	}
	if p := a.Peer(); p.Account != bob.dev.Chain.JamiID {
		t.Errorf("alice sees %+v", p)
	}
	if _, ok := a.LocalAddr().(*net.TCPAddr); !ok || a.LocalAddr().String() != b.RemoteAddr().String() {
		t.Errorf("%v, %v", a.LocalAddr(), b.RemoteAddr())
	}
	if ob := <-bob.observed; ob.Outcome != Connected || ob.Err != nil {
		t.Errorf("%+v", ob)
	}
	// Both ways, the connection is used again.
	c, d := mustDial(t, bob, alice)
	talk(t, c, d, "back")
	if _, err := dialTo(t, alice, bob, "git://x/y"); !errors.Is(err, mux.ErrDeclined) {
		t.Errorf("a channel that nobody takes: %v", err)
	}
	if o.sent != 2 || alice.Links() != 1 || bob.Links() != 1 {
		t.Errorf("%d messages, %d and %d connections", o.sent, alice.Links(), bob.Links())
	}
}

func TestManyDialAtOnce(t *testing.T) {
	o, alice, bob := world(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := dialTo(t, alice, bob, "sip"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if o.sent != 2 || bob.Links() != 1 {
		t.Errorf("%d messages, %d connections", o.sent, bob.Links())
	}
}

// TestBothAskAtOnce: two connections come of it, and both can be used.
func TestBothAskAtOnce(t *testing.T) {
	o, alice, bob := world(t)
	var both sync.WaitGroup
	both.Add(2)
	o.meet = func(_, _ *node, b []byte) []byte {
		if m, err := request.Parse(b); err == nil && !m.Answer {
			both.Done()
			both.Wait()
		}
		return b
	}
	var wg sync.WaitGroup
	var ends [2][2]channel.Channel
	for i, x := range [][2]*node{{alice, bob}, {bob, alice}} {
		wg.Go(func() { ends[i][0], ends[i][1] = mustDial(t, x[0], x[1]) })
	}
	wg.Wait()
	talk(t, ends[0][0], ends[0][1], "one")
	talk(t, ends[1][0], ends[1][1], "two")
}

func TestRevokedWhileConnected(t *testing.T) {
	_, alice, bob := world(t)
	a, b := mustDial(t, alice, bob)
	began := time.Now()
	bob.judge.bar(alice.dev.Chain.DeviceShort, &trust.Error{Reason: trust.Revoked})
	for name, c := range map[string]channel.Channel{"the revoked": a, "the node": b} {
		if _, err := c.ReadMessage(); err == nil {
			t.Errorf("%s goes on", name)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("closed after %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := alice.Dial(ctx, alice.dev.Chain.JamiID, bob.dev.Chain, "sip", ""); err == nil {
		t.Error("connected again")
	}
	<-bob.observed
	if ob := <-bob.observed; ob.Outcome != Refused || !errors.Is(ob.Err, &trust.Error{Reason: trust.Revoked}) {
		t.Errorf("%+v", ob)
	}
}

func TestRemovedAccount(t *testing.T) {
	_, alice, bob := world(t)
	a, _ := mustDial(t, alice, bob)
	bob.Remove(bob.dev.Chain.JamiID)
	if _, err := a.ReadMessage(); err == nil {
		t.Error("the connection goes on")
	}
	if _, err := bob.Dial(t.Context(), bob.dev.Chain.JamiID, alice.dev.Chain, "sip", ""); !errors.Is(err, ErrNoAccount) {
		t.Error(err)
	}
}

func TestReconnects(t *testing.T) {
	_, alice, bob := world(t)
	a, _ := mustDial(t, alice, bob)
	alice.live(linkKey{alice.dev.Chain.JamiID, bob.dev.Chain.DeviceID}).sock.Close()
	if _, err := a.ReadMessage(); err == nil {
		t.Fatal("not closed")
	}
	mustDial(t, alice, bob)
}

// TestBackOff: a device that can't be reached is asked ever more rarely.
func TestBackOff(t *testing.T) {
	o, alice, bob := world(t)
	failed := errors.New("the overlay is away")
	alice.cfg.Overlay = sends(func() error { o.mu.Lock(); defer o.mu.Unlock(); o.sent++; return failed })
	began := time.Now()
	for range 2 {
		if _, err := dialTo(t, alice, bob, "sip"); !errors.Is(err, failed) {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < againFirst/2 || o.sent != 2 {
		t.Errorf("asked %d times in %v", o.sent, took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := alice.Dial(ctx, alice.dev.Chain.JamiID, bob.dev.Chain, "sip", ""); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, failed) || o.sent != 2 {
		t.Errorf("%v; asked %d times", err, o.sent)
	}
}

type sends func() error

func (s sends) Send(context.Context, jami.ID, *trust.Chain, []byte) error { return s() }

// message is a request of alice's that nobody answers to.
func message(t testing.TB, id uint64, answer bool) []byte {
	t.Helper()
	d := request.Description{Ufrag: "ufragufr", Pwd: "pwdpwdpwdpwdpwdpwdpwdpwd"}
	b, err := (&request.Message{ID: id, Answer: answer, ICE: d}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRequestsThatAreRefused: each with its own reason, and none is answered.
func TestRequestsThatAreRefused(t *testing.T) {
	o, alice, bob := world(t)
	stranger := errors.New("contacts alone")
	for _, c := range []struct {
		name    string
		want    Outcome
		before  func(m *node)
		message []byte
		account jami.ID
		from    *trust.Chain
	}{
		{name: "garbage", want: Malformed, message: []byte("garbage")},
		{name: "oversized", want: Malformed, message: make([]byte, request.MaxSize+1)},
		{name: "no credentials", want: Malformed, message: []byte("\x82\xa2id\x01\xa7ice_msg\xa0")},
		{name: "an answer to nothing", want: Unasked, message: message(t, 1, true)},
		{name: "an account that is not here", want: NoAccount, message: message(t, 2, false), account: alice.dev.Chain.JamiID},
		{name: "a banned device", want: Refused, message: message(t, 3, false), before: func(n *node) { n.judge.bar(alice.dev.Chain.DeviceShort, &trust.Error{Reason: "banned"}) }},
		{name: "a stranger where contacts alone may call", want: Stranger, message: message(t, 4, false), before: func(n *node) {
			a := n.asAccount()
			a.Welcome = func(context.Context, *trust.Chain) error { return stranger }
			n.Add(a)
		}},
		{name: "the node's own device", want: Refused, message: message(t, 5, false), from: bob.dev.Chain},
		{name: "a repetition", want: Repeated, message: message(t, 6, false), before: func(n *node) {
			if fresh, err := n.cfg.Treated.Take(n.dev.Chain.JamiID, alice.dev.Chain.DeviceShort, 6); !fresh || err != nil {
				t.Fatal(fresh, err)
			}
		}},
		{name: "one too many of a device", want: TooOften, message: message(t, 7, false), before: func(n *node) {
			for n.rate.Take(alice.dev.Chain.DeviceShort, time.Now()) == 0 {
			}
		}},
		{name: "one too many of all", want: TooOften, message: message(t, 8, false), before: func(n *node) {
			for n.all.Take(struct{}{}, time.Now()) == 0 {
			}
		}},
		{name: "one too many at once", want: Busy, message: message(t, 9, false), before: func(n *node) {
			for range maxSetupsEach {
				n.setup(alice.dev.Chain.JamiID)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := o.node(t, bob.dev)
			if c.before != nil {
				c.before(n)
			}
			account, from := n.dev.Chain.JamiID, alice.dev.Chain
			if !c.account.IsZero() {
				account = c.account
			}
			if c.from != nil {
				from = c.from
			}
			n.Receive(account, from, c.message)
			if ob := <-n.observed; ob.Outcome != c.want || ob.Err == nil {
				t.Errorf("%+v, want %s", ob, c.want)
			}
			if o.sent != 0 {
				t.Error("it was answered")
			}
		})
	}
}

// TestWhoAnswersForAnother: an answer counts of the device alone that was asked.
func TestWhoAnswersForAnother(t *testing.T) {
	o, alice, bob := world(t)
	mallory := o.node(t, devicetest.NewAccount(t).Device(t))
	o.meet = func(from, to *node, b []byte) []byte {
		if from == bob {
			to.Receive(to.dev.Chain.JamiID, mallory.dev.Chain, b)
			return nil
		}
		return b
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := alice.Dial(ctx, alice.dev.Chain.JamiID, bob.dev.Chain, "sip", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if ob := <-alice.observed; ob.Outcome != Unasked || ob.Device != mallory.dev.Chain.DeviceShort {
		t.Errorf("%+v", ob)
	}
}

// TestAnotherDeviceAtThePort: who learns of a request and takes the place of the device that
// was asked gets no session.
func TestAnotherDeviceAtThePort(t *testing.T) {
	for _, c := range []struct {
		name string
		key  func(alice, bob, other *devicetest.Device) secure.Own
		want error
	}{
		{"another device's certificates", func(_, _, other *devicetest.Device) secure.Own { return secure.Own{Chain: other.Chain, Key: other.Key} }, secure.ErrOtherDevice},
		{"the device's own, and another key", func(_, bob, other *devicetest.Device) secure.Own {
			return secure.Own{Chain: bob.Chain, Key: other.Key}
		}, secure.ErrHandshake},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, alice, bob := world(t)
			other := bob.dev.Account.Device(t)
			a := bob.asAccount()
			a.Own = c.key(alice.dev, bob.dev, other)
			bob.Add(a)
			if _, err := dialTo(t, alice, bob, "sip"); !errors.Is(err, c.want) {
				t.Errorf("who asked: %v, want %v", err, c.want)
			}
		})
	}
}

func TestRequestsAreRememberedOverARestart(t *testing.T) {
	dir := t.TempDir()
	open := func() *Treated {
		x, err := OpenTreated(dir)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	take := func(x *Treated, id uint64, want bool) {
		t.Helper()
		fresh, err := x.Take(jami.ID{1}, jami.ID{2}, id)
		if err != nil || fresh != want {
			t.Fatalf("%d: %v, %v", id, fresh, err)
		}
	}
	x := open()
	for id := range uint64(perGeneration + 10) {
		take(x, id+1, true)
	}
	take(x, 1, false)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open()
	take(x, 1, false)
	take(x, perGeneration+10, false)
	if fresh, _ := x.Take(jami.ID{1}, jami.ID{3}, 1); !fresh {
		t.Error("another device's id counts for this one")
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	_, alice, bob := world(t)
	a, _ := mustDial(t, alice, bob)
	alice.tidy(time.Now().Add(2 * idleTime))
	if alice.Links() != 1 {
		t.Fatal("closed with a channel")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	s := alice.live(linkKey{alice.dev.Chain.JamiID, bob.dev.Chain.DeviceID}).sock
	alice.tidy(time.Now().Add(2 * idleTime))
	<-s.Done()
}

func TestTooManyOfADevice(t *testing.T) {
	o, alice, bob := world(t)
	var first channel.Channel
	for i := range maxLinksDevice + 1 {
		twin := o.node(t, alice.dev) // the same device, with a connection of its own
		c, _ := mustDial(t, twin, bob)
		if i == 0 {
			first = c
		}
	}
	if _, err := first.ReadMessage(); err == nil {
		t.Error("the oldest stays")
	}
}

func TestCloseEndsAll(t *testing.T) {
	_, alice, bob := world(t)
	a, b := mustDial(t, alice, bob)
	alice.Close()
	for _, c := range []channel.Channel{a, b} {
		if _, err := c.ReadMessage(); err == nil || errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	}
	if _, err := dialTo(t, alice, bob, "sip"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestOpenOnWhatIsThere: who is connected is known by account, and a channel to it needs no
// new connection.
func TestOpenOnWhatIsThere(t *testing.T) {
	_, alice, bob := world(t)
	if got := alice.Connected(alice.dev.Chain.JamiID, bob.dev.Chain.JamiID); len(got) != 0 {
		t.Errorf("connected before: %+v", got)
	}
	if _, err := alice.OpenOn(t.Context(), alice.dev.Chain.JamiID, bob.dev.Chain.DeviceID, "sip"); !errors.Is(err, ErrNoLink) {
		t.Errorf("without a connection: %v", err)
	}
	mustDial(t, alice, bob)
	got := alice.Connected(alice.dev.Chain.JamiID, bob.dev.Chain.JamiID)
	if len(got) != 1 || got[0].DeviceLong != bob.dev.Chain.DeviceID.String() || got[0].Device != bob.dev.Chain.DeviceShort {
		t.Fatalf("%+v", got)
	}
	if got := alice.Connected(bob.dev.Chain.JamiID, bob.dev.Chain.JamiID); len(got) != 0 {
		t.Errorf("another account's: %+v", got)
	}
	if c, err := alice.OpenOn(t.Context(), alice.dev.Chain.JamiID, bob.dev.Chain.DeviceID, "sip"); err != nil || c.Name() != "sip" {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := alice.OpenOn(t.Context(), alice.dev.Chain.JamiID, bob.dev.Chain.DeviceID, "other"); !errors.Is(err, mux.ErrDeclined) {
		t.Errorf("a channel that is not taken: %v", err)
	}
}
