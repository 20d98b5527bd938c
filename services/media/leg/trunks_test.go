package leg

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/trunk"
)

// peerOf is a node as others are told of it.
func peerOf(n *node, nonce string) trunk.Peer {
	return trunk.Peer{Worker: n.dir, Started: "s", Public: n.trunk.Public(), Addr: addrOf(n.browser), Nonce: nonce}
}

// TestRoomOverTwoWorkers: a phone at one worker hears one at another, who is told of by his
// own alone; the older of two orders is refused, and the last one ends the trunk.
func TestRoomOverTwoWorkers(t *testing.T) {
	m, n := newNode(t), newNode(t)
	order := func(at *node, version uint64, peers ...trunk.Peer) error { return at.Trunks("main", 1, version, peers) }
	if err := errors.Join(order(m, 2, peerOf(n, "x")), order(n, 2, peerOf(m, "x"))); err != nil {
		t.Fatal(err)
	}
	a, b := newPhone(t, false), newPhone(t, true)
	call(t, m, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
	call(t, n, b, "b", "127.0.0.1", addrOf(b.conn).Port(), "127.0.0.1")
	eventually(t, "both hear", func() bool { return a.heard() > 20 && b.heard() > 20 })
	eventually(t, "voice", m.saw("a voice true"))
	if n.saw("a voice true")() {
		t.Error("the other worker tells of a's voice")
	}
	if err := order(m, 1); !errors.Is(err, ErrStale) {
		t.Errorf("an older order: %v", err)
	}
	if err := m.Trunks("main", 0, 9, nil); !errors.Is(err, ErrStale) {
		t.Errorf("an order of an older epoch: %v", err)
	}
	if err := order(m, 3, trunk.Peer{Worker: "w"}); !errors.Is(err, ErrOffer) {
		t.Errorf("a peer without a key: %v", err)
	}
	if c := m.TrunkCounts(); c.Sessions != 1 || c.Sent == 0 || c.Received == 0 {
		t.Errorf("%+v", c)
	}
	if err := order(m, 4); err != nil {
		t.Fatal(err)
	}
	before := m.Counters().Drops[dropTrunk]
	eventually(t, "what still comes is refused", func() bool { return m.Counters().Drops[dropTrunk] > before })
	if err := order(n, 4); err != nil {
		t.Fatal(err)
	}
	if c := n.TrunkCounts(); c.Sessions != 0 {
		t.Errorf("%+v", c)
	}
}

// TestTrunkHoldsTheRoom: a room that is joined before its first leg and after its last one
// does not leave a mixer behind.
func TestTrunkHoldsTheRoom(t *testing.T) {
	m, n := newNode(t), newNode(t)
	if err := m.Trunks("main", 1, 1, []trunk.Peer{peerOf(n, "x")}); err != nil {
		t.Fatal(err)
	}
	if len(m.rooms) != 1 {
		t.Errorf("%d rooms", len(m.rooms))
	}
	if err := m.Trunks("main", 1, 2, nil); err != nil {
		t.Fatal(err)
	}
	if len(m.rooms) != 0 {
		t.Errorf("%d rooms after the end", len(m.rooms))
	}
}

// TestKeysOfTheLegBefore: a phone that goes on at another worker is sent to with the keys that it has.
func TestKeysOfTheLegBefore(t *testing.T) {
	m, n := newNode(t), newNode(t)
	a, b := newPhone(t, true), newPhone(t, false)
	first := call(t, m, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
	call(t, n, b, "b", "127.0.0.1", addrOf(b.conn).Port(), "127.0.0.1")
	open := func(id, was string) *sdp.Crypto {
		o, err := n.Open(Request{ID: id, Room: "main", Epoch: 1, Offer: a.offer("127.0.0.1", addrOf(a.conn).Port()), Was: was, Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
		if err != nil {
			t.Fatal(err)
		}
		far, err := sdp.Parse(o.SDP, sdp.Phone)
		if err != nil || far.Crypto == nil {
			t.Fatalf("%v in %s", err, o.SDP)
		}
		if err := n.CloseLeg(id, 1, ""); err != nil {
			t.Fatal(err)
		}
		return far.Crypto
	}
	had, err := sdp.Parse(first.SDP, sdp.Phone)
	if err != nil {
		t.Fatal(err)
	}
	if got := open("a", first.SDP); !got.Keys.Equal(had.Crypto.Keys) {
		t.Error("other keys than before")
	}
	for name, was := range map[string]string{"none": "", "not an SDP": "x", "plain": b.offer("127.0.0.1", 4000)} {
		if got := open("a", was); got.Keys.Equal(had.Crypto.Keys) {
			t.Errorf("%s: the keys of before", name)
		}
	}
}
