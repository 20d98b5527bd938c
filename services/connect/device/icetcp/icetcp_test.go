package icetcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"
	"go.uber.org/goleak"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t testing.TB, addr string) *Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("%s: %v", addr, err)
	}
	l := NewListener(ln, Options{Loopback: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func agent(t testing.TB, l *Listener, controlling bool) *Agent {
	t.Helper()
	a, err := l.NewAgent(controlling)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// only leaves the candidates of one kind.
func only(d request.Description, typ request.TCPType) request.Description {
	d.Candidates = slices.DeleteFunc(slices.Clone(d.Candidates), func(c request.Candidate) bool { return c.TCPType != typ })
	return d
}

// connect connects two agents, which are told those descriptions of the other one.
func connect(t testing.TB, asked, asks *Agent, ofAsked, ofAsks request.Description) (controlling, controlled *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { controlling, errs[0] = asked.Connect(ctx, ofAsks) })
	wg.Go(func() { controlled, errs[1] = asks.Connect(ctx, ofAsked) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { controlling.Close(); controlled.Close() })
	return controlling, controlled
}

func TestConnect(t *testing.T) {
	for _, c := range []struct {
		name, addr             string
		askedTells, asksTells  request.TCPType // "": both
		controllingDialsSurely bool
	}{
		{"both ways", "127.0.0.1:0", "", "", false},
		{"the asked one dials", "127.0.0.1:0", request.Active, request.Passive, true},
		{"who asks dials", "127.0.0.1:0", request.Passive, request.Active, false},
		{"IPv6", "[::1]:0", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			la, lb := listen(t, c.addr), listen(t, c.addr)
			asked, asks := agent(t, la, true), agent(t, lb, false)
			da, db := asked.Local(), asks.Local()
			if c.askedTells != "" {
				da, db = only(da, c.askedTells), only(db, c.asksTells)
			}
			x, y := connect(t, asked, asks, da, db)
			if x.LocalAddr().String() != y.RemoteAddr().String() || x.RemoteAddr().String() != y.LocalAddr().String() {
				t.Errorf("two connections: %v–%v, %v–%v", x.LocalAddr(), x.RemoteAddr(), y.LocalAddr(), y.RemoteAddr())
			}
			if dialled := x.RemoteAddr().String() == lb.ln.Addr().String(); c.controllingDialsSurely && !dialled {
				t.Error("dialled by the other one")
			}
			exchange(t, x, y)
			la.mu.Lock()
			defer la.mu.Unlock()
			if len(la.agents) != 0 {
				t.Error("the agent is still awaited")
			}
		})
	}
}

// exchange sends some MiB both ways, with keep-alives between.
func exchange(t *testing.T, x, y *Conn) {
	t.Helper()
	big := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	var wg sync.WaitGroup
	for _, d := range [][2]*Conn{{x, y}, {y, x}} {
		wg.Go(func() {
			for b := range slices.Chunk(big, 100_000) {
				if _, err := d[0].Write(b); err != nil {
					t.Error(err)
				}
				if err := d[0].trySend(KeepAlive()); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			got := make([]byte, len(big))
			if _, err := io.ReadFull(d[1], got); err != nil || !bytes.Equal(got, big) {
				t.Errorf("read %v, the same: %v", err, bytes.Equal(got, big))
			}
		})
	}
	wg.Wait()
}

func TestManyOnOnePort(t *testing.T) {
	la, lb := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	var wg sync.WaitGroup
	for range 50 {
		asked, asks := agent(t, la, true), agent(t, lb, false)
		wg.Go(func() {
			x, y := connect(t, asked, asks, asked.Local(), asks.Local())
			if _, err := x.Write([]byte(asked.Local().Ufrag)); err != nil {
				t.Error(err)
			}
			got := make([]byte, 8)
			if _, err := io.ReadFull(y, got); err != nil || string(got) != asked.Local().Ufrag {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
}

func TestPublicAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := NewListener(ln, Options{Loopback: true, Public: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")}})
	c, err := l.candidates()
	if err != nil || len(c) != 4 {
		t.Fatalf("%+v, %v", c, err)
	}
	want := request.Candidate{Foundation: "Sc0000201", Priority: 100<<24 | 65535<<8 | 255, Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), l.addr().Port()),
		Type: request.ServerReflexive, TCPType: request.Passive}
	if c[2] != want || c[3].Addr.Port() != request.ActivePort || c[3].TCPType != request.Active {
		t.Errorf("%+v", c[2:])
	}
}

// frame is one frame.
func frame(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func build(t testing.TB, set ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID}, set...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// TestStrangersAtThePort: who does not know the credentials of a connection that is awaited
// is cut off, and the connection comes about without it.
func TestStrangersAtThePort(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	asked := agent(t, l, true)
	d := asked.Local()
	user := stun.NewUsername(d.Ufrag + ":peer")
	for name, in := range map[string][]byte{
		"TLS":                 frame(append([]byte{22, 3, 1, 0, 40}, make([]byte, 40)...)),
		"a short frame":       frame([]byte("hello")),
		"an answer":           frame(build(t, stun.BindingSuccess)),
		"an indication":       frame(indication()),
		"no user":             frame(build(t, stun.BindingRequest)),
		"another user":        frame(build(t, stun.BindingRequest, stun.NewUsername("x:y"), stun.NewShortTermIntegrity(d.Pwd))),
		"no integrity":        frame(build(t, stun.BindingRequest, user)),
		"another password":    frame(build(t, stun.BindingRequest, user, stun.NewShortTermIntegrity("x"))),
		"broken attributes":   frame(append(build(t, stun.BindingRequest)[:2], append([]byte{0, 8, 0x21, 0x12, 0xa4, 0x42}, append(make([]byte, 12), 0, 6, 0xff, 0xff, 0, 0, 0, 0)...)...)),
		"a huge STUN message": frame(build(t, stun.BindingRequest, stun.RawAttribute{Type: stun.AttrData, Value: make([]byte, 4000)})),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", l.ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(in); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) || err == nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	asks := agent(t, listen(t, "127.0.0.1:0"), false)
	connect(t, asked, asks, d, asks.Local())
}

// TestPeersThatDoNotPlay: a peer with the right credentials that breaks the rules.
func TestPeersThatDoNotPlay(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(s *ice.Side) [][]byte
		want error
	}{
		{"data at once", func(*ice.Side) [][]byte { return [][]byte{append([]byte{22, 3, 1}, make([]byte, 60)...)} }, errData},
		{"an answer to nothing", func(*ice.Side) [][]byte { return [][]byte{build(t, stun.BindingSuccess)} }, ice.ErrAnswer},
		{"a check with another password", func(s *ice.Side) [][]byte {
			return [][]byte{build(t, stun.BindingRequest, stun.NewUsername(s.Remote.Ufrag+":"+s.Local.Ufrag), stun.NewShortTermIntegrity("other"))}
		}, ice.ErrIntegrity},
		{"a check of another user", func(s *ice.Side) [][]byte {
			return [][]byte{build(t, stun.BindingRequest, stun.NewUsername(s.Remote.Ufrag+":other"), stun.NewShortTermIntegrity(s.Remote.Pwd))}
		}, ice.ErrUsername},
		{"indications without end", func(*ice.Side) [][]byte { return slices.Repeat([][]byte{indication()}, maxMessages+2) }, errFrame},
		{"hanging up", func(*ice.Side) [][]byte { return nil }, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := agent(t, listen(t, "127.0.0.1:0"), true)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			peer := &ice.Side{Local: request.Description{Ufrag: "peerpeer", Pwd: "peerpeerpeerpeerpeerpeer"}, Remote: asked.Local()}
			peer.Local.Candidates = []request.Candidate{{Foundation: "H", Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Type: request.Host, TCPType: request.Passive}}
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				f := newFramed(conn)
				if _, err := f.next(); err != nil { // their check
					t.Error(err)
				}
				for _, b := range c.send(peer) {
					if f.send(b) != nil {
						break
					}
				}
				if c.want != io.EOF {
					_, _ = io.Copy(io.Discard, conn)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err = asked.Connect(ctx, peer.Local)
			if !errors.Is(err, c.want) || !errors.Is(err, ErrFailed) {
				t.Errorf("%v, want %v", err, c.want)
			}
			<-done
		})
	}
}

// TestRoleConflict: a peer that takes itself for controlling is told so.
func TestRoleConflict(t *testing.T) {
	a := &ice.Side{Controlling: true, Local: request.Description{Ufrag: "aaaa", Pwd: "apwd"}, Remote: request.Description{Ufrag: "bbbb", Pwd: "bpwd"}}
	b := &ice.Side{Controlling: true, Local: a.Remote, Remote: a.Local}
	m, err := b.Check(true)
	if err != nil {
		t.Fatal(err)
	}
	out, conflict, err := a.Answer(m, netip.MustParseAddrPort("127.0.0.1:1"))
	if err != nil || !conflict {
		t.Fatal(conflict, err)
	}
	if err := b.Answered(out); !errors.Is(err, ice.ErrRefused) {
		t.Errorf("%v", err)
	}
}

// TestPeerWithoutChecks: a peer that only answers is connected to, if later.
func TestPeerWithoutChecks(t *testing.T) {
	asked := agent(t, listen(t, "127.0.0.1:0"), true)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := &ice.Side{Local: request.Description{Ufrag: "peerpeer", Pwd: "peerpeerpeerpeerpeerpeer"}, Remote: asked.Local()}
	peer.Local.Candidates = []request.Candidate{{Foundation: "H", Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Type: request.Host, TCPType: request.Passive}}
	nominated := make(chan bool, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		f := newFramed(conn)
		for {
			m, err := f.next()
			if err != nil {
				return
			}
			out, _, err := peer.Answer(m, addrOf(conn.RemoteAddr()))
			if err == nil {
				err = f.send(out.Raw)
			}
			if err != nil {
				t.Error(err)
			}
			if m.Contains(stun.AttrUseCandidate) {
				nominated <- true
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began := time.Now()
	c, err := asked.Connect(ctx, peer.Local)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(began); !<-nominated || took < holdTime {
		t.Errorf("nominated after %v", took)
	}
}

func TestNobodyThere(t *testing.T) {
	a := agent(t, listen(t, "127.0.0.1:0"), true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := a.Connect(ctx, request.Description{Ufrag: "xxxx", Pwd: "y"})
	if !errors.Is(err, ErrFailed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// bytesConn is a connection from which b is read.
type bytesConn struct {
	net.Conn
	r io.Reader
}

func (c bytesConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c bytesConn) Write(p []byte) (int, error) { return len(p), nil }
func (bytesConn) RemoteAddr() net.Addr          { return &net.TCPAddr{IP: net.IPv4zero} }
func (bytesConn) Close() error                  { return nil }

// FuzzFrames: whatever comes, reading ends, and gives no more than came.
func FuzzFrames(f *testing.F) {
	f.Add(append(frame(build(f, stun.BindingRequest)), frame([]byte("data of a record"))...))
	f.Add(append([]byte{0, 0}, frame(append([]byte{22, 3, 3, 0, 40}, make([]byte, 40)...))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Conn{framed: newFramed(bytesConn{r: bytes.NewReader(b)}), s: &ice.Side{}}
		got, err := io.ReadAll(c)
		if len(got) > len(b) {
			t.Errorf("%d bytes of %d", len(got), len(b))
		}
		if err == nil && len(b) > 0 && len(got) == 0 && b[0]|b[1%len(b)] != 0 && len(b) > 2 && int(binary.BigEndian.Uint16(b)) < stunHeader && int(binary.BigEndian.Uint16(b)) > 0 {
			t.Error("a short data frame was lost")
		}
		p := &path{framed: newFramed(bytesConn{r: bytes.NewReader(b)}), s: &ice.Side{Controlling: true}}
		if p.run(nil, func(kind) {}) == nil {
			t.Error("selected without knowing the password")
		}
	})
}
