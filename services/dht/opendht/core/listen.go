package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Times of listening (§1.6).
const (
	listenEvery = 20 * time.Second
	listenSlack = 15 * time.Second // a value that a node says nothing of ends so much late
	listenTries = 3
)

// Bounds of one listener.
const (
	listenValues = 4096
	listenBytes  = 32 << 20
)

// Listen watches the values of a key.
type Listen struct {
	c      *Core
	key    jami.ID
	q      wire.Query
	change func(v *Value, expired bool)
	parts  []*listenPart
	values map[uint64][]*heard
	count  int
	bytes  int
	expiry *task
}

// heard is a value that nodes have told of.
type heard struct {
	v       *Value
	expires time.Time
	holders []*peer // nil: this node
}

// listenPart is a listener in one family.
type listenPart struct {
	l     *Listen
	s     *search
	state map[*peer]*listenNode
}

// listenNode is a node that tells us.
type listenNode struct {
	l     *Listen
	p     *peer
	sid   uint32
	sent  time.Time
	busy  bool
	fails int
}

// Listen calls change for every value that is there or comes, and for those that end.
// It does not call before it returns, nor after Cancel.
func (c *Core) Listen(key jami.ID, q wire.Query, change func(v *Value, expired bool)) *Listen {
	l := &Listen{c: c, key: key, q: cloneQuery(&q).Selecting(), change: change, values: map[uint64][]*heard{}}
	l.expiry = &task{fn: l.expire}
	for f := range c.searches {
		if !c.on[f] {
			continue
		}
		s := c.search(f, key)
		x := &listenPart{l: l, s: s, state: map[*peer]*listenNode{}}
		s.listens = append(s.listens, x)
		l.parts = append(l.parts, x)
		s.kick()
	}
	s := c.shelf(key)
	s.local = append(s.local, l)
	c.timer.at(c.now, func() {
		for _, v := range slices.Clone(c.find(key, &l.q)) {
			l.changed(c, nil, v.Value, wire.HasValues)
		}
	})
	return l
}

// Cancel ends it: the nodes that tell us are not asked again (§1.6).
func (l *Listen) Cancel() {
	l.change = func(*Value, bool) {}
	l.c.timer.stop(l.expiry)
	for _, x := range l.parts {
		for p := range x.state {
			x.forget(p)
		}
		if i := slices.Index(x.s.listens, x); i >= 0 {
			x.s.listens = slices.Delete(x.s.listens, i, i+1)
		}
	}
	if s := l.c.store.keys[l.key]; s != nil {
		if i := slices.Index(s.local, l); i >= 0 {
			s.local = slices.Delete(s.local, i, i+1)
		}
		l.c.tidy(s)
	}
}

// forget ends what a node tells. Its values stay until another node tells of their
// end, or their time is up.
func (x *listenPart) forget(p *peer) {
	n := x.state[p]
	if n == nil {
		return
	}
	delete(x.state, p)
	delete(x.l.c.listens, sidKey{p.addr, n.sid})
	for _, hs := range x.l.values {
		for _, h := range hs {
			h.holders = slices.DeleteFunc(h.holders, func(y *peer) bool { return y == p })
		}
	}
}

// step listens at the closest nodes and returns when to come again.
func (x *listenPart) step(first []*searchNode) time.Time {
	c := x.s.c
	next := c.now.Add(never)
	for _, p := range sortedPeers(x.state) {
		if !slices.ContainsFunc(first, func(n *searchNode) bool { return n.p == p }) && c.now.Sub(x.state[p].sent) >= listenEvery {
			x.forget(p)
		}
	}
	for _, n := range first {
		st := x.state[n.p]
		if st == nil {
			st = &listenNode{l: x.l, p: n.p, sid: n.p.next()}
			x.state[n.p] = st
			c.listens[sidKey{n.p.addr, st.sid}] = st
		}
		again := st.sent.Add(listenEvery)
		if st.busy || st.fails >= listenTries {
			continue
		}
		if c.now.Before(again) {
			next = earlier(next, again)
			continue
		}
		x.send(n, st)
		next = earlier(next, c.now.Add(listenEvery))
	}
	return next
}

func (x *listenPart) send(n *searchNode, st *listenNode) {
	c := x.s.c
	st.busy, st.sent = true, c.now
	m := wire.Message{Kind: wire.Listen, Target: x.l.key, Token: n.token, SID: st.sid, Version: 1,
		Has: wire.HasToken | wire.HasSID | wire.HasVersion}
	if len(x.l.q.Where()) > 0 {
		m.Query = x.l.q
		m.Has |= wire.HasQuery
	}
	x.s.msgs++
	c.request(n.p, m, nil, &request{
		done: func(*wire.Message, [][]byte) { st.busy, st.fails = false, 0; x.s.kick() },
		fail: func(code int) {
			st.busy, st.fails, st.sent = false, st.fails+1, time.Time{}
			if code == wire.ErrUnauthorized {
				n.token = nil
			}
			x.s.kick()
		},
	})
}

// update takes what a node tells.
func (n *listenNode) update(c *Core, m *wire.Message, values [][]byte) {
	l := n.l
	for _, raw := range values {
		v, err := jami.ParseValue(raw)
		if err != nil || v.ID == 0 {
			continue
		}
		x, err := NewValue(v)
		if err != nil || !matches(x, &l.q) {
			continue
		}
		if !slices.ContainsFunc(l.values[v.ID], func(h *heard) bool { return h.v.same(x) }) && v.Signed() && v.Verify() != nil {
			continue
		}
		l.changed(c, n.p, x, wire.HasValues)
	}
	for a := m.Refreshed; a.Len() > 0; {
		id, _ := a.NextUint()
		for _, h := range l.values[id] {
			if slices.Contains(h.holders, n.p) {
				l.extend(h)
			}
		}
	}
	for a := m.Expired; a.Len() > 0; {
		id, _ := a.NextUint()
		l.gone(id, n.p)
	}
}

// told takes what a node from before there were updates tells: the transaction is the
// number that this node chose (§1.1). False: it is of no listener.
func (c *Core) told(from netip.AddrPort, m *wire.Message, packet []byte) bool {
	l := c.listens[sidKey{from, m.TID}]
	if l == nil || l.p.id != m.ID || m.Kind == wire.Error {
		return false
	}
	l.p.heard = c.now
	if m.Sizes {
		c.collect(from, m, packet, false)
	} else {
		l.update(c, m, elements(m.Values))
	}
	return true
}

// changed takes in what a node, or this one when p is nil, has now.
func (l *Listen) changed(_ *Core, p *peer, v *Value, what wire.Has) {
	switch what {
	case wire.HasExpired:
		l.gone(v.ID, p)
		return
	case wire.HasValues, wire.HasRefreshed:
	default:
		return
	}
	if !matches(v, &l.q) {
		return
	}
	var here *heard
	for _, h := range l.values[v.ID] {
		if h.v.same(v) {
			here = h
		} else if v.Signed() && h.v.Signed() && slices.Equal(v.Owner, h.v.Owner) && h.v.Seq > v.Seq {
			return // an old one brings nothing back
		}
	}
	if here == nil {
		if l.count >= listenValues || l.bytes+len(v.Packed) > listenBytes {
			return
		}
		here = &heard{v: v}
		l.values[v.ID] = append(l.values[v.ID], here)
		l.count++
		l.bytes += len(v.Packed)
		defer l.change(v, false)
	}
	for _, h := range slices.Clone(l.values[v.ID]) { // this node holds no other of that id
		if i := slices.Index(h.holders, p); i >= 0 && h != here {
			if h.holders = slices.Delete(h.holders, i, i+1); len(h.holders) == 0 {
				l.remove(h)
			}
		}
	}
	if !slices.Contains(here.holders, p) {
		here.holders = append(here.holders, p)
	}
	l.extend(here)
}

func (l *Listen) extend(h *heard) {
	h.expires = l.c.now.Add(h.v.lifetime() + listenSlack)
	l.c.timer.sooner(l.expiry, h.expires)
}

// gone notes that a node has no value of this id any more.
func (l *Listen) gone(id uint64, p *peer) {
	for _, h := range slices.Clone(l.values[id]) {
		i := slices.Index(h.holders, p)
		if i < 0 {
			continue
		}
		if h.holders = slices.Delete(h.holders, i, i+1); len(h.holders) == 0 {
			l.remove(h)
			l.change(h.v, true)
		}
	}
}

func (l *Listen) remove(h *heard) {
	id := h.v.ID
	l.count--
	l.bytes -= len(h.v.Packed)
	l.values[id] = slices.DeleteFunc(l.values[id], func(x *heard) bool { return x == h })
	if len(l.values[id]) == 0 {
		delete(l.values, id)
	}
}

// expire ends values that nobody speaks of any more.
func (l *Listen) expire() {
	next := l.c.now.Add(never)
	for _, id := range sortedIDs(l.values) {
		for _, h := range slices.Clone(l.values[id]) {
			if h.expires.After(l.c.now) {
				next = earlier(next, h.expires)
				continue
			}
			l.remove(h)
			l.change(h.v, true)
		}
	}
	l.c.timer.set(l.expiry, next)
}

// The order of maps is random; what sends packets goes by these instead, so that a
// seed gives the same run.

func sortedIDs(m map[uint64][]*heard) []uint64 {
	out := make([]uint64, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func comparePeers(a, b *peer) int {
	if c := slices.Compare(a.id[:], b.id[:]); c != 0 {
		return c
	}
	return compareAddrs(a.addr, b.addr)
}

func compareAddrs(a, b netip.AddrPort) int { return a.Compare(b) }

func sortedPeers(m map[*peer]*listenNode) []*peer {
	out := make([]*peer, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, comparePeers)
	return out
}

func sortedSIDs(m map[sidKey]*listener) []sidKey {
	out := make([]sidKey, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b sidKey) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		return int(int64(a.sid) - int64(b.sid))
	})
	return out
}
