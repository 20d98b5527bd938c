package sip

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

// flood is a UDP socket on which every datagram comes from somewhere else.
type flood struct {
	n, of  int
	answer atomic.Int64
	closed chan struct{}
	sent   chan struct{} // closed when all were read
}

func (f *flood) ReadFrom(b []byte) (int, net.Addr, error) {
	if f.n == f.of {
		f.n++
		close(f.sent)
	}
	if f.n > f.of {
		<-f.closed
		return 0, nil, net.ErrClosed
	}
	i := f.n
	f.n++
	from := &net.UDPAddr{IP: net.IPv4(198, byte(i>>16), byte(i>>8), byte(i)), Port: 5060}
	m := fmt.Sprintf("OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%d;rport\r\nFrom: <sip:a@x>;tag=f\r\n"+
		"To: <sip:b@x>\r\nCall-ID: %d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", from, i, i)
	return copy(b, m), from, nil
}

func (f *flood) WriteTo(b []byte, _ net.Addr) (int, error) { f.answer.Add(1); return len(b), nil }
func (f *flood) Close() error                              { close(f.closed); return nil }
func (f *flood) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5060}
}
func (f *flood) SetDeadline(time.Time) error      { return nil }
func (f *flood) SetReadDeadline(time.Time) error  { return nil }
func (f *flood) SetWriteDeadline(time.Time) error { return nil }

// heap is what is in use after a collection.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// 200,000 sources of proper requests cost neither memory for each nor an answer
// for each: with the bounds on the rate and, should those be wide, without.
func TestManySources(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	for name, wide := range map[string]bool{"as it is": false, "without a bound on the rate": true} {
		t.Run(name, func(t *testing.T) {
			const maxGrown = 24 << 20
			sources := 200_000
			if wide {
				sources = 4 * maxPeers
			}
			f := &flood{of: sources, closed: make(chan struct{}), sent: make(chan struct{})}
			s, err := New(Config{UDP: f, Dir: t.TempDir(), Rooms: newRooms(), Code: code, Log: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			if wide {
				s.gate.all = newBuckets(1e9, 1e9, time.Now)
			}
			before, began := heap(), time.Now()
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			<-f.sent
			// The rounds before the last end by themselves: sooner on an idle machine.
			held := func() (peers, grown int) { return s.ua.TransportLayer().Pool("udp").Size(), heap() - before }
			peers, grown := held()
			for end := began.Add(time.Minute); (peers > 2*maxPeers || grown > maxGrown) && time.Now().Before(end); peers, grown = held() {
				time.Sleep(100 * time.Millisecond)
			}
			t.Logf("%d answers, %d sources remembered, %d KiB", f.answer.Load(), peers, grown>>10)
			if peers > 2*maxPeers || grown > maxGrown {
				t.Errorf("%d sources remembered, %d KiB", peers, grown>>10)
			}
			if n := strangersBurst + int64(time.Since(began).Seconds()*strangersPerSec); !wide && f.answer.Load() > n {
				t.Errorf("%d answers, %d are allowed", f.answer.Load(), n)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Who has a call is heard while strangers send more than is taken.
func TestCallersAreHeardInAFlood(t *testing.T) {
	caller := netip.MustParseAddr("192.0.2.1")
	now := time.Unix(1000, 0) // it stands: a busy machine refills nothing meanwhile
	g := newGate(func(ip netip.Addr) bool { return ip == caller }, func() time.Time { return now }, zap.NewNop())
	m := []byte("BYE sip:x SIP/2.0\r\n")
	for i := range 2 * strangersBurst {
		g.admit(m, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 5060))
	}
	if g.admit(m, netip.MustParseAddrPort("203.0.113.1:5060")) {
		t.Error("the flood was let in")
	}
	if !g.admit(m, netip.AddrPortFrom(caller, 5060)) {
		t.Error("the caller was not heard")
	}
	for range 2 * messagesBurst {
		g.admit(m, netip.AddrPortFrom(caller, 5060))
	}
	if g.admit(m, netip.AddrPortFrom(caller, 5060)) {
		t.Error("a caller may flood")
	}
}

func TestBucketsForget(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBuckets(1, 2, func() time.Time { return now })
	for i := range 3 * maxSources {
		if !b.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1) {
			t.Fatalf("source %d was refused because of others", i)
		}
	}
	if len(b.m) > maxSources {
		t.Errorf("%d sources remembered", len(b.m))
	}
}

func TestCounter(t *testing.T) {
	c := newCounter(2, 3)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	take := func(ip netip.Addr, want bool) {
		t.Helper()
		if c.take(ip) != want {
			t.Errorf("taken: %v", !want)
		}
	}
	take(a, true)
	take(a, true)
	take(a, false) // an address has two
	take(b, true)
	take(b, false) // all have three
	c.free(a)
	take(b, true)
}

// streams is a server with short times on TCP and TLS.
func streams(t *testing.T) (s *Server, tcp, overTLS string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	var l [2]net.Listener
	for i := range l {
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s, err = New(Config{TCP: l[0], TLS: l[1], TLSConf: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Dir: t.TempDir(), Rooms: newRooms(), Code: code, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s.conns.first, s.conns.idle = 300*time.Millisecond, 600*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, l[0].Addr().String(), l[1].Addr().String()
}

// closedAfter returns when the other side closed the connection.
func closedAfter(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	if err := c.SetReadDeadline(start.Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); ; {
		if _, err := c.Read(b); err != nil {
			return time.Since(start)
		}
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	s, tcp, overTLS := streams(t)
	dial := func(addr string) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for name, addr := range map[string]string{"TCP": tcp, "a TLS handshake": overTLS} {
		if after := closedAfter(t, dial(addr)); after > 2*time.Second {
			t.Errorf("%s that never came: open for %v", name, after)
		}
	}
	drip := dial(tcp)
	go func() { // something always comes, never a whole message
		for range 40 {
			if _, err := drip.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	if after := closedAfter(t, drip); after > 2*time.Second {
		t.Errorf("a message that never ended: open for %v", after)
	}
	say := func(c net.Conn, method, to, body string) string {
		t.Helper()
		_, err := fmt.Fprintf(c, "%s sip:main@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bK-%s\r\nFrom: <sip:a@x>;tag=f\r\nTo: %s\r\nCall-ID: %s\r\n"+
			"CSeq: 1 %s\r\nContact: <sip:a@127.0.0.1;transport=tcp>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", method, c.LocalAddr(), method, to, c.LocalAddr(), method, len(body), body)
		if err != nil {
			t.Fatal(err)
		}
		if method == "ACK" {
			return ""
		}
		return readMessage(t, c)
	}
	once := dial(tcp)
	say(once, "OPTIONS", "<sip:main@x>", "")
	if after := closedAfter(t, once); after > 2*time.Second || after < 400*time.Millisecond {
		t.Errorf("a connection after its request: open for %v", after)
	}
	call := tls.Client(dial(overTLS), &tls.Config{InsecureSkipVerify: true})
	ok := say(call, "INVITE", "<sip:main@x>", offer)
	if !strings.HasPrefix(ok, "SIP/2.0 200") {
		t.Fatalf("got %q", ok)
	}
	say(call, "ACK", header(ok, "To"), "")
	if after := closedAfter(t, call); after < 2*time.Second {
		t.Errorf("a call's connection was closed after %v", after)
	}
	if n := s.Calls(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestConnectionsOfOneAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sl := &streamListener{Listener: l, conns: newConns(func(string) bool { return false }, func(*guest, *streamConn) {}), bound: newCounter(2, 100)}
	got := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := sl.Accept()
			if err != nil {
				return
			}
			got <- c
		}
	}()
	dial := func(from string) net.Conn {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial("127.0.0.1")
	dial("127.0.0.1")
	if after := closedAfter(t, dial("127.0.0.1")); after > time.Second {
		t.Error("a third connection was kept")
	}
	dial("127.0.0.2")
	for range 3 {
		select {
		case c := <-got:
			defer c.Close()
		case <-time.After(2 * time.Second):
			t.Fatal("a connection was not accepted")
		}
	}
	if len(sl.conns.by) != 3 {
		t.Errorf("%d connections remembered", len(sl.conns.by))
	}
}
