package leg

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestNothingIsSentToAForgedSource: an offer over plain datagrams may come with
// somebody else's address, and so may RTP.
func TestNothingIsSentToAForgedSource(t *testing.T) {
	n := newNode(t)
	a, b := newPhone(t, false), newPhone(t, false)
	addr := addrOf(a.conn)
	o, err := n.Open(Request{ID: "a", Room: "main", Epoch: 1, Offer: a.offer("127.0.0.1", addr.Port()),
		Remote: netip.MustParseAddr("127.0.0.1"), Unproved: true, CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	a.answered(o.SDP)
	call(t, n, b, "b", "127.0.0.1", addrOf(b.conn).Port(), "127.0.0.1")
	eventually(t, "b hears a", b.hears(30))
	if got := a.heard(); got != 0 {
		t.Fatalf("%d packets went to an address that proved nothing", got)
	}
	if _, err := n.Set("a", 1, nil, nil, true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a hears b", a.hears(10))
}

// TestWithoutASourceTheAddressIsProvedByPackets: a leg that is made anew may not
// know where signalling came from; an SDP alone aims at nobody.
func TestWithoutASourceTheAddressIsProvedByPackets(t *testing.T) {
	n := newNode(t)
	p := newPhone(t, false)
	o, err := n.Open(Request{ID: "a", Room: "main", Epoch: 1, Offer: p.offer("127.0.0.1", addrOf(p.conn).Port()), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := n.Leg("a")
	if l.latched.Load() {
		t.Error("the address of an SDP was believed")
	}
	p.answered(o.SDP)
	eventually(t, "latched", l.latched.Load)
}

func TestPlacesOfHandshakes(t *testing.T) {
	s := handshakes{runs: map[*muxConn]netip.Addr{}}
	at := int64(0)
	conn := func(heard int64) *muxConn {
		c := newMuxConn(nil, netip.AddrPort{})
		c.heard.Store(heard)
		return c
	}
	one := netip.MustParseAddr("2001:db8::1")
	first := conn(1)
	if !s.take(first, one, at) {
		t.Fatal("the first was refused")
	}
	for i := 1; i < maxHandshakesHost; i++ {
		if !s.take(conn(2), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), at) {
			t.Fatalf("handshake %d of a host was refused", i)
		}
	}
	if s.take(conn(2), netip.MustParseAddr("2001:db8::ffff"), at) {
		t.Error("a host took more than its share")
	}
	at = int64(stalledAfter) + 1
	if !s.take(conn(at), one, at) {
		t.Error("a handshake that stalled kept its place")
	}
	select {
	case <-first.closed:
	default:
		t.Error("the one that was silent for longest was not ended")
	}
	for i := range maxHandshakes {
		s.take(conn(at), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), at)
	}
	if len(s.runs) != maxHandshakes {
		t.Errorf("%d run, %d may", len(s.runs), maxHandshakes)
	}
	if s.take(conn(at), netip.MustParseAddr("192.0.2.1"), at) {
		t.Error("more run than may")
	}
	s.give(first) // no longer there
	if !s.take(conn(2*at), netip.MustParseAddr("192.0.2.1"), 2*at) || len(s.runs) != maxHandshakes {
		t.Error("nobody gave way")
	}
}
