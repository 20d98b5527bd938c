package core

import (
	"net/netip"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Packets are counted and answered, or dropped, without any garbage.
func TestCountingAllocatesNothing(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sent := 0
	c := New(Config{ID: jami.ID{1}, IPv4: true, Now: now, Client: true, Send: func(netip.AddrPort, []byte) { sent++ }})
	from := netip.MustParseAddrPort("192.0.2.1:4222")
	ping := wire.Message{Kind: wire.Ping, TID: 1, ID: jami.ID{2}, Client: true}
	stray := wire.Message{Kind: wire.Fragment, TID: 1, Pieces: wire.NewArray(2, wire.AppendPiece(nil, wire.Piece{Data: []byte("x")}))}
	for name, b := range map[string][]byte{"ping": ping.Append(nil), "fragment": stray.Append(nil)} {
		if n := testing.AllocsPerRun(200, func() { c.Handle(now, from, b) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	s := c.Stats()
	if s.In[wire.Ping].Packets == 0 || s.In[wire.Ping].Packets != s.Out[wire.Reply].Packets || s.Stray == 0 || int(s.Sent) != sent {
		t.Errorf("%+v", s)
	}
}

// Strangers, who may be one with many addresses, don't shut proven nodes out.
func TestTheLastQuarterIsForProvenAddresses(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	answered := map[netip.AddrPort]int{}
	c := New(Config{ID: jami.ID{1}, IPv4: true, Now: now, Queries: 400, HostQueries: 10, Send: func(to netip.AddrPort, _ []byte) { answered[to]++ }})
	friend := netip.MustParseAddrPort("192.0.2.1:4222")
	c.prove(friend)
	ping := func(from netip.AddrPort, id byte) {
		m := wire.Message{Kind: wire.Ping, TID: 1, ID: jami.ID{2, id}, Client: true}
		c.Handle(now, from, m.Append(nil))
	}
	for i := range 1000 {
		ping(netip.AddrPortFrom(netip.AddrFrom4([4]byte{51, byte(i >> 8), byte(i), 1}), 4222), byte(i))
	}
	if len(answered) != 300 {
		t.Errorf("%d strangers were answered", len(answered))
	}
	for range 20 {
		ping(friend, 1)
	}
	if answered[friend] != 10 { // its host's share
		t.Errorf("the friend got %d answers", answered[friend])
	}
	if got := c.Stats().Limited; got != 710 {
		t.Errorf("%d over the limit", got)
	}
}
