package core

import (
	"slices"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Bounds of a get.
const (
	getIDs    = 1024 // of one node
	getValues = 4096
	getBytes  = 32 << 20
	getFlight = 4 // values of one node that are asked for at once
)

// enough copies of a value from as many nodes, and no other value of its id, and it is
// not asked for again.
const enough = 3

// Get looks for the values of a key.
type Get struct {
	c     *Core
	key   jami.ID
	q     wire.Query
	value func(*Value)
	done  func(Trace)

	parts []*getPart
	left  int
	seen  map[uint64][]*copies
	count int
	bytes int
	trace Trace
}

// copies is a value and how many nodes gave it.
type copies struct {
	v *Value
	n int
}

// getPart is a get in one family.
type getPart struct {
	g      *Get
	s      *search
	before int
	state  map[*peer]*getState
}

type getState struct {
	done   bool
	slow   bool // a value takes longer than usual
	ids    []uint64
	flight int
}

// Get calls value for every value that meets the query, signed ones only if their
// signature is good, and done once when the closest nodes have answered. It calls
// neither before it returns.
func (c *Core) Get(key jami.ID, q wire.Query, value func(*Value), done func(Trace)) *Get {
	g := &Get{c: c, key: key, q: cloneQuery(&q).Selecting(), value: value, done: done, seen: map[uint64][]*copies{}}
	for f := range c.searches {
		if !c.on[f] {
			continue
		}
		s := c.search(f, key)
		p := &getPart{g: g, s: s, before: s.msgs, state: map[*peer]*getState{}}
		s.gets = append(s.gets, p)
		g.parts = append(g.parts, p)
		g.left++
		s.kick()
	}
	c.timer.at(c.now, func() {
		for _, v := range slices.Clone(c.find(key, &g.q)) {
			g.add(v.Value)
		}
	})
	return g
}

// Cancel ends a get; nothing is called after it.
func (g *Get) Cancel() {
	g.value, g.done = func(*Value) {}, func(Trace) {}
	for _, p := range g.parts {
		p.leave()
	}
}

func (p *getPart) leave() {
	if i := slices.Index(p.s.gets, p); i >= 0 {
		p.s.gets = slices.Delete(p.s.gets, i, i+1)
	}
}

// get asks a node for the ids of what it has, for every get that did not yet.
func (s *search) get(n *searchNode) {
	for _, p := range s.gets {
		if p.state[n.p] == nil && s.flight < searchFlight {
			p.ask(n)
		}
	}
}

// ask is the first page (§1.6): ids only.
func (p *getPart) ask(n *searchNode) {
	st := &getState{}
	p.state[n.p] = st
	m := wire.Message{Kind: wire.Get, Target: p.s.target, Has: wire.HasQuery, Query: p.g.q.Selecting(wire.FieldID)}
	p.s.ask(n, m, func(r *wire.Message, values [][]byte) {
		for _, raw := range values { // an answer without regard to the selection
			p.g.take(raw)
		}
		f := &r.Fields
		if at := slices.Index(f.Fields(), wire.FieldID); at >= 0 {
			for i := 0; f.V.Len() > 0 && len(st.ids) < getIDs; i++ {
				id, ok := f.V.NextUint()
				if i%len(f.Fields()) == at && ok && !slices.Contains(st.ids, id) {
					st.ids = append(st.ids, id)
				}
			}
		}
		p.more(n, st)
	}, func(int) { st.done = true })
}

// more asks for the values one by one.
func (p *getPart) more(n *searchNode, st *getState) {
	for len(st.ids) > 0 && st.flight < getFlight {
		id := st.ids[0]
		st.ids = st.ids[1:]
		if cs := p.g.seen[id]; len(cs) == 1 && cs[0].n >= enough || p.g.full() {
			continue
		}
		st.flight++
		p.s.msgs++
		m := wire.Message{Kind: wire.Get, Target: p.s.target, Has: wire.HasQuery,
			Query: p.g.q.Filtered(wire.Condition{Field: wire.FieldID, Num: id})}
		p.s.c.request(n.p, m, nil, &request{
			late: func() { st.slow = true; p.s.kick() },
			done: func(r *wire.Message, values [][]byte) {
				st.slow = false
				for _, raw := range values {
					p.g.take(raw)
				}
				st.flight--
				p.more(n, st)
			},
			fail: func(int) {
				st.ids = nil
				st.flight--
				p.more(n, st)
			},
		})
	}
	if len(st.ids) == 0 && st.flight == 0 {
		st.done = true
		p.s.kick()
	}
}

func (g *Get) full() bool { return g.count >= getValues || g.bytes >= getBytes }

// take looks at a value that a node sent.
func (g *Get) take(raw []byte) {
	parsed, err := jami.ParseValue(raw)
	if err != nil || parsed.ID == 0 {
		return
	}
	v, err := NewValue(parsed)
	if err != nil || !matches(v, &g.q) {
		return
	}
	for _, c := range g.seen[v.ID] {
		if c.v.same(v) {
			c.n++
			return
		}
	}
	if v.Signed() && v.Verify() != nil {
		return
	}
	g.add(v)
}

// add hands a value on that is new.
func (g *Get) add(v *Value) {
	for _, c := range g.seen[v.ID] {
		if c.v.same(v) {
			return
		}
	}
	if g.full() {
		return
	}
	g.count++
	g.bytes += len(v.Packed)
	g.seen[v.ID] = append(g.seen[v.ID], &copies{v, 1})
	g.value(v)
}

// finish ends a part whose closest nodes have all been read, or half of them while the
// others are slow.
func (p *getPart) finish(first []*searchNode) {
	read := 0
	for _, n := range first {
		switch st := p.state[n.p]; {
		case st == nil || !st.done && !st.slow:
			return
		case st.done:
			read++
		}
	}
	if 2*read < len(first) {
		return
	}
	p.leave()
	g, t := p.g, p.s.trace(first)
	g.trace.Found += t.Found
	g.trace.Hops = max(g.trace.Hops, t.Hops)
	g.trace.Messages += t.Messages - p.before
	g.trace.Closest = append(g.trace.Closest, t.Closest...)
	if g.left--; g.left == 0 {
		g.done(g.trace)
	}
}
