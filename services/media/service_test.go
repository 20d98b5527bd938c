package media

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/wire"
)

// Whoever took the rooms over last is the only one whose orders are carried out.
func TestOrdersOfAFormerConferenceAreRefused(t *testing.T) {
	r := newRig(t)
	open := contract.LegOpen{Leg: "a", Room: "main", Epoch: 9, Term: 2, Transport: contract.TransportBus}
	if _, err := ask(r, contract.MediaLegOpen, open); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(r, contract.MediaInfo, contract.MediaQuery{Term: 3}); err != nil { // it compares before it orders anything
		t.Fatal(err)
	}
	yes := true
	for name, err := range map[string]error{
		"open":   second(ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "b", Room: "main", Epoch: 99, Term: 2, Transport: contract.TransportBus})),
		"set":    second(ask(r, contract.MediaLegSet, contract.LegSet{Leg: "a", Epoch: 99, Term: 2, Muted: &yes})),
		"sdp":    second(ask(r, contract.MediaLegSDP, contract.LegSDP{Leg: "a", Epoch: 99, Term: 2})),
		"close":  second(ask(r, contract.MediaLegClose, contract.LegClose{Leg: "a", Epoch: 99, Term: 2})),
		"trunks": second(ask(r, contract.MediaTrunks, contract.TrunksSet{Room: "main", Epoch: 99, Term: 2})),
		"info":   second(ask(r, contract.MediaInfo, contract.MediaQuery{Term: 2})),
		"none":   second(ask(r, contract.MediaLegClose, contract.LegClose{Leg: "a", Epoch: 99})),
	} {
		if !errors.Is(err, contract.ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ask(r, contract.MediaLegClose, contract.LegClose{Leg: "a", Epoch: 99, Term: 3}); err != nil {
		t.Error(err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a bus with an identity in place of the real one and a media process.
type rig struct {
	t    *testing.T
	bus  *bustest.Server
	conf *bus.Conn // asks as conference does
	port int
	stop func()
	run  *Service
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, bus: bustest.Start(t), port: freePorts(t)}
	svc, err := bus.NewService(r.bus.Conn("identity"), "identity", "1.0.0", "test")
	if err == nil {
		t.Cleanup(svc.Stop)
		err = bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			return &contract.IdentityState{State: "ready", Account: contract.Account{ID: bustest.Account}}, nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.conf = r.bus.Conn("conference")
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// freePorts finds room for the block of ports that a media process takes.
func freePorts(t *testing.T) int {
	t.Helper()
	return bustest.MediaPorts(t, func(base int) bool {
		for i := range config.MediaPorts {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: base + i})
			if err != nil {
				return false
			}
			c.Close()
		}
		return true
	})
}

func (r *rig) start() {
	r.t.Helper()
	env := r.bus.Env("media")
	env.Config.Media.Worker, env.Config.Media.Listen, env.Config.Media.Loudest = "m1", fmt.Sprintf("127.0.0.1:%d", r.port), 4
	env.Config.Media.Shed = true
	s, err := New(env)
	if err != nil {
		r.t.Fatal(err)
	}
	r.run = s.(*Service)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx); close(done) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.t.Errorf("media: %v", err)
		}
		r.stop = func() {}
	}
	r.until("media answers", func() bool {
		select {
		case err := <-done:
			r.t.Fatalf("media ended: %v", err)
		default:
		}
		_, err := bus.Call(context.Background(), r.conf, contract.MediaInfo, &contract.MediaQuery{}, "m1")
		return err == nil
	})
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("did not happen: %s", what)
		}
		<-tick.C
	}
}

func ask[Q, A any](r *rig, cmd contract.Command[Q, A], q Q) (*A, error) {
	return bus.Call(context.Background(), r.conf, cmd, &q, "m1")
}

// events gathers one kind of event.
func events[E any](r *rig, ev contract.Event[E]) <-chan E {
	r.t.Helper()
	ch := make(chan E, 1024)
	sub, err := bus.Subscribe(r.conf, ev, func(_ context.Context, _ []string, e *E) {
		select {
		case ch <- *e:
		default:
		}
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(sub.Stop)
	return ch
}

func await[E any](t *testing.T, ch <-chan E, what string, ok func(E) bool) E {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case e := <-ch:
			if ok(e) {
				return e
			}
		case <-timeout:
			t.Fatalf("no event: %s", what)
		}
	}
}

func dial(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func offer(c *net.UDPConn) string {
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\n",
		c.LocalAddr().(*net.UDPAddr).Port)
}

// talk sends a tone until the test ends.
func talk(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	enc, err := codec.NewEncoder(codec.PCMU)
	if err != nil {
		t.Fatal(err)
	}
	var pcm [codec.FrameSamples]float32
	for i := range pcm {
		pcm[i] = float32(0.3 * math.Sin(2*math.Pi*400*float64(i)/codec.Rate))
	}
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var b [2048]byte
		for i := uint32(0); ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			wire.PutHeader(b[:], 0, false, uint16(i), i*160, 77)
			n, err := enc.Encode(b[wire.HeaderSize:], pcm[:])
			if err == nil {
				_, err = c.WriteToUDPAddrPort(b[:wire.HeaderSize+n], to)
			}
			if err != nil {
				return // the socket was closed
			}
		}
	}()
}

func TestOverTheBus(t *testing.T) {
	r := newRig(t)
	beats, changes, voices, stats := events(r, contract.MediaBeat), events(r, contract.MediaLeg), events(r, contract.MediaVoice), events(r, contract.MediaStats)
	a, b := dial(t), dial(t)
	open := contract.LegOpen{Leg: "a", Room: "main", Epoch: 3, Transport: contract.TransportRTP, Offer: offer(a), Remote: "127.0.0.1", CanSpeak: true}
	oa, err := ask(r, contract.MediaLegOpen, open)
	if err != nil || oa.Transport != "rtp" || oa.Codec != "pcmu" {
		t.Fatalf("%+v, %v", oa, err)
	}
	open.Leg, open.Offer = "b", offer(b)
	if _, err := ask(r, contract.MediaLegOpen, open); err != nil {
		t.Fatal(err)
	}
	far, err := sdp.Parse(oa.SDP, sdp.Phone)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, a, far.Addr)
	await(t, changes, "a connected", func(e contract.LegChange) bool { return e.Leg == "a" && e.State == "connected" })
	await(t, voices, "a speaks", func(e contract.VoiceChange) bool { return e.Leg == "a" && e.Speaking && e.Room == "main" })
	buf := make([]byte, 2048)
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := b.ReadFromUDPAddrPort(buf); err != nil || n != 172 {
		t.Fatalf("b got %d bytes, %v", n, err)
	}
	await(t, stats, "statistics of a", func(e contract.LegStats) bool {
		for _, l := range e.Legs {
			if l.Leg == "a" && l.Quality.PacketsIn > 10 && l.Connected {
				return true
			}
		}
		return false
	})
	await(t, beats, "a beat with two legs", func(e contract.WorkerBeat) bool { return e.Worker == "m1" && e.Legs == 2 })

	page, err := ask(r, contract.MediaInfo, contract.MediaQuery{Limit: 1})
	if err != nil || len(page.Legs) != 1 || page.Legs[0].Leg != "a" || !page.More {
		t.Errorf("first page %+v, %v", page, err)
	}
	page, err = ask(r, contract.MediaInfo, contract.MediaQuery{Limit: 1, After: "a"})
	if err != nil || len(page.Legs) != 1 || page.Legs[0].Leg != "b" || page.More {
		t.Errorf("second page %+v, %v", page, err)
	}

	yes := true
	info, err := ask(r, contract.MediaLegSet, contract.LegSet{Leg: "a", Epoch: 3, Muted: &yes})
	if err != nil || !info.Muted {
		t.Errorf("%+v, %v", info, err)
	}
	await(t, voices, "a fell silent", func(e contract.VoiceChange) bool { return e.Leg == "a" && !e.Speaking })
	for _, c := range []struct {
		name string
		err  error
		want *contract.Error
	}{
		{"lower epoch", second(ask(r, contract.MediaLegSet, contract.LegSet{Leg: "a", Epoch: 2, Muted: &yes})), contract.ErrStale},
		{"no such leg", second(ask(r, contract.MediaLegSet, contract.LegSet{Leg: "x", Epoch: 3})), contract.ErrNotFound},
		{"bad SDP", second(ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "c", Room: "main", Transport: contract.TransportRTP, Offer: "x"})), contract.ErrBadRequest},
		{"no codec", second(ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "c", Room: "main", Transport: contract.TransportRTP,
			Offer: strings.Replace(offer(a), "AVP 0", "AVP 3", 1)})), contract.ErrNoCodec},
		{"transport", second(ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "c", Room: "main", Transport: "smoke"})), contract.ErrBadRequest},
		{"browser without offer", second(ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "c", Room: "main", Transport: contract.TransportWebRTC})), contract.ErrBadRequest},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %s", c.name, c.err, c.want.Code)
		}
	}
	if _, err := ask(r, contract.MediaLegClose, contract.LegClose{Leg: "b", Epoch: 3}); err != nil {
		t.Error(err)
	}
	r.stop()
	await(t, changes, "a closed at the end", func(e contract.LegChange) bool { return e.Leg == "a" && e.State == "closed" && e.Reason == "shutdown" })
}

func second[A any](_ *A, err error) error { return err }

// TestBusDies: legs keep mixing while the bus is away, and are served again after.
func TestBusDies(t *testing.T) {
	r := newRig(t)
	a, b := dial(t), dial(t)
	oa, err := ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "a", Room: "main", Transport: contract.TransportRTP, Offer: offer(a), Remote: "127.0.0.1", CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "b", Room: "main", Transport: contract.TransportRTP, Offer: offer(b), Remote: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	far, err := sdp.Parse(oa.SDP, sdp.Phone)
	if err != nil {
		t.Fatal(err)
	}
	r.bus.Stop()
	talk(t, a, far.Addr)
	buf := make([]byte, 2048)
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, _, err := b.ReadFromUDPAddrPort(buf); err != nil {
			t.Fatalf("without the bus: %v", err)
		}
	}
	r.bus.Restart()
	r.until("media serves again", func() bool {
		i, err := ask(r, contract.MediaInfo, contract.MediaQuery{})
		return err == nil && len(i.Legs) == 2
	})
}

// TestBot: a bot's leg over the bus speaks to a phone.
func TestBot(t *testing.T) {
	r := newRig(t)
	b := dial(t)
	if _, err := ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "b", Room: "main", Transport: contract.TransportRTP, Offer: offer(b), Remote: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	o, err := ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: "bot", Room: "main", Transport: contract.TransportBus, CanSpeak: true})
	if err != nil || o.Transport != "bus" {
		t.Fatalf("%+v, %v", o, err)
	}
	bot := r.bus.Bot("bot", "main", contract.RightSpeak)
	frame := make([]byte, 10*1920) // 200 ms of s16le at 48 kHz
	for i := 0; i < len(frame); i += 2 {
		frame[i+1] = byte(20 * (i / 200 % 2))
	}
	subject := contract.AudioSay.Subject(bustest.Account, "main", "bot")
	if err := publishPCM(bot, subject, frame); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ReadFromUDPAddrPort(buf); err != nil {
		t.Fatalf("the phone heard no bot: %v", err)
	}
	if _, err := ask(r, contract.MediaLegClose, contract.LegClose{Leg: "bot"}); err != nil {
		t.Error(err)
	}
}
