package iceudp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen serves a port for the time of a test.
func listen(t testing.TB, at string, o Options) *Port {
	t.Helper()
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Skip(err)
	}
	o.Loopback = true
	p := NewPort(pc.(*net.UDPConn), o)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = p.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-served })
	return p
}

func agent(t testing.TB, p *Port, controlling bool) *Agent {
	t.Helper()
	a, err := p.NewAgent(t.Context(), controlling)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// paths connects who asks with who is asked, who begin late later than the other.
func paths(t testing.TB, asks, asked *Agent, late time.Duration) (x, y *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var err1, err2 error
	wg.Go(func() { y, err2 = asked.Connect(ctx, asks.Local()) })
	wg.Go(func() {
		if late > 0 {
			time.Sleep(late) // the overlay takes as long
		}
		x, err1 = asks.Connect(ctx, asked.Local())
	})
	wg.Wait()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close(); y.Close() })
	return x, y
}

func talk(t testing.TB, x, y net.Conn, text string) {
	t.Helper()
	if _, err := x.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := y.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	n, err := y.Read(b)
	if err != nil || string(b[:n]) != text {
		t.Fatalf("%q, %v", b[:n], err)
	}
}

func TestConnect(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", ":0", "0.0.0.0:0"} {
		t.Run(at, func(t *testing.T) {
			p := listen(t, at, Options{})
			asks, asked := agent(t, listen(t, at, Options{}), false), agent(t, p, true)
			x, y := paths(t, asks, asked, 0)
			talk(t, x, y, "ClientHello")
			talk(t, y, x, "ServerHello")
			if x.LocalAddr().String() != y.RemoteAddr().String() || y.LocalAddr().String() != x.RemoteAddr().String() {
				t.Errorf("%v to %v; %v to %v", x.LocalAddr(), x.RemoteAddr(), y.LocalAddr(), y.RemoteAddr())
			}
			if y.here.(*net.UDPAddr).Port != int(p.addr().Port()) {
				t.Errorf("who is asked is at %v, not at %v", y.here, p.addr())
			}
			if x.here.(*net.UDPAddr).IP.IsUnspecified() {
				t.Errorf("an end at %v", x.here)
			}
		})
	}
}

// TestLateAnswer: who was asked tries for as long as the answer travels.
func TestLateAnswer(t *testing.T) {
	asks, asked := agent(t, listen(t, "127.0.0.1:0", Options{}), false), agent(t, listen(t, "127.0.0.1:0", Options{}), true)
	x, y := paths(t, asks, asked, 2*time.Second)
	talk(t, x, y, "late")
}

// TestFirstDatagram: what the device that asked sends as soon as it knows the path is not lost, though it
// comes together with what tells the other side.
func TestFirstDatagram(t *testing.T) {
	p, q := listen(t, "127.0.0.1:0", Options{}), listen(t, "127.0.0.1:0", Options{})
	for range 50 {
		asks, asked := agent(t, p, false), agent(t, q, true)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var wg sync.WaitGroup
		wg.Go(func() {
			x, err := asks.Connect(ctx, asked.Local())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { x.Close() })
			if _, err := x.Write([]byte("ClientHello")); err != nil {
				t.Error(err)
			}
		})
		y, err := asked.Connect(ctx, asks.Local())
		wg.Wait()
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if err := y.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, err := y.Read(b); err != nil || string(b[:n]) != "ClientHello" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		y.Close()
	}
}

// TestTwoConnectionsOfTwoNodes: both nodes have one port, and each asks the other one twice; no
// datagram of one connection comes to another.
func TestTwoConnectionsOfTwoNodes(t *testing.T) {
	p, q := listen(t, "127.0.0.1:0", Options{}), listen(t, "127.0.0.1:0", Options{})
	var ends [4][2]*Conn
	var wg sync.WaitGroup
	for i := range ends {
		from, to := p, q
		if i%2 == 1 {
			from, to = q, p
		}
		asks, asked := agent(t, from, false), agent(t, to, true)
		wg.Go(func() { ends[i][0], ends[i][1] = paths(t, asks, asked, 0) })
	}
	wg.Wait()
	for i, e := range ends {
		talk(t, e[0], e[1], fmt.Sprint("there ", i))
		talk(t, e[1], e[0], fmt.Sprint("back ", i))
	}
}

// TestPeerBehindNAT: none of the candidates that a peer tells leads to it; it is found by its checks.
func TestPeerBehindNAT(t *testing.T) {
	asks, asked := agent(t, listen(t, "127.0.0.1:0", Options{}), false), agent(t, listen(t, "127.0.0.1:0", Options{}), true)
	asks.side.Local.Candidates = []request.Candidate{{Foundation: "H", Addr: netip.MustParseAddrPort("192.0.2.1:9"), Type: request.Host}}
	x, y := paths(t, asks, asked, 0)
	talk(t, x, y, "INVITE")
	talk(t, y, x, "200")
}

func TestNoPath(t *testing.T) {
	a := agent(t, listen(t, "127.0.0.1:0", Options{}), true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := a.Connect(ctx, request.Description{Ufrag: "nobody", Pwd: "x", Candidates: []request.Candidate{{Addr: netip.MustParseAddrPort("127.0.0.1:9")}}})
	if !errors.Is(err, ErrFailed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := a.p.agent(true); err != nil {
		t.Errorf("the port is no good any more: %v", err)
	}
}

// stunServer answers with an address that is not the asker's.
func stunServer(t testing.TB, says netip.AddrPort) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: append([]byte(nil), b[:n]...)}
			if m.Decode() != nil {
				continue
			}
			out, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &stun.XORMappedAddress{IP: says.Addr().AsSlice(), Port: int(says.Port())})
			if err == nil {
				_, _ = c.WriteTo(out.Raw, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return c.LocalAddr().String()
}

func TestServerReflexive(t *testing.T) {
	seen := netip.MustParseAddrPort("192.0.2.7:31234")
	p := listen(t, "127.0.0.1:0", Options{STUN: []string{stunServer(t, seen)}, Public: []netip.Addr{netip.MustParseAddr("198.51.100.1")}})
	has := func(a *Agent, at netip.AddrPort) bool {
		for _, c := range a.Local().Candidates {
			if c.Addr == at && c.Type == request.ServerReflexive {
				return true
			}
		}
		return false
	}
	limit := time.Now().Add(10 * time.Second)
	for {
		p.mu.Lock()
		n := len(p.mapped)
		p.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("no answer")
		}
		time.Sleep(5 * time.Millisecond)
	}
	asked, asks := agent(t, p, true), agent(t, p, false)
	if !has(asked, seen) || !has(asked, netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), p.addr().Port())) {
		t.Errorf("who is asked tells %+v", asked.Local().Candidates)
	}
	if !has(asks, seen) {
		t.Errorf("who asks tells %+v", asks.Local().Candidates)
	}
	text, err := asked.side.Local.Text()
	if err != nil {
		t.Fatal(err)
	}
	if d, err := request.ParseUDP(text); err != nil || len(d.Candidates) != len(asked.Local().Candidates) {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestConsent: without an answer for half a minute the path ends; with one it stays.
func TestConsent(t *testing.T) {
	asks, asked := agent(t, listen(t, "127.0.0.1:0", Options{}), false), agent(t, listen(t, "127.0.0.1:0", Options{}), true)
	x, y := paths(t, asks, asked, 0)
	old := time.Now().Add(-consentLasts + time.Second)
	y.mu.Lock()
	y.consent = old
	y.mu.Unlock()
	y.ask()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		y.mu.Lock()
		got := y.consent.After(old)
		y.mu.Unlock()
		if got {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the peer's answer is not taken")
		}
	}
	x.Close()
	y.mu.Lock()
	y.consent = time.Now().Add(-consentLasts - time.Second)
	y.mu.Unlock()
	y.ask()
	if _, err := y.Read(make([]byte, 10)); !errors.Is(err, ErrConsent) {
		t.Errorf("%v", err)
	}
	if _, err := y.Write([]byte("x")); !errors.Is(err, ErrConsent) {
		t.Errorf("%v", err)
	}
}

func TestDeadlinesAndClosing(t *testing.T) {
	x, y := paths(t, agent(t, listen(t, "127.0.0.1:0", Options{}), false), agent(t, listen(t, "127.0.0.1:0", Options{}), true), 0)
	if err := x.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := x.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	talk(t, y, x, "still")
	if _, err := x.Write(make([]byte, maxDatagram+1)); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := y.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	y.Close()
	wg.Wait()
	if len(y.p.conns) != 0 || len(y.p.names) != 0 || len(y.p.asked) != 0 {
		t.Errorf("%d paths, %d names, %d checks stay", len(y.p.conns), len(y.p.names), len(y.p.asked))
	}
}

// TestNotRead: what nobody reads is lost above a bound.
func TestNotRead(t *testing.T) {
	c := &Conn{}
	c.more = sync.NewCond(&c.mu)
	for range 3 * maxKeptCount {
		c.put(make([]byte, 1200))
	}
	if c.size > maxKept || len(c.in) > maxKeptCount || c.size < maxKept/2 {
		t.Errorf("%d datagrams, %d bytes", len(c.in), c.size)
	}
}

func build(t testing.TB, set ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID}, set...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// TestRefusedDatagrams: each has its reason in the log.
func TestRefusedDatagrams(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(t *testing.T, a *Agent) [][]byte
		want error
	}{
		{"data", func(*testing.T, *Agent) [][]byte { return [][]byte{bytes.Repeat([]byte{22}, 200)} }, errData},
		{"a byte", func(*testing.T, *Agent) [][]byte { return [][]byte{{0}} }, errData},
		{"HTTP", func(*testing.T, *Agent) [][]byte { return [][]byte{[]byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n")} }, errData},
		{"a check for nothing", func(t *testing.T, _ *Agent) [][]byte {
			return [][]byte{build(t, stun.BindingRequest, stun.NewUsername("nobody:knows"), stun.NewShortTermIntegrity("x"))}
		}, errUnknown},
		{"a check without a user", func(t *testing.T, _ *Agent) [][]byte { return [][]byte{build(t, stun.BindingRequest)} }, ice.ErrUsername},
		{"a check with another password", func(t *testing.T, a *Agent) [][]byte {
			return [][]byte{build(t, stun.BindingRequest, stun.NewUsername(a.Local().Ufrag+":x"), stun.NewShortTermIntegrity("x"))}
		}, ice.ErrIntegrity},
		{"an answer to nothing", func(t *testing.T, _ *Agent) [][]byte { return [][]byte{build(t, stun.BindingSuccess)} }, ice.ErrAnswer},
		{"a STUN message of 4,000 bytes", func(t *testing.T, _ *Agent) [][]byte {
			return [][]byte{build(t, stun.BindingRequest, stun.RawAttribute{Type: stun.AttrData, Value: make([]byte, 4000)})}
		}, errSTUN},
		{"a STUN message with an attribute that is longer than it", func(t *testing.T, _ *Agent) [][]byte {
			b := build(t, stun.BindingRequest, stun.NewUsername("nobody:knows"))
			b[23] = 0xff
			return [][]byte{b}
		}, errSTUN},
		{"more checks than a peer needs", func(t *testing.T, a *Agent) (out [][]byte) {
			b := build(t, stun.BindingRequest, stun.NewUsername(a.Local().Ufrag+":x"), stun.NewShortTermIntegrity(a.Local().Pwd))
			for range maxInbox + 1 {
				out = append(out, b)
			}
			return out
		}, errInbox},
	} {
		t.Run(c.name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			p := listen(t, "127.0.0.1:0", Options{Log: zap.New(core)})
			a := agent(t, p, true)
			d, err := net.Dial("udp", p.conn.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, b := range c.send(t, a) {
				if _, err := d.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if all := logs.All(); len(all) > 0 {
					if got := fmt.Sprint(all[0].ContextMap()["error"]); !strings.Contains(got, c.want.Error()) {
						t.Errorf("%s, want %v", got, c.want)
					}
					return
				}
				if time.Now().After(limit) {
					t.Fatal("the log says nothing")
				}
			}
		})
	}
}

// TestFlood: datagrams without end cost no memory and few lines, and connections come about.
func TestFlood(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	p := listen(t, "127.0.0.1:0", Options{Log: zap.New(core)})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var n int
	check := build(t, stun.BindingRequest, stun.NewUsername("nobody:knows"), stun.NewShortTermIntegrity("x"))
	wg.Go(func() {
		d, err := net.Dial("udp", p.conn.LocalAddr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, _ = d.Write(check)
			n++
		}
	})
	began := time.Now()
	x, y := paths(t, agent(t, listen(t, "127.0.0.1:0", Options{}), false), agent(t, p, true), 0)
	took := time.Since(began)
	talk(t, x, y, "through")
	close(stop)
	wg.Wait()
	t.Logf("a path in %v among %d datagrams, %d lines", took, n, logs.Len())
	if logs.Len() > int(time.Since(began)/strayEvery)+2 {
		t.Errorf("%d lines", logs.Len())
	}
}

// TestRoleConflict: a peer that takes itself for controlling is told so, and gets no path.
func TestRoleConflict(t *testing.T) {
	p := listen(t, "127.0.0.1:0", Options{})
	one, two := agent(t, p, true), agent(t, listen(t, "127.0.0.1:0", Options{}), true)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := two.Connect(ctx, one.Local()); err == nil {
			t.Error("connected")
		}
	})
	if _, err := one.Connect(ctx, two.Local()); err == nil || !strings.Contains(err.Error(), "takes itself") && !errors.Is(err, ice.ErrRefused) {
		t.Error(err)
	}
	wg.Wait()
}

// FuzzTake gives a port any datagrams, from where a path leads and from elsewhere.
func FuzzTake(f *testing.F) {
	local := request.Description{Ufrag: "aaaaaaaa", Pwd: "apwdapwdapwdapwdapwdapwd"}
	peer := ice.Side{Local: request.Description{Ufrag: "bbbbbbbb", Pwd: "bpwdbpwdbpwdbpwdbpwdbpwd"}, Remote: local}
	m, err := peer.Check(true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.Raw, true)
	f.Add(build(f, stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(192, 0, 2, 1), Port: 1}), false)
	f.Add(bytes.Repeat([]byte{22, 254, 253}, 30), true)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { pc.Close() })
	at := netip.MustParseAddrPort(pc.LocalAddr().String()) // what is answered goes nowhere else
	f.Fuzz(func(t *testing.T, b []byte, known bool) {
		p := NewPort(pc.(*net.UDPConn), Options{Loopback: true})
		a := &Agent{p: p, inbox: make(chan heard, maxInbox), side: ice.Side{Controlling: true, Local: local}}
		p.names[local.Ufrag] = a
		c := &Conn{p: p, name: "cccccccc", side: &ice.Side{Local: local, Remote: peer.Local}, addr: at, consent: time.Now()}
		c.more = sync.NewCond(&c.mu)
		from := at
		if known {
			p.conns[at] = c
		} else {
			from = netip.MustParseAddrPort("127.0.0.2:1")
		}
		if m, err := message(b); m != nil && err == nil {
			p.asked[m.TransactionID] = c
		}
		err := p.take(b, from)
		if err == nil && len(c.in) > 0 && !bytes.Equal(c.in[0], b) {
			t.Errorf("%x came as %x", b, c.in[0])
		}
		s := a.side
		s.Remote = peer.Local
		x := &attempt{a: a, s: &s, asked: map[transaction]ask{}}
		for len(a.inbox) > 0 {
			if won, err := x.take(<-a.inbox); won != nil {
				t.Errorf("a path without an answer: %v", err)
			}
		}
	})
}

// TestManyCandidates: a peer that names a great many addresses has few of them written to.
func TestManyCandidates(t *testing.T) {
	d := request.Description{Ufrag: "nobody", Pwd: "x"}
	for i := range byte(100) {
		d.Candidates = append(d.Candidates, request.Candidate{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, i + 1}), 9), Priority: uint32(i)})
	}
	a := agent(t, listen(t, "127.0.0.1:0", Options{}), true)
	s := a.side
	x := &attempt{a: a, s: &s, asked: map[transaction]ask{}}
	x.offered(d.Candidates)
	if len(x.pairs) != maxOffered {
		t.Errorf("%d addresses are written to", len(x.pairs))
	}
	// Each has its turn, and then not at once another one.
	now := time.Now()
	for range 10 * maxOffered {
		if err := x.check(now); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range x.pairs {
		if p.checks != 1 {
			t.Errorf("%d checks at once to %v", p.checks, p.addr)
		}
	}
}
