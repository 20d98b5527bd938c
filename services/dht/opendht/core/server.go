package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Bounds of one answer.
const (
	answerBytes  = 1 << 20 // of values
	answerValues = 1024
	answerFields = 48 << 10 // bytes of fields: they go in one packet
)

// query answers a query, or starts to take in the values that it announces.
func (c *Core) query(from netip.AddrPort, m *wire.Message, packet []byte) {
	if !c.allow(from) {
		c.stats.Limited++
		return
	}
	c.contact(from, m)
	switch m.Kind {
	case wire.Ping:
		c.answer(from, m, nil)
	case wire.Find:
		a := c.nodesAnswer(from, m, len(packet), c.isProven(from))
		c.sendMessage(from, &a)
	case wire.Get:
		if m.Target.IsZero() {
			c.refuse(from, m, wire.ErrNonAuthoritative, "zero key")
			return
		}
		c.answerGet(from, m, len(packet))
	case wire.Put, wire.Refresh, wire.Listen:
		switch {
		case m.Target.IsZero() || m.Kind == wire.Refresh && m.ValueID == 0:
			c.refuse(from, m, wire.ErrNonAuthoritative, "zero key or value id")
			return
		case !c.tokens.ok(from, m.Token):
			c.stats.BadToken++
			c.refuse(from, m, wire.ErrUnauthorized, "wrong token")
			return
		}
		c.prove(from)
		switch {
		case m.Kind == wire.Refresh:
			c.refreshStored(from, m)
		case m.Kind == wire.Listen:
			c.addListener(from, m)
		case m.Sizes:
			c.collect(from, m, packet, false)
		default:
			c.queryWhole(from, m, elements(m.Values))
		}
	case wire.Update:
		l := c.listens[sidKey{from, m.SID}]
		switch {
		case l == nil || l.p.id != m.ID:
			c.answer(from, m, nil) // cancelled: an answer keeps us from being given up
		case m.Sizes:
			c.collect(from, m, packet, false)
		default:
			c.queryWhole(from, m, elements(m.Values))
		}
	}
}

func elements(a wire.Array) [][]byte {
	var out [][]byte
	for a.Len() > 0 {
		out = append(out, a.Next())
	}
	return out
}

// queryWhole goes on with a put or an update, of old nodes too, whose values are there.
func (c *Core) queryWhole(from netip.AddrPort, m *wire.Message, values [][]byte) {
	switch m.Kind {
	case wire.Reply, wire.Legacy:
		if l := c.listens[sidKey{from, m.TID}]; l != nil && l.p.id == m.ID {
			l.update(c, m, values)
		}
		return
	case wire.Update:
		c.answer(from, m, nil)
		if l := c.listens[sidKey{from, m.SID}]; l != nil && l.p.id == m.ID {
			l.update(c, m, values)
		}
		return
	}
	created := c.now
	if m.Has&wire.HasCreated != 0 && m.Created < c.now.Unix() { // a clock ahead counts as ours
		created = time.Unix(m.Created, 0)
	}
	keep := c.keeps(m.Target)
	for _, raw := range values {
		v, err := parseValue(raw)
		if err != nil {
			c.stats.Refused++
			continue
		}
		if v.ID == 0 {
			c.refuse(from, m, wire.ErrNonAuthoritative, "zero value id")
			continue
		}
		if keep && c.storeValue(m.Target, v, created, from) == refused {
			c.stats.Refused++
		}
		// The answer is the same when the value was refused (§1.2).
		c.answer(from, m, &v.ID)
	}
}

// answer sends the short answer, with a value's id for puts and refreshes.
func (c *Core) answer(to netip.AddrPort, q *wire.Message, vid *uint64) {
	m := wire.Message{Kind: wire.Reply, TID: q.TID, Network: c.cfg.Network, ID: c.self, Addr: to.Addr()}
	if vid != nil {
		m.Has, m.ValueID = wire.HasValueID, *vid
	}
	c.out = m.Append(c.out[:0])
	c.send(to, m.Kind, c.out)
}

func (c *Core) refuse(to netip.AddrPort, q *wire.Message, code uint16, text string) {
	m := wire.Message{Kind: wire.Error, TID: q.TID, Network: c.cfg.Network, ID: c.self, Code: code, Text: []byte(text)}
	c.out = m.Append(c.out[:0])
	c.send(to, m.Kind, c.out)
}

// Bytes of an answer beside its node lists, at most.
const answerHead = 128

// nodesAnswer makes the answer with the closest good nodes and a token; size is the
// query's, and bounds what an unproven address gets. What it holds is in scratch of the
// core: the next call writes the same there, or more of it, as long as address and target
// are the same.
func (c *Core) nodesAnswer(to netip.AddrPort, q *wire.Message, size int, proven bool) wire.Message {
	m := wire.Message{Kind: wire.Reply, TID: q.TID, Network: c.cfg.Network, ID: c.self, Addr: to.Addr(), Has: wire.HasToken}
	c.token = c.tokens.make(to)
	m.Token = c.token[:]
	room := wire.MaxPacket
	if !proven {
		room = amplification*size - answerHead
	}
	want := q.Want
	if want == 0 {
		want = wire.Want4 << family(to.Addr())
	}
	if want == wire.Want4|wire.Want6 {
		room /= 2
	}
	lists := [families][]byte{c.lists[v4][:0], c.lists[v6][:0]}
	for f, n := range [...]int{wire.Node4, wire.Node6} {
		if want&(wire.Want4<<f) == 0 || !c.on[f] {
			continue
		}
		var buf [wire.MaxNodes]*peer
		most := min(max(room/n, 0), wire.MaxNodes)
		for _, p := range c.tables[f].closest(buf[:0], &q.Target, most, func(p *peer) bool { return p.good(c.now) }) {
			lists[f] = wire.AppendNode(lists[f], p.id, p.addr)
		}
	}
	if m.Nodes4 = lists[v4]; len(m.Nodes4) > 0 {
		m.Has |= wire.HasNodes4
	}
	if m.Nodes6 = lists[v6]; len(m.Nodes6) > 0 {
		m.Has |= wire.HasNodes6
	}
	return m
}

func (c *Core) sendMessage(to netip.AddrPort, m *wire.Message) {
	c.out = m.Append(c.out[:0])
	c.send(to, m.Kind, c.out)
}

// answerGet answers with what is stored. What is too much for an unproven address is
// made as for a proven one and kept until it is.
func (c *Core) answerGet(to netip.AddrPort, q *wire.Message, size int) {
	proven := c.isProven(to)
	plain := c.nodesAnswer(to, q, size, proven)
	values := c.find(q.Target, &q.Query)
	if len(values) == 0 {
		c.sendMessage(to, &plain)
		return
	}
	whole := plain
	if !proven {
		whole = c.nodesAnswer(to, q, size, true)
	}
	var packed [][]byte
	if sel := q.Query.Select(); len(sel) > 0 {
		whole.Fields = selectFields(sel, values)
		whole.Has |= wire.HasFields
	} else {
		total := 0
		for _, v := range values {
			if total += len(v.Packed); total > answerBytes && len(packed) > 0 || len(packed) == answerValues {
				break
			}
			packed = append(packed, v.Packed)
		}
		packed = c.attach(&whole, packed)
	}
	c.out = whole.Append(c.out[:0])
	switch {
	case proven || packed == nil && len(c.out) <= amplification*size:
		c.send(to, whole.Kind, c.out)
		c.sendChunks(to, q.TID, packed)
	case c.hold(to, q.TID, slices.Clone(c.out), packed):
		c.ask(c.peer(q.ID, to))
	default:
		c.sendMessage(to, &plain)
	}
}

// contact notes that a node is there. One that only asks is pinged, for only who
// answers is handed out (§1.6).
func (c *Core) contact(from netip.AddrPort, m *wire.Message) {
	p := c.peers[peerKey{m.ID, from}]
	if p != nil {
		p.heard = c.now
		p.client = m.Client
		if p.good(c.now) {
			return
		}
	}
	if m.Client || !c.tables[family(from.Addr())].wants(&m.ID, c.now) {
		return
	}
	if p == nil {
		p = c.peer(m.ID, from)
	}
	c.ask(p)
}

// met takes a peer that answered, for the first time or after it was given up, into the
// table, and into the searches near it.
func (c *Core) met(p *peer, again bool) {
	f := family(p.addr.Addr())
	if p.client || p.table && !again {
		return
	}
	if !p.table {
		in, dubious := c.tables[f].insert(p, c.now)
		if dubious != nil {
			c.ask(dubious)
		}
		if !in {
			return
		}
	}
	var near []*search
	for _, s := range c.searches[f] {
		if s.lasting() && (s.room(&p.id) || s.dead[p.peerKey]) {
			near = append(near, s)
		}
	}
	slices.SortFunc(near, func(a, b *search) int { return slices.Compare(a.target[:], b.target[:]) })
	for _, s := range near {
		delete(s.dead, p.peerKey)
		s.insert(p, nil, 0)
		s.trim()
		s.kick()
	}
	c.neighbour()
	c.boot.met(c, f)
}
