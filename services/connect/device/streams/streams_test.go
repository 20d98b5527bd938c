package streams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/sctp"
	"go.uber.org/goleak"

	"github.com/parley-jami/parley/internal/pionlog"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// to is a socket that sends to one address, and loses some of what it should send.
type to struct {
	*net.UDPConn
	peer  net.Addr
	loses float64
}

func (c to) RemoteAddr() net.Addr { return c.peer }

func (c to) Write(b []byte) (int, error) {
	if rand.Float64() < c.loses {
		return len(b), nil
	}
	return c.WriteTo(b, c.peer)
}

// datagrams is a path on which some are lost.
func datagrams(t testing.TB, loses float64) (a, b net.Conn) {
	t.Helper()
	var err error
	var ends [2]*net.UDPConn
	for i := range ends {
		if ends[i], err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := ends[i].SetReadBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return to{ends[0], ends[1].LocalAddr(), loses}, to{ends[1], ends[0].LocalAddr(), loses}
}

// side is a socket that runs.
type side struct {
	*mux.Socket
	t     *Transport
	taken chan *mux.Channel
	ended chan error
}

func start(t *Transport) *side {
	x := &side{t: t, taken: make(chan *mux.Channel, 64), ended: make(chan error, 1)}
	x.Socket = mux.NewOn(t, mux.Config{Peer: channel.Peer{DeviceLong: "peer"}, Accept: func(c *mux.Channel) error {
		if c.Name() == "bad" {
			return errors.New("not taken")
		}
		select {
		case x.taken <- c:
		default:
		}
		return nil
	}})
	go func() { x.ended <- x.Run() }()
	return x
}

func transports(t testing.TB, loses float64) (a, b *Transport) {
	t.Helper()
	x, y := datagrams(t, loses)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var err1, err2 error
	wg.Go(func() { a, err1 = New(ctx, x, true) })
	wg.Go(func() { b, err2 = New(ctx, y, false) })
	wg.Wait()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func pair(t testing.TB, loses float64) (a, b *side) {
	t.Helper()
	x, y := transports(t, loses)
	a, b = start(x), start(y)
	t.Cleanup(func() {
		for _, s := range []*side{a, b} {
			s.Close()
			select {
			case <-s.ended:
			case <-time.After(10 * time.Second):
				t.Error("the socket does not end")
			}
		}
	})
	return a, b
}

func open(t testing.TB, x *side, name string) *mux.Channel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := x.Open(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func talk(t testing.TB, from, to *mux.Channel, msg string) {
	t.Helper()
	go func() {
		if _, err := from.Write([]byte(msg)); err != nil {
			t.Error(err)
		}
	}()
	got, err := to.ReadMessage()
	if err != nil || string(got) != msg {
		t.Fatalf("%.20q, %v", got, err)
	}
}

func TestChannels(t *testing.T) {
	a, b := pair(t, 0)
	one, two := open(t, a, "sip"), open(t, b, "data-transfer://x")
	in1, in2 := <-b.taken, <-a.taken
	if in1.Name() != "sip" || in2.Name() != two.Name() || in1.Peer().DeviceLong != "peer" {
		t.Fatal(in1.Name(), in2.Name())
	}
	for _, x := range [][2]*mux.Channel{{one, in1}, {in1, one}, {two, in2}, {in2, two}} {
		for _, msg := range []string{"first", "second", strings.Repeat("x", channel.MaxMessage)} {
			talk(t, x[0], x[1], msg)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Open(ctx, "bad"); !errors.Is(err, mux.ErrDeclined) {
		t.Errorf("declined: %v", err)
	}
	if !a.Beacon() {
		t.Error("the peer knows no beacons")
	}
	talk(t, one, in1, "after the beacon")
	if a.Idle().IsZero() == false {
		t.Error("idle with two channels")
	}
}

// TestChannelsEnd: what was written before the end is read, then io.EOF; and of many channels nothing stays.
func TestChannelsEnd(t *testing.T) {
	a, b := pair(t, 0)
	for i := range 300 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		c := open(t, from, "sip")
		in := <-to.taken
		if i%3 == 0 {
			c, in = in, c // either side may
		}
		if _, err := c.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadMessage(); err != nil || string(got) != "last words" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := in.ReadMessage(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("x")); !errors.Is(err, mux.ErrClosed) {
			t.Fatal(err)
		}
	}
	for _, x := range []*side{a, b} {
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			x.t.mu.Lock()
			n, strays := len(x.t.open), len(x.t.strays)
			x.t.mu.Unlock()
			if n == 1 && strays == 0 { // control
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("%d streams, %d of no channel", n, strays)
			}
		}
		if x.Idle().IsZero() {
			t.Error("not idle")
		}
	}
}

// TestLoss: with one datagram of twenty lost in each direction all arrives, in order.
func TestLoss(t *testing.T) {
	a, b := pair(t, 0.05)
	var wg sync.WaitGroup
	for i := range 4 {
		c := open(t, a, fmt.Sprint(i))
		in := <-b.taken
		wg.Go(func() {
			for n := range 50 {
				if _, err := c.Write(bytes.Repeat([]byte{byte(n)}, 5000)); err != nil {
					t.Error(err)
				}
			}
			c.Close()
		})
		wg.Go(func() {
			for n := range 50 {
				m, err := in.ReadMessage()
				if err != nil || !bytes.Equal(m, bytes.Repeat([]byte{byte(n)}, 5000)) {
					t.Errorf("%d bytes of message %d, %v", len(m), n, err)
					return
				}
			}
			if _, err := in.ReadMessage(); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestSlowReader: a channel that is not read holds its writer up and is then cut; the others go on.
func TestSlowReader(t *testing.T) {
	a, b := pair(t, 0)
	slow, quick := open(t, a, "slow"), open(t, a, "quick")
	inSlow, inQuick := <-b.taken, <-b.taken
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := slow.Write(make([]byte, 60000)); err != nil {
				return
			}
		}
	})
	for range 20 {
		talk(t, quick, inQuick, "through")
		time.Sleep(150 * time.Millisecond)
	}
	wg.Wait()
	for {
		if _, err := inSlow.ReadMessage(); err != nil {
			if !errors.Is(err, mux.ErrSlowReader) {
				t.Error(err)
			}
			break
		}
	}
	talk(t, quick, inQuick, "after")
}

func TestPeerGoes(t *testing.T) {
	a, b := pair(t, 0)
	c := open(t, a, "sip")
	in := <-b.taken
	began := time.Now()
	a.Close()
	if _, err := in.ReadMessage(); err == nil {
		t.Error("the channel goes on")
	}
	if _, err := c.ReadMessage(); err == nil {
		t.Error("the own channel goes on")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("after %v", took)
	}
}

var errGone = errors.New("the path is gone")

// goes is a path that fails when its end is closed from elsewhere.
type goes struct{ net.Conn }

func (c goes) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		err = errGone
	}
	return n, err
}

// TestReasonOfTheEnd: why the path failed is what the connection ends with.
func TestReasonOfTheEnd(t *testing.T) {
	x, y := datagrams(t, 0)
	var wg sync.WaitGroup
	var a, b *Transport
	wg.Go(func() { a, _ = New(t.Context(), goes{x}, true) })
	wg.Go(func() { b, _ = New(t.Context(), y, false) })
	wg.Wait()
	if a == nil || b == nil {
		t.Fatal("no association")
	}
	one, two := start(a), start(b)
	c := open(t, one, "sip")
	x.Close()
	if err := <-one.ended; !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
	if _, err := c.ReadMessage(); !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
	two.Close()
	<-two.ended
}

func TestNobodyAnswers(t *testing.T) {
	x, y := datagrams(t, 0)
	for _, client := range []bool{true, false} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := New(ctx, x, client); !errors.Is(err, ErrSetup) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("client %v: %v", client, err)
		}
		cancel()
		x = y
	}
}

// raw is a peer without package mux.
func raw(t *testing.T) (us *side, peer *sctp.Association) {
	t.Helper()
	x, y := datagrams(t, 0)
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if peer, err = sctp.ClientWithOptions(sctp.WithNetConn(y), sctp.WithLoggerFactory(pionlog.Quiet), sctp.WithMaxMessageSize(1<<20)); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tr, err := New(ctx, x, false)
	wg.Wait()
	if err != nil || peer == nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	us = start(tr)
	return us, peer
}

// TestHostilePeers: each loses its connection, for the reason that is told.
func TestHostilePeers(t *testing.T) {
	stream := func(t *testing.T, a *sctp.Association, id uint16) *sctp.Stream {
		s, err := a.OpenStream(id, payload)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, a *sctp.Association)
		want error
	}{
		{"a message of 200,000 bytes", func(t *testing.T, a *sctp.Association) { _, _ = stream(t, a, 7).Write(make([]byte, 200000)) }, errSize},
		{"data on a thousand streams of no channel", func(t *testing.T, a *sctp.Association) {
			for i := range uint16(1000) {
				if _, err := stream(t, a, i+2).Write([]byte("x")); err != nil {
					return
				}
			}
		}, errStrays},
		{"no channel request on control", func(t *testing.T, a *sctp.Association) { _, _ = stream(t, a, 0).Write([]byte{0x93, 0xc1}) }, mux.ErrWire},
		{"the end of control", func(t *testing.T, a *sctp.Association) {
			s := stream(t, a, 0)
			_, _ = s.Write([]byte("\x81\xa1v\x01"))
			s.Close()
		}, io.EOF},
		{"an abort", func(_ *testing.T, a *sctp.Association) { a.Abort("x") }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			us, peer := raw(t)
			c.do(t, peer)
			select {
			case err := <-us.ended:
				if err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
			case <-time.After(30 * time.Second):
				t.Error("it keeps the connection")
				us.Close()
				<-us.ended
			}
		})
	}
}

// TestThroughput logs what an association carries on this machine, both ends together.
func TestThroughput(t *testing.T) {
	if os.Getenv("PARLEY_THROUGHPUT") == "" {
		t.Skip("a measurement; set PARLEY_THROUGHPUT")
	}
	a, b := pair(t, 0)
	c := open(t, a, "data")
	in := <-b.taken
	const all = 256 << 20
	began := time.Now()
	go func() {
		for range all >> 15 {
			if _, err := c.Write(make([]byte, 1<<15)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for n := 0; n < all; {
		m, err := in.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		n += len(m)
	}
	t.Logf("%.0f Mbit/s", all*8/time.Since(began).Seconds()/1e6)
}

// FuzzAssociation gives an association any packets in place of the peer's.
func FuzzAssociation(f *testing.F) {
	x, y := datagrams(f, 0)
	var peer *sctp.Association
	var wg sync.WaitGroup
	wg.Go(func() { peer, _ = sctp.ClientWithOptions(sctp.WithNetConn(x), sctp.WithLoggerFactory(pionlog.Quiet)) })
	b := make([]byte, 8192)
	for range 2 { // INIT and COOKIE ECHO, without whose answers it goes no further
		if err := y.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			f.Fatal(err)
		}
		n, err := y.Read(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(b[:n]))
	}
	x.Close()
	wg.Wait()
	if peer != nil {
		peer.Close()
	}
	f.Add([]byte{0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		us, them := net.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, them) })
		wg.Go(func() {
			if len(b) > 0 {
				_, _ = them.Write(b)
			}
			them.Close()
		})
		if tr, err := New(ctx, us, false); err == nil {
			tr.Close()
		}
		wg.Wait()
	})
}
