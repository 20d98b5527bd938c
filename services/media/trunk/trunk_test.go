package trunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/wire"
)

const rate = 48_000

// worker is a media worker with one room, and a socket on loopback.
type worker struct {
	t      testing.TB
	name   string
	key    *Key
	sock   *wire.Socket
	room   *mix.Room
	trunks *Trunks
	last   atomic.Pointer[[]byte] // the last datagram that came, as it came
	errs   atomic.Int64
}

func (w *worker) Sockaddr(a netip.AddrPort) (wire.Sockaddr, bool) { return w.sock.Sockaddr(a) }
func (w *worker) Writer() *wire.Writer                            { return wire.NewWriter(w.sock) }
func (w *worker) Done(x *wire.Writer)                             { x.Flush() }

func newWorker(t testing.TB, name string, loudest int) *worker {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{t: t, name: name}
	if w.sock, err = wire.New(c); err != nil {
		t.Fatal(err)
	}
	if w.key, err = NewKey(name, "s-"+name); err != nil {
		t.Fatal(err)
	}
	w.room = mix.NewRoom(mix.Config{Name: "r", Loudest: loudest})
	w.trunks = New(w.key, w)
	var wg sync.WaitGroup
	wg.Go(w.read)
	t.Cleanup(func() {
		w.sock.Close()
		wg.Wait()
		w.room.Close()
	})
	return w
}

func (w *worker) read() {
	r := wire.NewReader(w.sock)
	for {
		n, err := r.Read()
		if err != nil {
			return
		}
		for i := range n {
			pkt, _, ok := r.Packet(i)
			if !ok || wire.Classify(pkt) != wire.Trunk {
				w.t.Errorf("%s: not a trunk's: % x", w.name, pkt)
				continue
			}
			raw := append([]byte(nil), pkt...)
			w.last.Store(&raw)
			if err := w.trunks.Receive(pkt, mix.Now()); err != nil {
				w.errs.Add(1)
			}
		}
	}
}

func (w *worker) peer(nonce string, leaf bool) Peer {
	return Peer{Worker: w.name, Started: "s-" + w.name, Public: w.key.Public(), Addr: w.sock.Local(), Nonce: nonce, Leaf: leaf}
}

func (w *worker) set(peers ...Peer) {
	w.t.Helper()
	if err := w.trunks.Set("r", w.room, peers); err != nil {
		w.t.Fatal(err)
	}
}

// join has workers hear each other.
func join(all ...*worker) {
	for _, w := range all {
		var peers []Peer
		for _, o := range all {
			if o != w {
				peers = append(peers, o.peer("n", false))
			}
		}
		w.set(peers...)
	}
}

// ear decodes what a listener gets and measures tones in it.
type ear struct {
	t   testing.TB
	dec codec.Decoder
	mu  sync.Mutex
	pcm []float32
}

func (e *ear) WriteFrame(f *mix.Frame) {
	buf := make([]float32, codec.MaxSamples)
	n, err := e.dec.Decode(buf, f.Payload)
	if err != nil {
		e.t.Error(err)
	}
	e.mu.Lock()
	e.pcm = append(e.pcm, buf[:n]...)
	e.mu.Unlock()
}

func (w *worker) listener(id string) *ear {
	w.t.Helper()
	dec, err := codec.NewDecoder(mix.Opus)
	if err != nil {
		w.t.Fatal(err)
	}
	e := &ear{t: w.t, dec: dec}
	if _, err := w.room.Add(id, mix.Opus, mix.Opus, e, false, false); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// level is that of a tone in the last 200 ms, in dBFS; -inf while there is less.
func (e *ear) level(hz float64) float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := rate / 5
	if len(e.pcm) < n {
		return math.Inf(-1)
	}
	var re, im float64
	for i, v := range e.pcm[len(e.pcm)-n:] {
		a := 2 * math.Pi * hz * float64(i) / rate
		re += float64(v) * math.Cos(a)
		im += float64(v) * math.Sin(a)
	}
	return 20 * math.Log10(2*math.Hypot(re, im)/float64(n)+1e-9)
}

// talker says a tone.
type talker struct {
	t   testing.TB
	m   *mix.Member
	id  mix.CodecID
	enc codec.Encoder
	pkt mix.Packet
	hz  float64
	at  int
}

func (w *worker) talker(id string, c mix.CodecID, hz float64) *talker {
	w.t.Helper()
	m, err := w.room.Add(id, c, mix.Opus, nil, true, false)
	if err != nil {
		w.t.Fatal(err)
	}
	enc, err := codec.NewEncoder(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return &talker{t: w.t, m: m, id: c, enc: enc, hz: hz, pkt: mix.Packet{SSRC: uint32(hz), Level: -1}}
}

func tone(dst []float32, hz float64, at int) {
	for i := range dst {
		dst[i] = float32(0.3 * math.Sin(2*math.Pi*hz*float64(at+i)/rate))
	}
}

func (k *talker) say() {
	var pcm [codec.FrameSamples]float32
	tone(pcm[:], k.hz, k.at)
	k.at += len(pcm)
	var b [codec.MaxPayload]byte
	n, err := k.enc.Encode(b[:], pcm[:])
	if err != nil {
		k.t.Fatal(err)
	}
	k.pkt.Payload, k.pkt.Arrival = b[:n], mix.Now()
	k.m.Push(&k.pkt)
	k.pkt.Seq++
	k.pkt.Timestamp += k.id.RTPSamples()
}

// until has the talkers speak until ok, for 10 s at most.
func until(t *testing.T, what func() string, ok func() bool, talkers ...*talker) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; !ok(); n++ {
		if n == 500 {
			t.Fatal(what())
		}
		<-tick.C
		for _, k := range talkers {
			k.say()
		}
	}
}

func TestWorkersHearEachOther(t *testing.T) {
	for _, c := range []mix.CodecID{mix.Opus, mix.PCMU, mix.G722} {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
			join(a, b)
			atA, atB := a.listener("la"), b.listener("lb")
			x, y := a.talker("x", c, 440), b.talker("y", mix.Opus, 1000)
			until(t, func() string {
				return fmt.Sprintf("at a: %.0f and %.0f dBFS, at b: %.0f and %.0f", atA.level(440), atA.level(1000), atB.level(440), atB.level(1000))
			}, func() bool {
				return atA.level(440) > -30 && atA.level(1000) > -30 && atB.level(440) > -30 && atB.level(1000) > -30
			}, x, y)
			if n := a.errs.Load() + b.errs.Load(); n != 0 {
				t.Errorf("%d packets dropped", n)
			}
		})
	}
}

// source is a bot's voice.
type source struct {
	hz float64
	at int
}

func (s *source) Read(dst []float32) bool {
	tone(dst, s.hz, s.at)
	s.at += len(dst)
	return true
}

func TestBotIsHeardElsewhere(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	e := b.listener("l")
	m, err := a.room.AddSource("bot", &source{hz: 700}, true, false)
	if err != nil {
		t.Fatal(err)
	}
	m.Wake()
	until(t, func() string { return fmt.Sprintf("%.0f dBFS", e.level(700)) }, func() bool { return e.level(700) > -30 })
}

// TestTree: two leaves hear each other through a hub and another hub's leaf, and nobody gets his own voice back.
func TestTree(t *testing.T) {
	h, i, a, b, c := newWorker(t, "h", 3), newWorker(t, "i", 3), newWorker(t, "a", 3), newWorker(t, "b", 3), newWorker(t, "c", 3)
	h.set(i.peer("n", false), a.peer("n", true), b.peer("n", true))
	i.set(h.peer("n", false), c.peer("n", true))
	a.set(h.peer("n", false))
	b.set(h.peer("n", false))
	c.set(i.peer("n", false))
	x := a.talker("x", mix.Opus, 440)
	ears := map[string]*ear{}
	for _, w := range []*worker{h, i, a, b, c} {
		ears[w.name] = w.listener("l")
	}
	until(t, func() string {
		s := ""
		for n, e := range ears {
			s += fmt.Sprintf("%s %.0f dBFS ", n, e.level(440))
		}
		return s
	}, func() bool {
		for _, e := range ears {
			if e.level(440) < -30 {
				return false
			}
		}
		return true
	}, x)
	if n := a.trunks.Counts().Received; n != 0 {
		t.Errorf("%d packets came back to who said them", n)
	}
	if n := h.trunks.Counts().Received; n > uint64(x.pkt.Seq) {
		t.Errorf("the hub got %d packets of %d that were said", n, x.pkt.Seq)
	}
}

// TestOnlyTheLoudestAreCarried: of twenty who speak, three go to the other worker.
func TestOnlyTheLoudestAreCarried(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	var all []*talker
	for i := range 20 {
		k := a.talker(fmt.Sprint("x", i), mix.PCMU, 300+float64(i)*50)
		all = append(all, k)
	}
	said := func() int { return int(all[0].pkt.Seq) }
	until(t, func() string { return "" }, func() bool { return said() == 100 }, all...)
	// Of each tick three, and while none has a seat yet, those of the first one.
	if n := a.trunks.Counts().Sent; n < 200 || n > 3*100+20 {
		t.Errorf("%d packets of 2,000 were sent", n)
	}
}

func TestMutedIsNotCarried(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	k := a.talker("x", mix.Opus, 440)
	k.m.SetMuted(true)
	until(t, func() string { return "" }, func() bool { return k.pkt.Seq == 25 }, k)
	if n := a.trunks.Counts().Sent; n != 0 {
		t.Errorf("%d packets were sent", n)
	}
}

func TestTrunkEnds(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	e, k := b.listener("l"), a.talker("x", mix.Opus, 440)
	until(t, func() string { return "not heard" }, func() bool { return e.level(440) > -30 }, k)
	members := b.room.Len()
	b.set()
	if got := b.room.Len(); got != members-1 || b.trunks.Has("r") {
		t.Errorf("%d members, %d were there with the speaker", got, members)
	}
	errs := b.errs.Load()
	until(t, func() string { return "what a sends is not refused" }, func() bool { return b.errs.Load() > errs }, k)
	a.set()
	sent := a.trunks.Counts().Sent
	k.say()
	if n := a.trunks.Counts().Sent; n != sent {
		t.Errorf("%d packets after the end", n-sent)
	}
}

func TestSpeakerWhoIsGoneIsForgotten(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	e, k := b.listener("l"), a.talker("x", mix.Opus, 440)
	until(t, func() string { return "not heard" }, func() bool { return e.level(440) > -30 }, k)
	b.trunks.Expire(mix.Now())
	if n := b.room.Len(); n != 2 {
		t.Errorf("%d members after a moment", n)
	}
	b.trunks.Expire(mix.Now() + int64(forgetAfter) + 1)
	if n := b.room.Len(); n != 1 {
		t.Errorf("%d members after a long silence", n)
	}
	until(t, func() string { return "not back" }, func() bool { return b.room.Len() == 2 }, k)
}

// TestStrangers: what was not sealed for this session, now, is refused.
func TestStrangers(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	k := a.talker("x", mix.Opus, 440)
	until(t, func() string { return "nothing came" }, func() bool { return b.last.Load() != nil && b.trunks.Counts().Received > 0 }, k)
	good := *b.last.Load()
	change := func(at int) []byte {
		c := append([]byte(nil), good...)
		c[at] ^= 1
		return c
	}
	for name, pkt := range map[string][]byte{
		"replayed":        append([]byte(nil), good...),
		"another session": change(3),
		"another speaker": change(SessionIDLen + wire.HeaderSize + 4 + 2 + streamLen + 2),
		"another codec":   change(SessionIDLen + 1),
		"changed sound":   change(len(good) - 20),
		"changed tag":     change(len(good) - 1),
		"cut":             append([]byte(nil), good[:len(good)-7]...),
		"head alone":      append([]byte(nil), good[:20]...),
		"empty":           {},
	} {
		if err := b.trunks.Receive(pkt, mix.Now()); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := b.room.Len(); n != 1 {
		t.Errorf("%d members", n)
	}
}

// TestALyingWorker: a peer that names ever new speakers costs no more than some members.
func TestALyingWorker(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	join(a, b)
	x := (*a.trunks.sets["r"].peers.Load())[0]
	y := (*b.trunks.sets["r"].peers.Load())[0]
	var buf [wire.SlotSize]byte
	for i := range 1000 {
		n := x.seal(buf[:], fmt.Sprint("ghost", i), mix.PCMU, &mix.Packet{Payload: make([]byte, 160), Seq: uint16(i)})
		if err := y.receive(buf[:n], int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.room.Len(); n != maxSpeakers {
		t.Errorf("%d members", n)
	}
	if n := x.seal(buf[:], "x", mix.Opus, &mix.Packet{Payload: make([]byte, wire.SlotSize-head)}); n != 0 {
		t.Error("a packet that does not fit is sealed")
	}
}

func TestPeersAreChecked(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	for name, change := range map[string]func(*Peer){
		"no worker": func(p *Peer) { p.Worker = "" }, "itself": func(p *Peer) { p.Worker = "a" }, "no nonce": func(p *Peer) { p.Nonce = "" },
		"short key": func(p *Peer) { p.Public = p.Public[:31] }, "zero key": func(p *Peer) { p.Public = make([]byte, 32) },
		"no address": func(p *Peer) { p.Addr = netip.AddrPort{} }, "IPv6": func(p *Peer) { p.Addr = netip.MustParseAddrPort("[2001:db8::1]:1") },
		"zero byte": func(p *Peer) { p.Started = "x\x00y" },
	} {
		p := b.peer("n", false)
		change(&p)
		if err := a.trunks.Set("r", a.room, []Peer{p}); !errors.Is(err, ErrPeer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a.trunks.Has("r") {
		t.Error("the room has trunks")
	}
}

// TestKeysAreUsedOnce: another nonce, room, start or direction gives other keys.
func TestKeysAreUsedOnce(t *testing.T) {
	a, b := newWorker(t, "a", 3), newWorker(t, "b", 3)
	seen := map[string]string{}
	add := func(name, room string, p Peer) {
		out, in, err := a.key.halves(room, &p)
		if err != nil {
			t.Fatal(err)
		}
		for dir, h := range map[string]half{"out": out, "in": in} {
			k := string(h.keys.Key)
			if was, ok := seen[k]; ok {
				t.Errorf("%s %s has the keys of %s", name, dir, was)
			}
			seen[k] = name + " " + dir
		}
	}
	add("first", "r", b.peer("n", false))
	add("another nonce", "r", b.peer("m", false))
	add("another room", "q", b.peer("n", false))
	later := b.peer("n", false)
	later.Started = "again"
	add("another start", "r", later)
}

// TestTrunksThatStayGoOn: a peer that is added does not disturb the others.
func TestTrunksThatStayGoOn(t *testing.T) {
	a, b, c := newWorker(t, "a", 3), newWorker(t, "b", 3), newWorker(t, "c", 3)
	join(a, b)
	was := (*a.trunks.sets["r"].peers.Load())[0]
	a.set(c.peer("n", false), b.peer("n", false))
	if now := (*a.trunks.sets["r"].peers.Load())[1]; now != was {
		t.Error("the trunk to b is another one")
	}
	a.set(b.peer("m", false))
	if now := (*a.trunks.sets["r"].peers.Load())[0]; now == was {
		t.Error("the trunk to b has its keys still")
	}
}

func FuzzReceive(f *testing.F) {
	a, b := newWorker(f, "a", 3), newWorker(f, "b", 3)
	join(a, b)
	x := (*a.trunks.sets["r"].peers.Load())[0]
	var buf [wire.SlotSize]byte
	n := x.seal(buf[:], "someone", mix.PCMU, &mix.Packet{Payload: make([]byte, 160), Level: 20})
	f.Add(buf[:n])
	f.Add(buf[:SessionIDLen])
	f.Add([]byte{0xC0})
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if err := b.trunks.Receive(append([]byte(nil), pkt...), mix.Now()); err == nil && b.room.Len() > 1 {
			t.Fatalf("somebody came in by % x", pkt)
		}
	})
}

func BenchmarkCarry(b *testing.B) {
	for _, peers := range []int{1, 15} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			a := newWorker(b, "a", 3)
			var list []Peer
			for i := range peers {
				key, err := NewKey(fmt.Sprint("p", i), "s")
				if err != nil {
					b.Fatal(err)
				}
				c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { c.Close() })
				list = append(list, Peer{Worker: key.worker, Started: "s", Public: key.Public(), Nonce: "n", Addr: c.LocalAddr().(*net.UDPAddr).AddrPort()})
			}
			a.set(list...)
			set := a.trunks.sets["r"]
			m, err := a.room.Add("x", mix.Opus, mix.Opus, nil, true, false)
			if err != nil {
				b.Fatal(err)
			}
			w := wire.NewWriter(a.sock)
			set.sock = &pooled{a, w}
			p := mix.Packet{Payload: make([]byte, 90)}
			b.ReportAllocs()
			for b.Loop() {
				set.Carry(m, mix.Opus, p)
			}
		})
	}
}

// pooled gives the same writer each time, as a worker's pool does.
type pooled struct {
	*worker
	w *wire.Writer
}

func (p *pooled) Writer() *wire.Writer { return p.w }

// FuzzSealed has a peer seal anything: headers, speakers and payloads that a worker gone wrong may send.
func FuzzSealed(f *testing.F) {
	a, b := newWorker(f, "a", 3), newWorker(f, "b", 3)
	join(a, b)
	x := (*a.trunks.sets["r"].peers.Load())[0]
	var good [wire.SlotSize]byte
	n := x.seal(good[:], "someone", mix.PCMU, &mix.Packet{Payload: make([]byte, 160), Level: 20})
	f.Add(good[SessionIDLen:n-16], uint8(40))
	f.Add([]byte{0x90, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0xff, 0xff, 1, 7}, uint8(0))
	f.Add([]byte{0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 4, 1, 7, 0x80, 0, 0, 0, 0, 0, 2, 1, 'x', 0, 0, 0, 0, 0, 0xff, 0xff, 0xff}, uint8(32))
	index := uint64(1 << 20)
	f.Fuzz(func(t *testing.T, plain []byte, size uint8) {
		if len(plain) < wire.HeaderSize || len(plain) > 1400 {
			return
		}
		index++
		var buf [wire.SlotSize]byte
		binary.BigEndian.PutUint64(buf[:], x.outID)
		h := buf[SessionIDLen:]
		copy(h, plain)
		binary.BigEndian.PutUint16(h[2:], uint16(index))
		binary.BigEndian.PutUint32(h[8:], 0)
		var head wire.Header
		at := wire.HeaderSize + int(size)
		if head.Parse(h[:len(plain)]) {
			at = head.Size
		}
		n := x.out.RTP(h, max(len(plain), at), at, uint32(index>>16))
		_ = b.trunks.Receive(buf[:SessionIDLen+n], mix.Now())
		if got := b.room.Len(); got > maxSpeakers {
			t.Fatalf("%d members", got)
		}
	})
}
