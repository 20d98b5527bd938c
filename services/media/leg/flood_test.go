package leg

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// junk is a kind of datagrams that nobody asked for, and how they are counted.
type junk struct {
	name   string
	reason int // a negative one: nothing is dropped
	at     func(l *Leg) *port
	own    bool // with the address of the call's far end
	packet func(i int) []byte
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

func rtpPacket(pt uint8, seq uint16, ssrc uint32, payload int) []byte {
	b := make([]byte, wire.HeaderSize+payload)
	wire.PutHeader(b, pt, false, seq, 160*uint32(seq), ssrc)
	return b
}

// junks are the floods. Those that have the far end's own address are what somebody can send who forges it, to
// a call without keys.
func junks() []junk {
	rtp := func(l *Leg) *port { return l.port }
	ctl := func(l *Leg) *port { return l.rtcp }
	browsers := func(l *Leg) *port { return l.h.ports[0] }
	rnd := rand.New(rand.NewPCG(3, 4))
	noise := func(n int, first ...byte) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		copy(b, first)
		return b
	}
	binding := func(i int) []byte {
		b := make([]byte, 20, 64)
		binary.BigEndian.PutUint16(b, 1)
		binary.BigEndian.PutUint32(b[4:], 0x2112a442)
		binary.BigEndian.PutUint32(b[8:], uint32(i))
		b = append(b, 0, 6, 0, 9, 'a', 'b', 'c', 'd', ':', 'e', 'f', 'g', 'h', 0, 0, 0)
		b = append(b, 0, 8, 0, 20)
		b = append(b, make([]byte, 20)...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
		return b
	}
	return []junk{
		{"RTP of strangers", dropStranger, rtp, false, func(i int) []byte { return rtpPacket(0, uint16(i), uint32(i), 160) }},
		{"RTP of another sender, with the caller's address", dropSource, rtp, true, func(i int) []byte { return rtpPacket(0, uint16(i), 7, 160) }},
		{"RTP of changing senders, with the caller's address", dropSource, rtp, true, func(i int) []byte { return rtpPacket(0, uint16(i), uint32(i)|1<<31, 160) }},
		{"a payload type that was not negotiated", dropPayloadType, rtp, true, func(i int) []byte { return rtpPacket(9, uint16(i), 0x1234567, 160) }},
		{"cut RTP", dropJunk, rtp, true, func(i int) []byte { return rtpPacket(0, uint16(i), 0x1234567, 0)[:1+i%11] }},
		{"RTP of another version", dropJunk, rtp, true, func(int) []byte { return noise(172, 0x40, 0) }},
		{"an extension that is longer than its packet", dropMalformed, rtp, true, func(i int) []byte {
			b := rtpPacket(0, uint16(i), 0x1234567, 40)
			b[0] |= 0x10
			binary.BigEndian.PutUint32(b[12:], 0xbede0000|uint32(10+i%60000))
			return b
		}},
		{"more contributing sources than bytes", dropMalformed, rtp, true, func(i int) []byte {
			b := rtpPacket(0, uint16(i), 0x1234567, 20)
			b[0] |= 0x0f
			return b
		}},
		{"padding that is longer than its packet", dropMalformed, rtp, true, func(i int) []byte {
			b := rtpPacket(0, uint16(i), 0x1234567, 20)
			b[0] |= 0x20
			b[len(b)-1] = 200
			return b
		}},
		{"more than a datagram holds", dropOversize, rtp, true, func(i int) []byte { return rtpPacket(0, uint16(i), 0x1234567, 2000) }},
		{"RTCP that does not parse", dropMalformed, rtp, true, func(i int) []byte { return noise(8+i%400, 0x81, 201, 0, byte(i)) }},
		{"RTCP of strangers", dropStranger, ctl, false, func(i int) []byte { return noise(64, 0x80, 200, 0, 6) }},
		{"checks for nobody", dropCheck, browsers, false, binding},
		{"DTLS without a check", dropStranger, browsers, false, func(i int) []byte { return noise(200, 22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 187, 1) }},
		{"a trunk that is not there", dropTrunk, browsers, false, func(i int) []byte { return noise(200, 0xC0) }},
		{"QUIC and other things", dropJunk, browsers, false, func(i int) []byte { return noise(100, 0x40|byte(i&0x3f)) }},
	}
}

// TestCallSurvivesFloods has each kind of junk come 200 times as often as a call's packets while the call goes on:
// nothing of its sound is missing, and the junk is counted for what it is.
func TestCallSurvivesFloods(t *testing.T) {
	n := newNode(t)
	a, b := newPhone(t, false), newPhone(t, false)
	call(t, n, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
	call(t, n, b, "b", "127.0.0.1", addrOf(b.conn).Port(), "127.0.0.1")
	eventually(t, "both hear", func() bool { return a.heard() > 20 && b.heard() > 20 })
	l, _ := n.Leg("a")
	for _, j := range junks() {
		t.Run(j.name, func(t *testing.T) {
			conn := a.conn
			if !j.own {
				conn = listen(t)
				defer conn.Close()
			}
			// What a flood costs it costs each time; what a busy machine costs, it does not.
			var now Info
			var wrong []string
			for range 5 {
				wrong = nil
				before, count, said := n.Counters(), l.Info(), b.heard()
				start := time.Now()
				flood(t, conn, j.at(l).sock.Local(), j.packet)
				eventually(t, "the call goes on", b.hears(15))
				took, after := time.Since(start), n.Counters()
				now = l.Info()
				frames := int(took / mix.TickLength)
				got, lost := after.Drops[j.reason]-before.Drops[j.reason], now.Lost-count.Lost
				t.Logf("%d %s; %d of %d frames, %d packets lost, %d made up", got, DropReasons[j.reason], b.heard()-said, frames, lost, now.Mix.Concealed-count.Mix.Concealed)
				if got < floodPackets/2 {
					wrong = append(wrong, fmt.Sprintf("%d of %d are counted as %s: %v", got, floodPackets, DropReasons[j.reason], after.Drops))
				}
				if lost > uint64(1+frames/50) {
					wrong = append(wrong, fmt.Sprintf("%d of %d packets of the call are lost", lost, frames))
				}
				if wrong == nil {
					break
				}
			}
			for _, w := range wrong {
				t.Error(w)
			}
			if now.Remote != addrOf(a.conn).String() || !now.Connected {
				t.Errorf("the leg is now %+v", now)
			}
		})
	}
	if got := l.Info().Mix; got.Dropped > 10 {
		t.Errorf("the mixer had to drop %d packets", got.Dropped)
	}
}

const floodPackets = 4_000

// flood sends floodPackets, 10,000 a second.
func flood(t *testing.T, conn *net.UDPConn, to netip.AddrPort, packet func(int) []byte) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range floodPackets {
		if i%100 == 0 {
			<-tick.C
		}
		if _, err := conn.WriteToUDPAddrPort(packet(i), to); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkJunk is what a datagram of each kind costs beyond its system call.
func BenchmarkJunk(b *testing.B) {
	n := newNode(b)
	l := listener(b, n, "a", 0)
	now := mix.Now()
	first := rtpPacket(0, 1, 0x1234567, 160)
	l.port.packet(first, l.st.Told, now)
	stranger := netip.MustParseAddrPort("127.0.0.1:9")
	for _, j := range junks() {
		if j.reason == dropOversize {
			continue
		}
		b.Run(j.name, func(b *testing.B) {
			var pkts [64][]byte
			for i := range pkts {
				pkts[i] = j.packet(i)
			}
			from, p := stranger, j.at(l)
			if j.own {
				if from = l.st.Told; p == l.rtcp {
					from = l.st.ToldRTCP
				}
			}
			buf := make([]byte, wire.SlotSize)
			l.in.ssrcAt = mix.Now() + int64(time.Hour)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				src := pkts[i%64]
				p.packet(buf[:copy(buf, src)], from, now)
			}
		})
	}
}

// TestReplayedPackets replays everything that a phone with keys sent, at once and over the roll-over of the
// sequence number, from its own and from another address.
func TestReplayedPackets(t *testing.T) {
	for _, profile := range []srtp.Profile{srtp.GCM, srtp.CM80, srtp.CM32} {
		t.Run(profile.String(), func(t *testing.T) {
			n := newNode(t)
			l := listener(t, n, "a", profile)
			out, err := srtp.NewOut(*l.st.In)
			if err != nil {
				t.Fatal(err)
			}
			const first, count = 65536 - 500, 1000
			var sent [][]byte
			for i := range uint64(count) {
				index := first + i
				b := make([]byte, wire.SlotSize)
				copy(b, rtpPacket(0, uint16(index), 9, 160))
				sent = append(sent, b[:out.RTP(b, 172, wire.HeaderSize, uint32(index>>16))])
			}
			give := func(b []byte, from netip.AddrPort, at int) {
				l.port.packet(slices.Clone(b), from, int64(at)*int64(mix.TickLength))
			}
			for i, b := range sent {
				give(b, l.st.Told, i)
				if i%97 == 0 { // at once, also right at the roll-over
					give(b, l.st.Told, i)
				}
			}
			if got := l.Info().Received; got != count {
				t.Fatalf("%d of %d packets were taken", got, count)
			}
			heard := l.heard.Load()
			for range 2 {
				for i, b := range sent {
					give(b, l.st.Told, count+i)
				}
			}
			for i, b := range sent {
				give(b, netip.MustParseAddrPort("127.0.0.1:9"), count+i)
			}
			if got := l.Info(); got.Received != count || got.Mix.Received != count {
				t.Errorf("%d, of which the mixer %d, packets were taken of %d", got.Received, got.Mix.Received, count)
			}
			if l.heard.Load() != heard {
				t.Error("a replay keeps the leg alive")
			}
			c := n.Counters()
			// Of numbers from before the roll-over those of 32,768 later would be meant: they fail authentication.
			if c.Drops[dropReplay]+c.Drops[dropAuth] < 2*count || c.Drops[dropStranger] < count {
				t.Errorf("dropped: %v", c.Drops)
			}
		})
	}
}

// TestSenderBeginsAnew has a caller without keys, and one with them, send under another SSRC: with keys at once,
// without them when the one before is silent.
func TestSenderBeginsAnew(t *testing.T) {
	n := newNode(t)
	for _, profile := range []srtp.Profile{0, srtp.GCM} {
		l := listener(t, n, "a"+profile.String(), profile)
		var out *srtp.Out
		if profile != 0 {
			var err error
			if out, err = srtp.NewOut(*l.st.In); err != nil {
				t.Fatal(err)
			}
		}
		give := func(seq uint16, ssrc uint32, at time.Duration) bool {
			b := make([]byte, wire.SlotSize)
			size := copy(b, rtpPacket(0, seq, ssrc, 160))
			if out != nil {
				size = out.RTP(b, size, wire.HeaderSize, 0)
			}
			return l.rtp(b[:size], int64(at))
		}
		ms := time.Millisecond
		for _, c := range []struct {
			ssrc uint32
			at   time.Duration
			want bool
		}{{1, 0, true}, {1, 20 * ms, true}, {2, 30 * ms, out != nil}, {1, 40 * ms, true}, {2, 139 * ms, out != nil}, {2, 240 * ms, true}, {2, 260 * ms, true}, {1, 270 * ms, out != nil}} {
			if got := give(uint16(100+c.at/ms), c.ssrc, c.at); got != c.want {
				t.Errorf("%v: sender %d at %v: taken %t", profile, c.ssrc, c.at, got)
			}
		}
	}
}

// TestAnyCodecOfTheAnswer has a phone that answers an offer of ours with three codecs send each of them.
func TestAnyCodecOfTheAnswer(t *testing.T) {
	n := newNode(t)
	conn := listen(t)
	defer conn.Close()
	o, err := n.Open(Request{ID: "a", Room: "main", Epoch: 1, CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sdp.Parse(o.SDP, sdp.Phone); err != nil {
		t.Fatal(err)
	}
	answer := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio " + itoa(addrOf(conn).Port()) +
		" RTP/AVP 0 96 9 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
	if _, err := n.Answer("a", 1, answer, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	l, _ := n.Leg("a")
	if i := l.Info(); i.Codec != "opus" {
		t.Errorf("answered with %s", i.Codec)
	}
	enc := map[uint8]codec.ID{96: codec.Opus, 0: codec.PCMU, 9: codec.G722, 8: codec.PCMA}
	for k, pt := range []uint8{0, 96, 9, 0, 96, 8} {
		e, err := codec.NewEncoder(enc[pt])
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			b := make([]byte, wire.SlotSize)
			at := 5*k + i
			wire.PutHeader(b, pt, false, uint16(at), uint32(at)*enc[pt].RTPSamples(), 5)
			size, err := e.Encode(b[wire.HeaderSize:], make([]float32, codec.FrameSamples))
			if err != nil {
				t.Fatal(err)
			}
			if got := l.rtp(b[:wire.HeaderSize+size], int64(at)*int64(mix.TickLength)); got != (pt != 8) {
				t.Errorf("a packet of %v: taken %t", enc[pt], got)
			}
		}
	}
	if i := l.Info(); i.Mix.Received != 25 || i.Mix.Dropped != 0 {
		t.Errorf("the mixer got %d packets and dropped %d", i.Mix.Received, i.Mix.Dropped)
	}
	n.Abandon()
	n.start()
	l, _ = n.Leg("a")
	if !l.rtp(rtpPacket(0, 100, 5, 160), int64(time.Minute)) {
		t.Error("the next process takes one codec only")
	}
}

// TestGoodbyeAloneEndsNothing: a BYE that anybody may send to a call without keys ends it only when the far end
// is silent as well.
func TestGoodbyeAloneEndsNothing(t *testing.T) {
	n := newNode(t)
	a, b := newPhone(t, false), newPhone(t, false)
	call(t, n, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
	call(t, n, b, "b", "127.0.0.1", addrOf(b.conn).Port(), "127.0.0.1")
	eventually(t, "both hear", func() bool { return a.heard() > 20 && b.heard() > 20 })
	bye, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 5}, &rtcp.Goodbye{Sources: []uint32{0x1234567}}})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := n.Leg("a")
	before := n.Counters().RTCPIn
	a.send(bye) // the phones mux
	eventually(t, "the BYE came", func() bool { return n.Counters().RTCPIn > before })
	eventually(t, "b hears two seconds more", b.hears(125))
	if l.lost.Load() {
		t.Error("the call is lost")
	}
}
