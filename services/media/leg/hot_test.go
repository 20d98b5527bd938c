package leg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// listener opens a leg of a phone that only takes packets.
func listener(t testing.TB, n *node, id string, p srtp.Profile) *Leg {
	t.Helper()
	c := listen(t)
	t.Cleanup(func() { c.Close() })
	o := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\n", addrOf(c).Port())
	if _, err := n.Open(Request{ID: id, Room: id, Offer: o, CanSpeak: true}); err != nil {
		t.Fatal(err)
	}
	l, _ := n.Leg(id)
	l.latch(addrOf(c))
	l.mu.Lock()
	defer l.mu.Unlock()
	if p != 0 {
		out, in := newKeys(p), newKeys(p)
		l.st.Secure, l.st.Out, l.st.In = true, &out, &in
	}
	if err := l.configureLocked(); err != nil {
		t.Fatal(err)
	}
	if !l.out.on {
		t.Fatal("nothing is sent to the listener")
	}
	return l
}

// leastAllocs is how often fn allocates: whatever else runs in the process counts as well, and not each time.
func leastAllocs(fn func()) float64 {
	least := math.Inf(1)
	for range 5 {
		least = min(least, testing.AllocsPerRun(200, fn))
	}
	return least
}

// TestZeroAlloc: a packet in and a packet out, with and without keys.
func TestZeroAlloc(t *testing.T) {
	n := newNode(t)
	for _, p := range []srtp.Profile{0, srtp.GCM, srtp.CM80} {
		l := listener(t, n, "z"+p.String(), p)
		payload := bytes.Repeat([]byte{0xff}, 160) // silence: the room does not tick
		f := mix.Frame{Codec: codec.PCMU, Payload: payload, Samples: 160}
		out := leastAllocs(func() {
			f.Tick++
			l.WriteFrame(&f)
			l.room.flush()
		})
		var enc *srtp.Out
		if p != 0 {
			var err error
			if enc, err = srtp.NewOut(*l.st.In); err != nil {
				t.Fatal(err)
			}
		}
		var buf [512]byte
		seq := uint16(0)
		in := leastAllocs(func() {
			seq++
			wire.PutHeader(buf[:], 0, false, seq, 160*uint32(seq), 5)
			size := wire.HeaderSize + copy(buf[wire.HeaderSize:], payload)
			if enc != nil {
				size = enc.RTP(buf[:], size, wire.HeaderSize, 0)
			}
			if !l.rtp(buf[:size], int64(seq)*20_000_000) {
				t.Fatal("packet refused")
			}
		})
		if out != 0 || in != 0 {
			t.Errorf("%s: %v allocations for a packet out, %v for one in", p, out, in)
		}
	}
}

// BenchmarkOut is the way out of one packet: header, protection, its share of a
// batch and the kernel's loopback.
func BenchmarkOut(b *testing.B) {
	n := newNode(b)
	for _, p := range []srtp.Profile{0, srtp.GCM, srtp.CM80} {
		b.Run(p.String(), func(b *testing.B) {
			l := listener(b, n, "b"+p.String()+fmt.Sprint(time.Now().UnixNano()), p)
			f := mix.Frame{Codec: codec.PCMU, Payload: make([]byte, 100), Samples: 160}
			b.ReportAllocs()
			for b.Loop() {
				f.Tick++
				l.WriteFrame(&f)
				if f.Tick%wire.SendBatch == 0 {
					l.room.flush()
				}
			}
			l.room.flush()
		})
	}
}

// FuzzPort gives strangers' and peers' datagrams to each kind of port.
func FuzzPort(f *testing.F) {
	rtp := make([]byte, 172)
	wire.PutHeader(rtp, 0, true, 1, 2, 3)
	f.Add(rtp)
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	if b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 3, Reports: []rtcp.ReceptionReport{{SSRC: 1}}}}); err == nil {
		f.Add(b)
	}
	event := make([]byte, 16)
	wire.PutHeader(event, 101, true, 1, 2, 3)
	binary.BigEndian.PutUint32(event[12:], 0x058a0140)
	f.Add(event)
	n := newNode(f)
	plain := listener(f, n, "plain", 0)
	secure := listener(f, n, "secure", srtp.GCM)
	stranger := netip.MustParseAddrPort("127.0.0.1:9")
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > wire.SlotSize {
			return
		}
		for _, l := range []*Leg{plain, secure} {
			for _, p := range []*port{n.ports[0], l.port, l.rtcp} {
				for _, from := range []netip.AddrPort{stranger, l.st.Told, l.st.ToldRTCP} {
					pkt := make([]byte, len(b), wire.SlotSize)
					copy(pkt, b)
					p.packet(pkt, from, mix.Now())
				}
			}
		}
		if secure.connected.Load() {
			t.Fatal("an unauthentic packet was taken")
		}
	})
}

func TestReceiverReports(t *testing.T) {
	var r receiver
	feed := func(seqs ...uint16) {
		for _, s := range seqs {
			r.packet(&wire.Header{Seq: s, SSRC: 1, Timestamp: uint32(s) * 160}, int64(s)*20_000_000, 8000)
		}
	}
	feed(65534, 65535, 0, 1, 4, 3)
	if r.lost() != 1 || r.received != 6 || r.highest != 1<<16|4 {
		t.Errorf("lost %d, received %d, highest %x", r.lost(), r.received, r.highest)
	}
	if got := r.interval(); got != 36 { // 1 of 7
		t.Errorf("fraction %d", got)
	}
	feed(5, 6, 7, 8)
	if got := r.interval(); got != 0 || r.jitterMs(8000) > 0.2 {
		t.Errorf("fraction %d, jitter %f", got, r.jitterMs(8000))
	}
	r.packet(&wire.Header{Seq: 40000, SSRC: 2}, 0, 8000) // another sender
	if r.lost() != 1 || r.ssrc != 2 {
		t.Errorf("lost %d after a new sender", r.lost())
	}
}

// BenchmarkHalfOpen is what a browser costs that asks to join and never comes:
// SDP both ways, the state on disk, and forgetting it.
func BenchmarkHalfOpen(b *testing.B) {
	n := newNode(b)
	offer := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n" +
		"a=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9:0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9\r\na=setup:actpass\r\n" +
		"a=rtpmap:111 opus/48000/2\r\na=rtcp-mux\r\na=sendrecv\r\n"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Open(Request{ID: "half", Room: "main", WebRTC: true, Offer: offer}); err != nil {
			b.Fatal(err)
		}
		if err := n.CloseLeg("half", 0, ""); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDigits gives telephone-events, and what is none, of a far end.
func FuzzDigits(f *testing.F) {
	f.Add([]byte{5, 0x8a, 1, 64, 0, 1, 5, 0x8a, 1, 64, 0, 1})
	f.Add([]byte{16, 0, 0, 0, 0, 0, 0, 0x80, 255, 255, 9, 9, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var d digits
		for now := int64(0); len(b) >= 6; now += 3e8 {
			name, ms := d.packet(b[:min(4, len(b))], uint32(b[4])<<8|uint32(b[5]), 8000*int(b[5]&1)*6, now)
			if len(name) > 1 || name != "" && !strings.Contains(digitNames, name) || ms < 0 || ms > 65535 {
				t.Fatalf("%q for %d ms", name, ms)
			}
			if name, ms := d.overdue(now); len(name) > 1 || ms < 0 {
				t.Fatalf("%q for %d ms", name, ms)
			}
			b = b[6:]
		}
	})
}
