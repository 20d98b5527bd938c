package mux

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-jami/parley/services/connect/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is a socket that runs.
type side struct {
	*Socket
	taken chan *Channel
	ended chan error
}

func start(t testing.TB, conn net.Conn, refuse ...string) *side {
	t.Helper()
	x := &side{taken: make(chan *Channel, 64), ended: make(chan error, 1)}
	x.Socket = New(conn, Config{Peer: channel.Peer{DeviceLong: "peer"}, Accept: func(c *Channel) error {
		if slices.Contains(refuse, c.Name()) {
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

// pair is two sockets on one connection.
func pair(t testing.TB) (a, b *side) {
	t.Helper()
	x, y := net.Pipe()
	a, b = start(t, x, "bad"), start(t, y, "bad")
	t.Cleanup(func() { a.end1(t); b.end1(t) })
	return a, b
}

func (x *side) end1(t testing.TB) {
	x.Close()
	select {
	case err := <-x.ended:
		x.ended <- err
	case <-time.After(10 * time.Second):
		t.Error("the socket does not end")
	}
}

func open(t testing.TB, x *side, name string) *Channel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := x.Open(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChannels(t *testing.T) {
	a, b := pair(t)
	one, two := open(t, a, "sip"), open(t, a, "sip")
	in1, in2 := <-b.taken, <-b.taken
	if in1.num != one.num || in2.num != two.num || in1.Name() != "sip" || in1.Peer().DeviceLong != "peer" || one.num == two.num {
		t.Fatalf("%d, %d opened; %d, %d came", one.num, two.num, in1.num, in2.num)
	}
	for _, x := range [][2]*Channel{{one, in1}, {in2, two}} {
		for _, msg := range []string{"first", "second", strings.Repeat("x", channel.MaxMessage)} {
			go func() {
				if _, err := x[0].Write([]byte(msg)); err != nil {
					t.Error(err)
				}
			}()
			got, err := x[1].ReadMessage()
			if err != nil || string(got) != msg {
				t.Fatalf("%.20q, %v", got, err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Open(ctx, "bad"); !errors.Is(err, ErrDeclined) {
		t.Errorf("declined: %v", err)
	}
	if !a.Idle().IsZero() {
		t.Error("idle with two channels")
	}
}

func TestReadsWithSmallBuffers(t *testing.T) {
	a, b := pair(t)
	c := open(t, a, "sip")
	in := <-b.taken
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("you")); err != nil {
		t.Fatal(err)
	}
	var got []string
	p := make([]byte, 4)
	for range 3 {
		n, err := in.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(p[:n]))
	}
	if !slices.Equal(got, []string{"hell", "o", "you"}) {
		t.Errorf("%q", got)
	}
	if n := b.kept.Load(); n != 0 {
		t.Errorf("%d bytes are thought to be kept", n)
	}
}

func TestEnds(t *testing.T) {
	a, b := pair(t)
	c := open(t, a, "sip")
	in := <-b.taken
	if _, err := c.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := in.ReadMessage(); string(got) != "last" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := in.ReadMessage(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if _, err := in.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("writing after the end: %v", err)
	}
	if _, err := c.ReadMessage(); !errors.Is(err, ErrClosed) {
		t.Errorf("reading of a closed one: %v", err)
	}
	if a.Idle().IsZero() || b.Idle().IsZero() {
		t.Error("a socket without channels is not idle")
	}
	d := open(t, a, "sip")
	<-b.taken
	b.end1(t)
	if _, err := d.ReadMessage(); err == nil {
		t.Error("a channel outlived its connection")
	}
	if err := <-a.ended; err == nil {
		t.Error("no reason")
	}
	a.ended <- nil
	if _, err := a.Open(t.Context(), "sip"); !errors.Is(err, ErrSocketClosed) {
		t.Errorf("opening on a closed one: %v", err)
	}
}

// TestFlood: large transfers on three channels at once arrive whole, both ways.
func TestFlood(t *testing.T) {
	a, b := pair(t)
	var wg sync.WaitGroup
	for i, size := range []int{1 << 10, 3 << 20, 5 << 20} {
		c := open(t, a, fmt.Sprint("file", i))
		in := <-b.taken
		data := bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4)
		for _, x := range [][2]*Channel{{c, in}, {in, c}} {
			wg.Go(func() {
				if _, err := x[0].Write(data); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				got := make([]byte, size)
				if _, err := io.ReadFull(x[1], got); err != nil || !bytes.Equal(got, data) {
					t.Errorf("channel %d: %v", i, err)
				}
			})
		}
	}
	wg.Wait()
}

// TestSlowReader: a channel that is not read holds the others up for a moment alone.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		lazy, quick := open(t, a, "lazy"), open(t, a, "quick")
		notRead := <-b.taken
		go func() {
			for {
				if _, err := lazy.Write(make([]byte, 60000)); err != nil {
					return
				}
			}
		}()
		time.Sleep(readerTime + time.Second)
		if _, err := notRead.ReadMessage(); !errors.Is(err, ErrSlowReader) {
			t.Errorf("the slow one: %v", err)
		}
		if n := b.kept.Load(); n != 0 {
			t.Errorf("%d bytes are kept for nobody", n)
		}
		in := <-b.taken
		if _, err := quick.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if got, err := in.ReadMessage(); err != nil || string(got) != "x" {
			t.Errorf("the other one: %q, %v", got, err)
		}
		a.end1(t)
		b.end1(t)
		synctest.Wait()
	})
}

func TestBeacon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		synctest.Wait() // versions are exchanged
		if !a.Beacon() || !b.Beacon() {
			t.Fatal("a peer of version 1 knows beacons")
		}
		time.Sleep(2 * beaconTime)
		open(t, a, "sip") // it lives
		a.end1(t)
		b.end1(t)
	})
}

// TestMutePeer: a peer that reads and says nothing is let go after a beacon; one of version 0
// gets none.
func TestMutePeer(t *testing.T) {
	for _, v := range []string{"\x81\xa1v\x01", "\x81\xa1v\x00"} {
		synctest.Test(t, func(t *testing.T) {
			x, y := net.Pipe()
			defer y.Close()
			a := start(t, x)
			go func() { _, _ = io.Copy(io.Discard, y) }()
			if _, err := y.Write(appendMessage(nil, protocol, []byte(v))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			known := v[3] == 1
			if a.Beacon() != known {
				t.Errorf("version %d knows beacons: %v", v[3], !known)
			}
			time.Sleep(beaconTime + time.Millisecond)
			select {
			case err := <-a.ended:
				if !known || !errors.Is(err, ErrNoBeacon) {
					t.Errorf("ended: %v", err)
				}
				a.ended <- err
			default:
				if known {
					t.Error("it goes on")
				}
			}
			a.end1(t)
		})
	}
}

// TestPeerThatDoesNotRead loses the connection, and nobody waits for it for ever.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := net.Pipe()
		defer y.Close()
		a := start(t, x)
		time.Sleep(WriteTime + time.Second)
		if err := <-a.ended; !errors.Is(err, ErrSlowPeer) {
			t.Error(err)
		}
	})
}

// scripted is a peer that a test plays itself.
type scripted struct {
	net.Conn
	r *bufio.Reader
}

func script(t *testing.T, refuse ...string) (*side, *scripted) {
	t.Helper()
	x, y := net.Pipe()
	a := start(t, x, refuse...)
	p := &scripted{y, bufio.NewReader(y)}
	t.Cleanup(func() { y.Close(); a.end1(t) })
	if ch, data, err := readMessage(p.r); err != nil || ch != protocol || !bytes.Equal(data, version) {
		t.Fatalf("first comes the version: %d %x %v", ch, data, err)
	}
	return a, p
}

func (p *scripted) say(t *testing.T, ch uint16, data []byte) {
	t.Helper()
	if _, err := p.Write(appendMessage(nil, ch, data)); err != nil {
		t.Fatal(err)
	}
}

func (p *scripted) wants(t *testing.T, ch uint16, data []byte) {
	t.Helper()
	n, got, err := readMessage(p.r)
	if err != nil || n != ch || !bytes.Equal(got, data) {
		t.Fatalf("%d %q %v, want %d %q", n, got, err, ch, data)
	}
}

// TestWireOfStock: the bytes that a stock peer sees, and is seen to send.
func TestWireOfStock(t *testing.T) {
	a, p := script(t, "git")
	p.say(t, protocol, []byte("\x81\xa1v\x01"))
	p.say(t, protocol, beacon)
	p.wants(t, protocol, beaconBack)
	p.say(t, control, beacon) // on control too
	p.wants(t, protocol, beaconBack)
	p.say(t, control, []byte("\x93\xa3sip\xcd\x12\x34\x00"))
	p.wants(t, control, []byte("\x93\xa3sip\xcd\x12\x34\x01"))
	p.say(t, control, []byte("\x93\xa3git\x05\x00\x93\xa3sip\x06\x00")) // two in one message
	p.wants(t, control, []byte("\x93\xa3git\x05\x02"))
	p.wants(t, control, []byte("\x93\xa3sip\x06\x01"))
	p.say(t, 0x1234, []byte("INVITE"))
	c := <-a.taken
	if b, err := c.ReadMessage(); err != nil || string(b) != "INVITE" {
		t.Errorf("%q %v", b, err)
	}
	p.say(t, 99, []byte("for nobody"))
	p.say(t, control, []byte("\x93\xa3sip\x63\x01")) // accepts what nobody asked for
	p.wants(t, 99, nil)
	p.say(t, control, []byte("\xa5newer"))
	p.say(t, control, []byte("\x82\xa1n\x01\xa1p\xc3"))
	p.say(t, control, []byte("\x93\xa3sip\xcd\x12\x34\x00")) // the number anew
	p.wants(t, control, []byte("\x93\xa3sip\xcd\x12\x34\x01"))
	if _, err := c.ReadMessage(); err != io.EOF {
		t.Errorf("the channel before: %v", err)
	}
}

func TestPeerWithoutMeasure(t *testing.T) {
	_, p := script(t)
	ahead := make(chan struct{}, maxSaid/2) // it reads, if late
	go func() {
		for i := range 10000 {
			ahead <- struct{}{}
			if _, err := p.Write(appendMessage(nil, control, appendRequest(nil, "sip", uint16(i+1), stateRequest))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var accepted, declined int
	for range 10000 {
		_, data, err := readMessage(p.r)
		if err != nil {
			t.Fatal(err)
		}
		<-ahead
		if state(data[len(data)-1]) == stateAccept {
			accepted++
		} else {
			declined++
		}
	}
	if accepted != maxPeerChannels || declined != 10000-maxPeerChannels {
		t.Errorf("%d accepted, %d declined", accepted, declined)
	}
}

// TestPeerThatAsksAndDoesNotRead: what it would be told is kept up to a bound.
func TestPeerThatAsksAndDoesNotRead(t *testing.T) {
	a, p := script(t)
	for i := 0; ; i++ {
		if i > maxSaid+2 {
			t.Fatal("it is kept without end")
		}
		if _, err := p.Write(appendMessage(nil, control, appendRequest(nil, "sip", uint16(i+1), stateRequest))); err != nil {
			break
		}
	}
	err := <-a.ended
	if !errors.Is(err, ErrSlowPeer) {
		t.Error(err)
	}
	a.ended <- err
}

func TestWhatEndsTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  error
	}{
		"no array":             {"\x81\xa1v\x01", ErrWire},
		"an array of three":    {"\x93\x00\xc4\x00\x00", ErrWire},
		"a negative channel":   {"\x92\xff\xc4\x00", ErrWire},
		"a channel of 32 bits": {"\x92\xce\x00\x01\x00\x00\xc4\x00", ErrWire},
		"data that is no bin":  {"\x92\x05\xa1x", ErrWire},
		"too much data":        {"\x92\x05\xc6\x00\x01\x00\x00", ErrWire},
		"an endless message":   {"\x92\x05\xc6\xff\xff\xff\xff", ErrWire},
		"a truncated message":  {"\x92\x05\xc4\x05ab", io.ErrUnexpectedEOF},
		"control without end":  {"\x92\x00\xc4\x04\x93\xdb\xff\xff", ErrWire},
		"an unknown state":     {"\x92\x00\xc4\x05\x93\xa1x\x05\x07", ErrWire},
		"a state too many":     {"\x92\x00\xc4\x05\x93\xa1x\x05\xff", ErrWire},
		"a channel too large":  {"\x92\x00\xc4\x09\x93\xa1x\xce\xff\xff\xff\xff\x00", ErrWire},
		"many versions":        {"\x92\x00\xc5\x01\x04" + strings.Repeat("\x81\xa1v\x01", 65), ErrWire},
		"hanging up":           {"", io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			a, p := script(t)
			go func() { _, _ = io.Copy(io.Discard, p.r) }()
			if _, err := p.Write([]byte(c.bytes)); err != nil {
				t.Fatal(err)
			}
			if c.want != ErrWire {
				p.Close()
			}
			select {
			case err := <-a.ended:
				if !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				a.ended <- err
			case <-time.After(5 * time.Second):
				t.Fatal("it goes on")
			}
		})
	}
}

func TestOpenThatIsNotAnswered(t *testing.T) {
	a, p := script(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go func() { _, _ = io.Copy(io.Discard, p.r) }()
	if _, err := a.Open(ctx, "sip"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if a.Idle().IsZero() {
		t.Error("the channel is still there")
	}
	for _, name := range []string{"", strings.Repeat("x", maxName+1)} {
		if _, err := a.Open(t.Context(), name); err == nil {
			t.Errorf("a name of %d bytes", len(name))
		}
	}
}

// FuzzMessages: what is read is written as something that reads the same, and whatever a
// peer sends, the connection ends.
func FuzzMessages(f *testing.F) {
	f.Add(appendMessage(appendMessage(nil, protocol, version), control, appendRequest(nil, "sip", 7, stateRequest)))
	f.Add(appendMessage(nil, 0x1234, bytes.Repeat([]byte("x"), 300)))
	f.Add(appendMessage(appendMessage(nil, protocol, beacon), 5, nil))
	f.Add(appendMessage(nil, control, append(appendRequest(nil, strings.Repeat("n", 300), 300, stateAccept), appendRequest(nil, strings.Repeat("n", 40), 200, stateDecline)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			ch, data, err := readMessage(r)
			if err != nil {
				break
			}
			ch2, data2, err := readMessage(bufio.NewReader(bytes.NewReader(appendMessage(nil, ch, data))))
			if err != nil || ch2 != ch || !bytes.Equal(data2, data) {
				t.Fatalf("%d %x became %d %x, %v", ch, data, ch2, data2, err)
			}
			all, err := parse(data)
			if err != nil {
				continue
			}
			for _, x := range all {
				if q := x.request; q != nil {
					again, err := parse(appendRequest(nil, q.name, q.ch, q.state))
					if err != nil || len(again) != 1 || *again[0].request != *q {
						t.Fatalf("%+v, %v", q, err)
					}
				}
			}
		}
		x, y := net.Pipe()
		a := start(t, x)
		go func() { _, _ = io.Copy(io.Discard, y) }()
		_, _ = y.Write(b)
		y.Close()
		<-a.ended
	})
}
