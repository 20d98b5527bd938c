package wire

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

func socket(t testing.TB, network, addr string) *Socket {
	t.Helper()
	ua, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP(network, ua)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestBatches: IPv4 and IPv6 sockets reach each other, senders are told right,
// also in mapped form, and more than a batch gets through.
func TestBatches(t *testing.T) {
	for _, c := range []struct{ name, network, listen, reach string }{
		{"v4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"v6", "udp6", "[::1]:0", "::1"},
		{"v4 in v6", "udp", ":0", "127.0.0.1"},
		{"v6 dual", "udp", ":0", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := socket(t, c.network, c.listen), socket(t, c.network, c.listen)
			target := netip.AddrPortFrom(netip.MustParseAddr(c.reach), to.Local().Port())
			sa, ok := from.Sockaddr(target)
			if !ok {
				t.Fatal("not reachable")
			}
			w, r := NewWriter(from), NewReader(to)
			const total = SendBatch + 10
			for i := range total {
				b := w.Slot()
				b[0], b[1] = byte(i), byte(i>>8)
				w.Queue(100, &sa)
			}
			w.Flush()
			if w.Sent != total || w.Dropped != 0 {
				t.Fatalf("sent %d, dropped %d", w.Sent, w.Dropped)
			}
			for got := 0; got < total; {
				n, err := r.Read()
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					pkt, src, ok := r.Packet(i)
					want := netip.AddrPortFrom(netip.MustParseAddr(c.reach), from.Local().Port())
					if !ok || len(pkt) != 100 || int(pkt[0]) != got || src != want {
						t.Fatalf("packet %d: %d bytes, first %d, from %s, want %s", got, len(pkt), pkt[0], src, want)
					}
					got++
				}
			}
		})
	}
}

func TestFamilies(t *testing.T) {
	s := socket(t, "udp4", "127.0.0.1:0")
	for _, a := range []string{"[2001:db8::1]:5", "127.0.0.1:0"} {
		if _, ok := s.Sockaddr(netip.MustParseAddrPort(a)); ok {
			t.Errorf("%s taken by an IPv4 socket", a)
		}
	}
	if _, ok := s.Sockaddr(netip.AddrPort{}); ok {
		t.Error("nobody's address taken")
	}
}

func TestOversizeAndDrain(t *testing.T) {
	from, to := socket(t, "udp4", "127.0.0.1:0"), socket(t, "udp4", "127.0.0.1:0")
	for range 3 {
		if _, err := from.conn.WriteToUDPAddrPort(make([]byte, SlotSize+1), to.Local()); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(to)
	n, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := r.Packet(0); ok {
		t.Error("oversize packet taken")
	}
	for range 100 {
		if _, err := from.conn.WriteToUDPAddrPort([]byte("late"), to.Local()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.Drain(1 << 16); err != nil || got != 103-n {
		t.Errorf("drained %d, %v", got, err)
	}
}

func TestZeroAlloc(t *testing.T) {
	from, to := socket(t, "udp", ":0"), socket(t, "udp", ":0")
	sa, _ := from.Sockaddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Local().Port()))
	w, r := NewWriter(from), NewReader(to)
	var h Header
	n := testing.AllocsPerRun(100, func() {
		for i := range 8 {
			PutHeader(w.Slot(), 111, false, uint16(i), 1, 2)
			w.Queue(200, &sa)
		}
		w.Flush()
		for got := 0; got < 8; {
			n, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				pkt, _, _ := r.Packet(i)
				if Classify(pkt) != RTP || !h.Parse(pkt) {
					t.Fatal("not parsed")
				}
			}
			got += n
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a batch", n)
	}
}

func TestClassify(t *testing.T) {
	long := func(first, second byte) []byte { return append([]byte{first, second}, make([]byte, 30)...) }
	for _, c := range []struct {
		b    []byte
		want Kind
	}{
		{nil, Junk}, {[]byte{0x80}, Junk}, {long(0, 1), STUN}, {long(3, 0), STUN}, {long(4, 0), Junk},
		{long(20, 254), DTLS}, {long(63, 0), DTLS}, {long(64, 0), Junk}, {long(128, 111), RTP}, {long(128, 200), RTCP},
		{long(191, 223), RTCP}, {long(191, 224), RTP}, {long(192, 0), Trunk}, {long(193, 0), Junk}, {[]byte{128, 200, 0, 0}, Junk}, {[]byte{128, 0, 0, 0}, Junk},
	} {
		if got := Classify(c.b); got != c.want {
			t.Errorf("% x: %d, want %d", c.b[:min(2, len(c.b))], got, c.want)
		}
	}
}

func TestHeader(t *testing.T) {
	base := []byte{0x90, 0xef, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4}
	for _, c := range []struct {
		name  string
		tail  []byte
		level int8
		voice bool
		ok    bool
		size  int
	}{
		{"one-byte", []byte{0xbe, 0xde, 0, 1, 0x10, 0x80 | 35, 0, 0, 9}, 35, true, true, 20},
		{"after another", []byte{0xbe, 0xde, 0, 2, 0x21, 1, 2, 0x10, 70, 0, 0, 0, 9}, 70, false, true, 24},
		{"two-byte", []byte{0x10, 0, 0, 1, 1, 1, 20, 0, 9}, 20, false, true, 20},
		{"stop", []byte{0xbe, 0xde, 0, 1, 0xf0, 1, 0x10, 5, 9}, -1, false, true, 20},
		{"cut", []byte{0xbe, 0xde, 0, 9, 0x10}, -1, false, false, 0},
		{"no head", []byte{0xbe}, -1, false, false, 0},
	} {
		var h Header
		ok := h.Parse(append(bytes.Clone(base), c.tail...))
		if ok != c.ok {
			t.Errorf("%s: parsed %t", c.name, ok)
			continue
		}
		if !ok {
			continue
		}
		level, voice, _ := h.Level(1)
		if level != c.level || voice != c.voice || h.Size != c.size || !h.Marker || h.PayloadType != 0x6f {
			t.Errorf("%s: level %d %t, %+v", c.name, level, voice, h)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x90, 0xef, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0xbe, 0xde, 0, 1, 0x10, 0x80, 0, 0, 9})
	f.Add([]byte{0xbf, 0x6f, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x10, 0, 0, 1, 1, 200, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		Classify(b)
		if !h.Parse(b) {
			return
		}
		if h.Size > len(b) {
			t.Fatalf("header of %d in %d bytes", h.Size, len(b))
		}
		for id := range uint8(16) {
			h.Level(id)
		}
		if h.Padding {
			Unpad(b[h.Size:])
		}
	})
}

func BenchmarkSend(b *testing.B) {
	from, to := socket(b, "udp4", "127.0.0.1:0"), socket(b, "udp4", "127.0.0.1:0")
	sa, _ := from.Sockaddr(to.Local())
	w := NewWriter(from)
	b.ReportAllocs()
	for b.Loop() {
		PutHeader(w.Slot(), 111, false, 1, 1, 2)
		w.Queue(150, &sa)
	}
}

// What is sent by a socket whose datagrams go another way is given to who sends, with where it
// goes.
func TestVia(t *testing.T) {
	var got []string
	s := Via(netip.MustParseAddrPort("192.0.2.9:5000"), func(b []byte, to netip.AddrPort) bool {
		got = append(got, string(b)+" to "+to.String())
		return string(b) != "b"
	})
	w := NewWriter(s)
	to, ok := s.Sockaddr(netip.MustParseAddrPort("[::ffff:192.0.2.1]:7"))
	if !ok {
		t.Fatal("not reachable")
	}
	if _, ok := s.Sockaddr(netip.MustParseAddrPort("[2001:db8::1]:7")); ok {
		t.Error("reaches IPv6")
	}
	for _, x := range []string{"a", "b"} {
		w.Queue(copy(w.Slot(), x), &to)
	}
	w.Flush()
	if len(got) != 2 || got[0] != "a to 192.0.2.1:7" || got[1] != "b to 192.0.2.1:7" || w.Sent != 1 || w.Dropped != 1 {
		t.Errorf("%v, sent %d, dropped %d", got, w.Sent, w.Dropped)
	}
	if s.Local().Port() != 5000 || s.Dual() || s.Close() != nil {
		t.Error(s.Local())
	}
}
