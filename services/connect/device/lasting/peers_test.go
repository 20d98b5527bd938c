package lasting

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe" // and for linkname

	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/sockets/socketstest"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
	"github.com/parley-jami/parley/services/connect/device/secure"
	"github.com/parley-jami/parley/services/connect/device/tls13"
)

// crypto/tls lets nobody choose among the suites of TLS 1.3.
//
//go:linkname withAES crypto/tls.defaultCipherSuitesTLS13
var withAES []uint16

//go:linkname withoutAES crypto/tls.defaultCipherSuitesTLS13NoAES
var withoutAES []uint16

func only(t *testing.T, suite uint16) {
	a, b := withAES, withoutAES
	withAES, withoutAES = []uint16{suite}, []uint16{suite}
	t.Cleanup(func() { withAES, withoutAES = a, b })
}

type judge struct{}

func (judge) Check(certs []*x509.Certificate) (*trust.Chain, error) {
	return new(trust.Rules).Check(certs)
}
func (judge) Allowed(*trust.Chain) error { return nil }

// framed is the peer's end: TLS in frames.
type framed struct {
	net.Conn
	left int
}

func (f *framed) Read(p []byte) (int, error) {
	for f.left == 0 {
		var head [2]byte
		if _, err := io.ReadFull(f.Conn, head[:]); err != nil {
			return 0, err
		}
		f.left = int(binary.BigEndian.Uint16(head[:]))
	}
	n, err := f.Conn.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}

func (f *framed) Write(p []byte) (int, error) {
	_, err := f.Conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...))
	return len(p), err
}

// children are processes of which one follows the other.
type children struct {
	t    *testing.T
	held *sockets.Set
	last *sockets.Keep
}

func newChildren(t *testing.T) *children {
	c := &children{t: t, held: new(sockets.Set)}
	c.held.Keep()
	t.Cleanup(func() {
		if c.last != nil {
			c.last.Close()
		}
		c.held.Close()
	})
	return c
}

func (c *children) start() (*sockets.Keep, []sockets.Kept) {
	c.t.Helper()
	if c.last != nil {
		c.last.Close()
	}
	k, kept := socketstest.Next(c.t, c.held)
	c.last = k
	return k, kept
}

// pair is a connection of this process with a peer that has crypto/tls.
func pair(t *testing.T, client bool) (ours *net.TCPConn, session *secure.Session, peer *secure.Session) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); near.Close() })
	one, two := both()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	shake := func(c net.Conn, client bool, own, other *devicetest.Device) (*secure.Session, error) {
		do := secure.Server
		if client {
			do = secure.Client
		}
		s, _, err := do(ctx, &framed{Conn: c}, secure.Own{Chain: own.Chain, Key: own.Key}, other.Chain, judge{})
		return s, err
	}
	var wg sync.WaitGroup
	var perr error
	wg.Go(func() { peer, perr = shake(far, !client, one, two) })
	session, err = shake(near, client, two, one)
	wg.Wait()
	if err := errors.Join(err, perr); err != nil {
		t.Fatal(err)
	}
	return near.(*net.TCPConn), session, peer
}

var both = sync.OnceValues(func() (one, two *devicetest.Device) {
	t := &testing.T{}
	return devicetest.NewAccount(t).Device(t), devicetest.NewAccount(t).Device(t)
})

// abandon leaves a connection as a process does that is killed: its descriptors are closed.
func (c *Conn) abandon(t *testing.T) {
	t.Helper()
	c.stop()
	c.tcp.Close()
	c.nmu.Lock()
	defer c.nmu.Unlock()
	c.gone = true
	c.m.unmap()
}

// Processes follow one another on a connection with crypto/tls: what each side writes the other one reads.
func TestProcessesFollow(t *testing.T) {
	for _, suite := range suites {
		for _, client := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%t", tls.CipherSuiteName(suite), client), func(t *testing.T) {
				only(t, suite)
				p := newChildren(t)
				keep, _ := p.start()
				tcp, s, peer := pair(t, client)
				if got := peer.ConnectionState().CipherSuite; got != suite {
					t.Fatalf("suite %s", tls.CipherSuiteName(got))
				}
				if err := tcp.SetLinger(0); err != nil {
					t.Fatal(err)
				}
				cfg := Config{Keep: keep}
				c, why, err := New(tcp, Session{Suite: suite, Read: s.ReadSecret, Write: s.WriteSecret, Info: []byte("about it")}, cfg)
				if err != nil || why != nil {
					t.Fatal(err, why)
				}
				for process := range 4 {
					// The peer writes while this process lives, and before the next one does; ours are in between.
					say := func(c io.Writer, what string) {
						t.Helper()
						if _, err := c.Write([]byte(what)); err != nil {
							t.Fatal(err)
						}
					}
					hear := func(c io.Reader, what string) {
						t.Helper()
						b := make([]byte, len(what))
						if _, err := io.ReadFull(c, b); err != nil || string(b) != what {
							t.Fatalf("%q, %v, in place of %q", b, err, what)
						}
					}
					long := strings.Repeat("long ", 13000)
					say(peer, "hello")
					say(c, "hello back")
					hear(c, "hello")
					c.Took(0)
					var wg sync.WaitGroup
					wg.Go(func() { say(c, long) })
					hear(peer, "hello back")
					hear(peer, long)
					wg.Wait()
					say(peer, "not acted upon")
					hear(c, "not acted upon")
					c.SetChannel(7, Theirs)
					c.SetChannel(8, Open)
					c.SetChannel(9, Ours)
					c.SetChannel(9, Closed)
					done := c.Note(7, []byte("done with"))
					c.Note(7, []byte("a note"))
					c.Note(9, []byte("of a channel that is closed"))
					c.SetChannel(9, Closed)
					c.Done(done)
					if process == 2 { // its next process asks for the next key
						c.m.head.due.Store(1)
					}
					c.abandon(t)
					say(peer, ", nor was this")

					var kept []sockets.Kept
					keep, kept = p.start()
					if len(kept) != 1 {
						t.Fatalf("kept: %v", kept)
					}
					c, err = Restore(kept[0], func(info []byte, _ net.Addr) (Config, error) {
						if string(info) != "about it" {
							t.Errorf("about it: %q", info)
						}
						return Config{Keep: keep}, nil
					}, keep)
					if err != nil {
						t.Fatal(err)
					}
					if n := c.Notes(); len(n) != 1 || n[0].Channel != 7 || string(n[0].Data) != "a note" {
						t.Errorf("notes: %v", n)
					} else {
						c.Done(n[0].Order)
					}
					if ch := c.Channels(); len(ch) != 2 || ch[7] != Theirs || ch[8] != Open {
						t.Errorf("channels: %v", ch)
					}
					hear(c, "not acted upon, nor was this")
					c.Took(0)
				}
				go c.Close() //nolint:errcheck // the peer finds out
				if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the peer reads %v at the end", err)
				}
				c.Free()
				if _, kept := p.start(); len(kept) != 0 {
					t.Errorf("kept after the end: %v", kept)
				}
			})
		}
	}
}

// Who breaks the protocol is told so; who ends it is no error.
func TestEnds(t *testing.T) {
	for name, x := range map[string]struct {
		do   func(peer *secure.Session, raw net.Conn)
		want error
		told string
	}{
		"close_notify": {func(p *secure.Session, _ net.Conn) { p.CloseWrite() }, io.EOF, "EOF"},
		"garbage": {func(_ *secure.Session, c net.Conn) {
			c.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
		}, tls13.ErrTag, "bad record MAC"},
		"no record": {func(_ *secure.Session, c net.Conn) { c.Write([]byte("GET / HTTP/1.1\r\n")) }, tls13.ErrRecord, "unexpected message"},
	} {
		t.Run(name, func(t *testing.T) {
			tcp, s, peer := pair(t, true)
			c, _, err := New(tcp, Session{Suite: s.ConnectionState().CipherSuite, Read: s.ReadSecret, Write: s.WriteSecret}, Config{})
			if err != nil {
				t.Fatal(err)
			}
			x.do(peer, peer.NetConn())
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, x.want) {
				t.Errorf("we read %v", err)
			}
			c.Free()
			if _, err := peer.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), x.told) {
				t.Errorf("the peer reads %v", err)
			}
		})
	}
}

// What this program did not leave is refused, and kept no longer.
func TestRefused(t *testing.T) {
	for name, x := range map[string]struct {
		break_ func(m *mapping)
		want   error
	}{
		"another version":     {func(m *mapping) { m.head.layout++ }, errForeign},
		"another size":        {func(m *mapping) { m.head.size++ }, errForeign},
		"no suite":            {func(m *mapping) { m.head.suite = 1 }, errForeign},
		"not complete":        {func(m *mapping) { m.head.complete.Store(0) }, errDamaged},
		"another connection":  {func(m *mapping) { m.head.id++ }, errDamaged},
		"ended":               {func(m *mapping) { s := m.head.out.get(); s.ended = 1; m.head.out.set(s) }, errDamaged},
		"more was read":       {func(m *mapping) { m.head.read -= inSize + 1 }, errDamaged},
		"less was written":    {func(m *mapping) { m.head.written++ }, errDamaged},
		"in the midst of it":  {func(m *mapping) { s := m.head.in.get(); s.skip = 5; m.head.in.set(s) }, os.ErrDeadlineExceeded},
		"tried too often":     {func(m *mapping) { m.head.tries.Store(maxTries) }, errTries},
		"beyond the memory":   {func(m *mapping) { s := m.head.in.get(); s.at = inSize + 1; m.head.in.set(s) }, errDamaged},
		"a note that is none": {func(m *mapping) { m.note[3].n = noteSize + 1 }, errDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			p := newChildren(t)
			keep, _ := p.start()
			tcp, s, peer := pair(t, true)
			c, why, err := New(tcp, Session{Suite: s.ConnectionState().CipherSuite, Read: s.ReadSecret, Write: s.WriteSecret}, Config{Keep: keep})
			if err != nil || why != nil {
				t.Fatal(err, why)
			}
			x.break_(c.m)
			c.abandon(t)
			keep, kept := p.start()
			_, err = Restore(kept[0], func([]byte, net.Addr) (Config, error) { return Config{Keep: keep}, nil }, keep)
			if !errors.Is(err, x.want) {
				t.Errorf("%v, want %v", err, x.want)
			}
			if _, err := peer.Read(make([]byte, 1)); err == nil {
				t.Error("the peer's end is still open")
			}
			if _, kept := p.start(); len(kept) != 0 {
				t.Errorf("kept: %v", kept)
			}
		})
	}
}

// FuzzMemory has whatever is in the memory refused, or gone on with.
func FuzzMemory(f *testing.F) {
	read, write := secrets(suites[1])
	c, _, err := New(&wire{at: -1}, Session{Suite: suites[1], Read: read, Write: write, Early: []byte("early")}, Config{})
	if err != nil {
		f.Fatal(err)
	}
	fixed := int(unsafe.Offsetof(c.m.memory.channels)) // head and notes
	good := append([]byte(nil), c.m.raw[:fixed]...)
	f.Add(good, []byte("\x00\x05hello"), uint64(5), uint64(0))
	in := c.m.head.in.get()
	in.skip, in.left = 3, 7
	c.m.head.in.set(in)
	f.Add(append([]byte(nil), c.m.raw[:fixed]...), bytes.Repeat([]byte{0, 9, 23, 3, 3}, 9), uint64(45), uint64(1))
	f.Fuzz(func(t *testing.T, head, in []byte, read, written uint64) {
		copy(c.m.raw[copy(c.m.raw[:fixed], head):fixed], good[min(len(head), fixed):])
		copy(c.m.in[:], in)
		if c.m.check() != nil {
			return
		}
		x := &Conn{tcp: &wire{at: -1}, m: c.m}
		if x.goOn(read, written) != nil {
			return
		}
		x.Note(1, []byte("note"))
		_, _ = x.Read(make([]byte, 100))
		_, _ = x.Write([]byte("hello"))
	})
}

// FuzzRead reads what a peer may send.
func FuzzRead(f *testing.F) {
	suite := suites[0]
	read, write := secrets(suite)
	for i, x := range [][]byte{{}, []byte("\x00\x05\x17\x03\x03\x00\x00"), bytes.Repeat([]byte{0, 1, 23}, 40)} {
		f.Add(byte(i), x)
	}
	// Each two bytes of the seed are a record's type and length, so that keys are no hindrance.
	f.Fuzz(func(t *testing.T, piece byte, b []byte) {
		k, err := tls13.NewKey(suite, read, 0)
		if err != nil {
			t.Fatal(err)
		}
		var in []byte
		for i := 0; i+2 < len(b) && piece%2 == 0; i += 3 {
			r := k.Seal(nil, b[i], bytes.Repeat(b[i+2:i+3], int(b[i+1])))
			in = append(binary.BigEndian.AppendUint16(in, uint16(len(r))), r...)
		}
		if piece%2 == 1 {
			in = b
		}
		c, _, err := New(&wire{in: in, at: -1, piece: int(piece) + 1}, Session{Suite: suite, Read: read, Write: write}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Free()
		buf := make([]byte, 50)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			c.Took(n / 2)
		}
	})
}
