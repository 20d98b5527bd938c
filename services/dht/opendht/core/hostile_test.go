package core_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/sim"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// attacker speaks the wire by hand from one address.
type attacker struct {
	net   *sim.Net
	addr  netip.AddrPort
	id    jami.ID
	got   []wire.Message
	bytes int
	// answer, when set, answers a query: false to say nothing.
	answer func(q *wire.Message, r *wire.Message) bool
}

func newAttacker(n *sim.Net, addr netip.AddrPort, id jami.ID) *attacker {
	a := &attacker{net: n, addr: addr, id: id}
	n.Raw(addr, func(from netip.AddrPort, b []byte) {
		a.bytes += len(b)
		var m wire.Message
		if wire.Decode(slices.Clone(b), &m) != nil {
			return
		}
		a.got = append(a.got, m)
		if !m.Kind.Query() || a.answer == nil {
			return
		}
		r := wire.Message{Kind: wire.Reply, TID: m.TID, ID: a.id, Addr: from.Addr(), Token: []byte("token"), Has: wire.HasToken}
		if a.answer(&m, &r) {
			n.Send(a.addr, from, r.Append(nil))
		}
	})
	return a
}

// pong answers everything with nothing.
func pong(*wire.Message, *wire.Message) bool { return true }

func (a *attacker) send(to netip.AddrPort, m wire.Message) int {
	m.ID = a.id
	b := m.Append(nil)
	a.net.Send(a.addr, to, b)
	return len(b)
}

// last returns the last packet of a kind, or nil.
func (a *attacker) last(k wire.Kind) *wire.Message {
	for i := len(a.got) - 1; i >= 0; i-- {
		if a.got[i].Kind == k {
			return &a.got[i]
		}
	}
	return nil
}

func (a *attacker) token(t *testing.T, to netip.AddrPort, key jami.ID) []byte {
	t.Helper()
	a.send(to, wire.Message{Kind: wire.Find, TID: 4000, Target: key})
	a.net.Run(time.Second)
	r := a.last(wire.Reply)
	if r == nil || len(r.Token) == 0 {
		t.Fatal("no token")
	}
	return r.Token
}

func putMessage(key jami.ID, token []byte, v *core.Value) wire.Message {
	return wire.Message{Kind: wire.Put, TID: 5000, Target: key, Token: token, Has: wire.HasToken | wire.HasValues, Values: wire.NewArray(1, v.Packed)}
}

func TestTokens(t *testing.T) {
	n := sim.New(20)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a, b := newAttacker(n, n.NextAddr(), n.ID()), newAttacker(n, n.NextAddr(), n.ID())
	good := a.token(t, x.Addr, key)
	port := newAttacker(n, netip.AddrPortFrom(a.addr.Addr(), 9), n.ID())
	for name, try := range map[string]struct {
		from  *attacker
		token []byte
	}{"made up": {a, []byte("x")}, "right length": {a, make([]byte, 32)}, "of another": {b, good}, "of another port": {port, good}} {
		for _, kind := range []wire.Kind{wire.Put, wire.Refresh, wire.Listen} {
			m := putMessage(key, try.token, plain(t, 1, "forged"))
			m.Kind, m.ValueID, m.SID = kind, 1, 3
			m.Has = m.Has&^wire.HasValues | wire.HasValueID | wire.HasSID
			if kind == wire.Put {
				m.Has |= wire.HasValues
			}
			try.from.send(x.Addr, m)
			n.Run(time.Second)
			if e := try.from.last(wire.Error); e == nil || e.Code != wire.ErrUnauthorized {
				t.Errorf("%s, %s: %+v", name, kind, e)
			}
			try.from.got = nil
		}
	}
	mustGet(t, n, x, key)
	a.send(x.Addr, putMessage(key, good, plain(t, 1, "real")))
	n.Run(time.Second)
	mustGet(t, n, x, key, "real")
	// The secret changes twice in an hour and a half; then the token is worth nothing.
	n.Run(90 * time.Minute)
	a.got = nil
	a.send(x.Addr, putMessage(key, good, plain(t, 2, "late")))
	n.Run(time.Second)
	if e := a.last(wire.Error); e == nil || e.Code != wire.ErrUnauthorized {
		t.Errorf("an old token: %+v", e)
	}
}

func TestZeroIDs(t *testing.T) {
	n := sim.New(21)
	x := n.Add(nil)
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, jami.HashKey("k"))
	for name, m := range map[string]wire.Message{
		"key":   putMessage(jami.ID{}, tok, plain(t, 1, "x")),
		"value": putMessage(jami.HashKey("k"), tok, value(t, jami.Value{Data: []byte("x")})),
	} {
		a.got = nil
		a.send(x.Addr, m)
		n.Run(time.Second)
		if e := a.last(wire.Error); e == nil || e.Code != wire.ErrNonAuthoritative {
			t.Errorf("zero %s: %+v", name, e)
		}
	}
}

// TestForgedReplies: neither another address, nor another id, nor another transaction
// answers for a node.
func TestForgedReplies(t *testing.T) {
	n := sim.New(22)
	x := n.Add(nil)
	honest := newAttacker(n, n.NextAddr(), n.ID())
	liar := newAttacker(n, n.NextAddr(), n.ID())
	fake := plain(t, 1, "forged")
	honest.answer = func(q, r *wire.Message) bool {
		if q.Kind != wire.Get {
			return true
		}
		// The liar sees every query and answers first.
		forged := *r
		forged.Has |= wire.HasValues
		forged.Values = wire.NewArray(1, fake.Packed)
		n.Send(liar.addr, x.Addr, forged.Append(nil)) // another address
		forged.ID = liar.id
		n.Send(honest.addr, x.Addr, forged.Append(nil)) // another id
		forged.ID, forged.TID = r.ID, r.TID+2
		n.Send(honest.addr, x.Addr, forged.Append(nil)) // another transaction
		return true
	}
	x.Do(func() { x.Meet(honest.addr) })
	n.Run(5 * time.Second)
	mustGet(t, n, x, jami.HashKey("k"))
	n.Run(time.Second)
	if s := x.Stats(); s.Forged < 3 {
		t.Errorf("%d forged replies were seen", s.Forged)
	}
}

func TestFloodFromOneAddress(t *testing.T) {
	n := sim.New(23)
	n.More = 0
	x := n.Add(nil)
	a, b := newAttacker(n, n.NextAddr(), n.ID()), newAttacker(n, n.NextAddr(), n.ID())
	for range 5000 {
		a.send(x.Addr, wire.Message{Kind: wire.Ping, TID: 1})
	}
	b.send(x.Addr, wire.Message{Kind: wire.Ping, TID: 1})
	n.Run(500 * time.Millisecond)
	if len(a.got) > 1024+1 || len(a.got) < 1024 {
		t.Errorf("%d answers", len(a.got))
	}
	if b.last(wire.Reply) == nil {
		t.Error("another host is not answered")
	}
	if x.Stats().Limited < 3900 {
		t.Errorf("%d were refused", x.Stats().Limited)
	}
	n.Run(2 * time.Second)
	a.got = nil
	a.send(x.Addr, wire.Message{Kind: wire.Ping, TID: 2})
	n.Run(time.Second)
	if a.last(wire.Reply) == nil {
		t.Error("not answered a second later")
	}
}

// TestAmplification: an address that never answered gets little for much, and all of it
// once it has.
func TestAmplification(t *testing.T) {
	n := sim.New(24)
	nodes := n.Cluster(20, 50*time.Millisecond)
	x := nodes[3]
	key := jami.HashKey("k")
	for i := range 20 {
		put(t, n, x, key, value(t, jami.Value{ID: uint64(i + 1), Data: bytes.Repeat([]byte{1}, 3000)}), core.PutOptions{})
	}
	for _, m := range []wire.Message{
		{Kind: wire.Ping},
		{Kind: wire.Find, Target: key},
		{Kind: wire.Find, Target: key, Want: wire.Want4 | wire.Want6},
		{Kind: wire.Get, Target: key},
		{Kind: wire.Get, Target: key, Has: wire.HasQuery},
		{Kind: wire.Get, Target: key, Has: wire.HasQuery, Query: wire.Query{}.Selecting(wire.FieldID, wire.FieldSeq)},
	} {
		victim := newAttacker(n, n.NextAddr(), n.ID())
		sent := 0
		for i := range 10 {
			m.TID = uint32(i)
			sent += victim.send(x.Addr, m)
		}
		n.Run(30 * time.Second)
		// The pings that ask for a proof come on top: three sendings, however many queries.
		if most := 4*sent + 3*60; victim.bytes > most {
			t.Errorf("%s: %d bytes for %d, at most %d", m.Kind, victim.bytes, sent, most)
		}
	}
	real := newAttacker(n, n.NextAddr(), n.ID())
	real.answer = pong
	real.send(x.Addr, wire.Message{Kind: wire.Get, TID: 9, Target: key})
	n.Run(time.Second)
	if real.bytes < 60000 {
		t.Errorf("who answers got %d bytes only", real.bytes)
	}
}

// TestNoPacketsToReflectedAddresses: what liars name is not asked when nobody can be
// there, or when it is in our own network.
func TestNoPacketsToReflectedAddresses(t *testing.T) {
	n := sim.New(25)
	x := n.Add(nil)
	a := newAttacker(n, n.NextAddr(), n.ID())
	var bad []netip.AddrPort
	for _, s := range []string{"10.0.0.1:80", "192.168.1.1:53", "127.0.0.1:22", "224.0.0.1:5353", "255.255.255.255:9", "0.0.0.0:7", "169.254.1.1:80", "203.0.113.9:0"} {
		bad = append(bad, netip.MustParseAddrPort(s))
	}
	a.answer = func(q, r *wire.Message) bool {
		for i, b := range bad {
			id := q.Target
			id[19] ^= byte(i + 1)
			r.Nodes4 = wire.AppendNode(r.Nodes4, id, b)
		}
		r.Nodes4 = wire.AppendNode(r.Nodes4, x.ID(), x.Addr)
		r.Has |= wire.HasNodes4
		return true
	}
	n.Tap = func(from, to netip.AddrPort, _ []byte) {
		if from == x.Addr && to != a.addr && to != netip.AddrPortFrom(a.addr.Addr(), 22) {
			t.Errorf("a packet to %s", to)
		}
	}
	x.Do(func() { x.Meet(a.addr) })
	n.Run(5 * time.Second)
	get(t, n, x, jami.HashKey("k"))
}

// TestLies: with a fifth of the network answering every query with names of nodes that
// aren't there, next to the target, values are found all the same.
func TestLies(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	lost, all := 0, 0
	for seed := range uint64(5) {
		n := sim.New(260 + seed)
		nodes := n.Cluster(80, 50*time.Millisecond)
		for i := range 20 {
			a := newAttacker(n, n.NextAddr(), n.ID())
			a.answer = func(q, r *wire.Message) bool {
				for j := range 8 {
					id := q.Target
					id[18], id[19] = byte(i), byte(j+1)
					r.Nodes4 = wire.AppendNode(r.Nodes4, id, n.NextAddr())
				}
				r.Has |= wire.HasNodes4
				return true
			}
			for range 10 {
				x := nodes[n.Rand().IntN(len(nodes))]
				x.Do(func() { x.Meet(a.addr) })
			}
		}
		n.Run(5 * time.Minute)
		for i := range 20 {
			key := jami.HashKey(fmt.Sprint(i))
			put(t, n, nodes[i], key, plain(t, 1, "kept"), core.PutOptions{})
			n.Run(time.Second)
			if got := texts(get(t, n, nodes[79-i], key)); !slices.Contains(got, "kept") {
				lost++
			}
			all++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d values not found", lost, all)
	}
}

// TestOneHostSurroundsAKey: a host with a node at each of the closest ids swallows what
// is put and answers with nothing, but is only a few of those that are asked.
func TestOneHostSurroundsAKey(t *testing.T) {
	n := sim.New(27)
	nodes := n.Cluster(40, 50*time.Millisecond)
	key := jami.HashKey("k")
	host := n.NextAddr().Addr()
	var named []byte
	for i := range 30 {
		id := key
		id[19] ^= byte(i + 1)
		a := newAttacker(n, netip.AddrPortFrom(host, uint16(4000+i)), id)
		a.answer = func(q, r *wire.Message) bool {
			r.Nodes4, r.Has = named[:8*wire.Node4], r.Has|wire.HasNodes4
			return true
		}
		named = wire.AppendNode(named, id, a.addr)
	}
	for i, x := range nodes {
		for j := range 10 {
			x.Do(func() { x.Meet(netip.AddrPortFrom(host, uint16(4000+(i+j)%30))) })
		}
	}
	n.Run(2 * time.Minute)
	put(t, n, nodes[1], key, plain(t, 1, "kept"), core.PutOptions{})
	n.Remove(nodes[1])
	mustGet(t, n, nodes[30], key, "kept")
}

// TestUnsignedNeverReplacesSigned, not even as a packet: stock nodes can crash of it.
func TestUnsignedNeverReplacesSigned(t *testing.T) {
	n := sim.New(28)
	nodes := n.Cluster(20, 50*time.Millisecond)
	key := jami.HashKey("k")
	put(t, n, nodes[1], key, signed(t, 0, 9, 0, "signed"), core.PutOptions{})
	n.Tap = func(from, to netip.AddrPort, b []byte) {
		var m wire.Message
		if wire.Decode(b, &m) == nil && m.Kind == wire.Put {
			t.Errorf("a put from %s to %s", from, to)
		}
	}
	x := n.Add(nil)
	x.Do(func() { x.Meet(nodes[2].Addr) })
	n.Run(2 * time.Second)
	put(t, n, x, key, plain(t, 9, "unsigned"), core.PutOptions{Permanent: true})
	n.Run(11 * time.Minute)
}

// TestFragmentsOfStrangers take no memory, and those of others no more than their due.
func TestFragmentsOfStrangers(t *testing.T) {
	n := sim.New(29)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	big := wire.NewArray(3, wire.AppendUint(wire.AppendUint(wire.AppendUint(nil, 65000), 1<<40), 700))
	head := wire.Message{Kind: wire.Put, TID: 6, Target: key, Token: []byte("x"), Has: wire.HasToken | wire.HasValues, Values: big}
	chunk := func(i, off uint32, data []byte) wire.Message {
		return wire.Message{Kind: wire.Fragment, TID: 6, Pieces: wire.NewArray(2, wire.AppendPiece(nil, wire.Piece{Index: i, Offset: off, Data: data}))}
	}
	a.send(x.Addr, head)
	n.Run(time.Second)
	if x.Incoming() != 0 {
		t.Error("a wrong token takes memory")
	}
	head.Token = a.token(t, x.Addr, key)
	a.send(x.Addr, head)
	for _, m := range []wire.Message{chunk(0, 65000, []byte("past the end")), chunk(7, 0, []byte("no such value")), chunk(1, 0, []byte("skipped")), chunk(0, 64995, []byte("123456"))} {
		a.send(x.Addr, m)
	}
	n.Run(time.Second)
	if got := x.Incoming(); got < 65700 || got > 67000 {
		t.Errorf("%d bytes are expected", got)
	}
	n.Run(5 * time.Second)
	if x.Incoming() != 0 {
		t.Error("what never came is waited for")
	}
	// Chunks in any order, twice, make the value whole.
	v := value(t, jami.Value{ID: 3, Data: bytes.Repeat([]byte{'z'}, 4000)})
	head.TID, head.Values = 7, wire.NewArray(1, wire.AppendUint(nil, uint64(len(v.Packed))))
	a.send(x.Addr, head)
	n.Run(100 * time.Millisecond)
	for _, off := range []int{1280, 1280, 3840, 0, 2560} {
		m := chunk(0, uint32(off), v.Packed[off:min(off+1280, len(v.Packed))])
		m.TID = 7
		a.send(x.Addr, m)
		n.Run(100 * time.Millisecond)
	}
	mustGet(t, n, x, key, string(v.Data))
}

// TestQuotas: who puts much loses its own oldest values, not others'.
func TestQuotas(t *testing.T) {
	n := sim.New(30)
	x := n.Add(func(c *core.Config) { c.MaxStore = 1 << 20 })
	key := jami.HashKey("k")
	other := newAttacker(n, n.NextAddr(), n.ID())
	other.send(x.Addr, putMessage(key, other.token(t, x.Addr, key), plain(t, 1, "of another")))
	greedy := newAttacker(n, n.NextAddr(), n.ID())
	tok := greedy.token(t, x.Addr, key)
	for i := range 2000 {
		greedy.send(x.Addr, putMessage(key, tok, plain(t, uint64(i+10), string(bytes.Repeat([]byte{'g'}, 400)))))
		if i%500 == 499 {
			n.Run(2 * time.Second)
		}
	}
	n.Run(2 * time.Second)
	values, size := x.Storage()
	if size > 1<<20/8+1024 || values < 100 || x.Stats().Evicted < 1000 {
		t.Errorf("%d values, %d bytes, %d evicted", values, size, x.Stats().Evicted)
	}
	if got := texts(get(t, n, x, key)); !slices.Contains(got, "of another") {
		t.Error("another's value had to go")
	}
}

// TestListenersAreForgotten: their number is bounded, and one that does not answer goes.
func TestListenersAreForgotten(t *testing.T) {
	n := sim.New(31)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	for i := range 3000 {
		a.send(x.Addr, wire.Message{Kind: wire.Listen, TID: uint32(i), Target: key, Token: tok, SID: uint32(i), Version: 1,
			Has: wire.HasToken | wire.HasSID | wire.HasVersion})
		if i%1000 == 999 {
			n.Run(2 * time.Second)
		}
	}
	if got := x.Listeners(); got > 2048 || got < 1000 {
		t.Errorf("%d listeners", got)
	}
	put(t, n, x, key, plain(t, 1, "a"), core.PutOptions{}) // they are told, and say nothing
	n.Run(time.Minute)
	if got := x.Listeners(); got != 0 {
		t.Errorf("%d listeners that don't answer", got)
	}
}

// TestValuePolicies: what a type's rules refuse is not kept.
func TestValuePolicies(t *testing.T) {
	n := sim.New(32)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	forged := signed(t, 0, 5, 0, "signed")
	spoilt := *forged.Value
	spoilt.Data = []byte("spoilt")
	for name, v := range map[string]*core.Value{
		"a certificate of nobody": value(t, jami.Value{ID: 1, Type: 8, Data: []byte("junk")}),
		"a message of no service": value(t, jami.Value{ID: 2, Type: 1, Data: []byte{0x92, 0xa0, 0xc4, 0}}),
		"a spoilt signature":      value(t, spoilt),
	} {
		before := x.Stats().Refused
		a.send(x.Addr, putMessage(key, tok, v))
		n.Run(time.Second)
		if x.Stats().Refused != before+1 {
			t.Errorf("%s was taken", name)
		}
	}
	a.send(x.Addr, putMessage(key, tok, value(t, jami.Value{ID: 3, Type: 1, Data: []byte{0x92, 0xa1, 's', 0xc4, 0}})))
	n.Run(time.Second)
	if got := get(t, n, x, key); len(got) != 1 || got[0].ID != 3 {
		t.Errorf("%d values", len(got))
	}
}
