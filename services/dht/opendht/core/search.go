package core

import (
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Sizes and times of searches (§1.6).
const (
	searchNodes  = 14 // closest that are kept
	searchTarget = 8  // that have to answer
	searchFlight = 4  // queries on the way
	listenNodes  = 4
	tokenLife    = 10 * time.Minute
	searchIdle   = 5 * time.Minute // a search without operations is kept for its tokens
	searchesMost = 4096
)

// slowMost is how long a search that knows of too few nodes waits for slow ones: until
// the second sending can have been answered.
const slowMost = 2200 * time.Millisecond

// namesEach is how many nodes that have not answered are kept of those that one node
// named, however far: names of nodes that aren't there push no others out.
const namesEach = 3

// hostSearch and siteSearch bound the nodes of one host, and of one site, in a search, if
// they are not near us: one attacker does not surround a key.
const (
	hostSearch = 3
	siteSearch = 4
)

// searchNode is a node near the target.
type searchNode struct {
	p       *peer
	by      *peer // who named it; nil: our table
	hop     int
	token   []byte
	tokenAt time.Time
	asking  int // queries on the way
	asked   time.Time
	slow    bool // one of them takes longer than usual: others go first
	bad     bool // answered against the protocol
}

func (n *searchNode) synced(now time.Time) bool {
	return len(n.token) > 0 && now.Sub(n.tokenAt) < tokenLife
}

func (n *searchNode) live() bool { return !n.bad && !n.p.failed && !(n.slow && n.asking > 0) }

// search looks for the nodes closest to a target in one family and has them do what
// the operations on it want.
type search struct {
	c       *Core
	f       int
	target  jami.ID
	nodes   []*searchNode // closest first
	dead    map[peerKey]bool
	deadAt  time.Time
	flight  int
	task    *task
	used    time.Time
	gets    []*getPart
	puts    []*putPart
	listens []*listenPart
	finds   []func(Trace) // told when the closest have answered
	msgs    int
}

// Trace is what a look-up took.
type Trace struct {
	Found    int // nodes that answered among the closest
	Hops     int // of the farthest of them from this node's table
	Messages int // queries of the search so far
	Closest  []jami.ID
}

// search finds or starts the one of a target.
func (c *Core) search(f int, target jami.ID) *search {
	s := c.searches[f][target]
	if s == nil {
		if len(c.searches[f]) >= searchesMost {
			c.dropSearches(f, 0)
		}
		s = &search{c: c, f: f, target: target, dead: map[peerKey]bool{}, deadAt: c.now}
		s.task = &task{fn: s.step}
		c.searches[f][target] = s
		s.refill()
	}
	s.used = c.now
	return s
}

// dropSearches forgets searches that were idle for a time.
func (c *Core) dropSearches(f int, idle time.Duration) {
	for k, s := range c.searches[f] {
		if !s.busy() && c.now.Sub(s.used) >= idle {
			c.timer.stop(s.task)
			delete(c.searches[f], k)
		}
	}
}

func (s *search) busy() bool { return len(s.gets)+len(s.puts)+len(s.listens)+len(s.finds) > 0 }

// lasting reports whether the search goes on after its nodes were found.
func (s *search) lasting() bool { return len(s.puts)+len(s.listens) > 0 }

// kick has the search look what to do.
func (s *search) kick() { s.c.timer.sooner(s.task, s.c.now) }

// refill takes the closest nodes of the table in.
func (s *search) refill() {
	if s.c.now.Sub(s.deadAt) > tokenLife {
		clear(s.dead)
		s.deadAt = s.c.now
	}
	var buf [searchNodes]*peer
	for _, p := range s.c.tables[s.f].closest(buf[:0], &s.target, searchNodes, func(p *peer) bool { return !p.failed }) {
		s.insert(p, nil, 0)
	}
	s.trim()
}

// room reports whether a node of this id would be among those that are kept.
func (s *search) room(id *jami.ID) bool {
	return len(s.nodes) < searchNodes || closer(&s.target, id, &s.nodes[len(s.nodes)-1].p.id)
}

// insert takes a node in that by named, or that the table has; trim says if it stays.
func (s *search) insert(p, by *peer, hop int) {
	if p.failed || s.dead[p.peerKey] {
		return
	}
	h, net := limits.Subnet(p.addr.Addr()), site(p.addr.Addr())
	same, around, at := 0, 0, len(s.nodes)
	for i, n := range s.nodes {
		if n.p == p {
			return
		}
		if limits.Subnet(n.p.addr.Addr()) == h {
			same++
		}
		if site(n.p.addr.Addr()) == net {
			around++
		}
		if at == len(s.nodes) && closer(&s.target, &p.id, &n.p.id) {
			at = i
		}
	}
	if (same >= hostSearch || around >= siteSearch) && !local(h) {
		return
	}
	s.nodes = append(s.nodes, nil)
	copy(s.nodes[at+1:], s.nodes[at:])
	s.nodes[at] = &searchNode{p: p, by: by, hop: hop}
}

// trim keeps the closest of those that answered, the closest of those that did not, and
// of these a few that each node named.
func (s *search) trim() {
	var yes, no int
	var named [4 * searchNodes]struct {
		by *peer
		n  int
	}
	fair := func(by *peer) bool {
		for i := range named {
			if x := &named[i]; x.n == 0 || x.by == by {
				x.by = by
				x.n++
				return x.n <= namesEach
			}
		}
		return false
	}
	out := s.nodes[:0]
	for _, n := range s.nodes {
		keep := false
		if len(n.token) > 0 {
			yes++
			keep = yes <= searchNodes
		} else {
			no++
			keep = fair(n.by) || no <= searchNodes
		}
		if keep {
			out = append(out, n)
		} else {
			s.forget(n)
		}
	}
	clear(s.nodes[len(out):])
	s.nodes = out
}

// forget ends what the operations have with a node that left.
func (s *search) forget(n *searchNode) {
	for _, x := range s.gets {
		delete(x.state, n.p)
	}
	for _, x := range s.puts {
		delete(x.state, n.p)
	}
	for _, x := range s.listens {
		x.forget(n.p)
	}
}

// prune takes failed nodes out, and remembers them so that nobody names them again.
func (s *search) prune() {
	out := s.nodes[:0]
	for _, n := range s.nodes {
		if !n.bad && !n.p.failed {
			out = append(out, n)
			continue
		}
		if len(s.dead) < peersMost {
			s.dead[n.p.peerKey] = true
		}
		s.forget(n)
	}
	clear(s.nodes[len(out):])
	s.nodes = out
}

// first returns the closest live nodes.
func (s *search) first(buf []*searchNode, n int) []*searchNode {
	for _, x := range s.nodes {
		if len(buf) == n {
			break
		}
		if x.live() {
			buf = append(buf, x)
		}
	}
	return buf
}

// step asks whom it is time to ask, and lets the operations go on.
func (s *search) step() {
	c := s.c
	s.prune()
	if len(s.nodes) < searchTarget {
		s.refill()
	}
	var buf [searchTarget]*searchNode
	first := s.first(buf[:0], searchTarget)
	if len(first) == 0 && c.boot.pending[s.f] > 0 {
		c.timer.set(s.task, c.now.Add(50*time.Millisecond))
		return
	}
	synced := true
	for _, n := range first {
		s.get(n)
		if !n.synced(c.now) {
			synced = false
			if n.asking == 0 && s.flight < searchFlight {
				s.sync(n)
			}
		}
	}
	if !synced {
		return // an answer, or that there is none, goes on
	}
	if len(first) < searchTarget { // nobody is in their place: they get a second chance
		for _, n := range s.nodes {
			if until := n.asked.Add(slowMost); n.asking > 0 && n.slow && c.now.Before(until) {
				c.timer.set(s.task, until)
				return
			}
		}
	}
	s.endFinds(first)
	for _, g := range append([]*getPart(nil), s.gets...) {
		g.finish(first)
	}
	next := c.now.Add(never)
	for _, p := range append([]*putPart(nil), s.puts...) {
		next = earlier(next, p.step(first))
	}
	for _, l := range append([]*listenPart(nil), s.listens...) {
		next = earlier(next, l.step(first[:min(len(first), listenNodes)]))
	}
	if s.lasting() {
		for _, n := range first {
			next = earlier(next, n.tokenAt.Add(tokenLife))
		}
		c.timer.set(s.task, next)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *search) endFinds(first []*searchNode) {
	finds := s.finds
	if len(finds) == 0 {
		return
	}
	s.finds = nil
	t := s.trace(first)
	for _, fn := range finds {
		fn(t)
	}
}

func (s *search) trace(first []*searchNode) Trace {
	t := Trace{Found: len(first), Messages: s.msgs}
	for _, n := range first {
		t.Hops = max(t.Hops, n.hop+1)
		t.Closest = append(t.Closest, n.p.id)
	}
	return t
}

// ask sends a query of the search to a node. done gets the answer after the search
// took its nodes and token; fail is called when there is none.
func (s *search) ask(n *searchNode, m wire.Message, done func(*wire.Message, [][]byte), fail func(code int)) {
	c := s.c
	n.asking++
	n.asked, n.slow = c.now, false
	s.flight++
	s.msgs++
	flying := true
	land := func() {
		if flying {
			flying = false
			s.flight--
		}
	}
	if c.on[v4] && c.on[v6] && (m.Kind == wire.Find || m.Kind == wire.Get) {
		m.Want = wire.Want4 | wire.Want6
	}
	c.request(n.p, m, nil, &request{
		done: func(r *wire.Message, values [][]byte) {
			land()
			n.asking--
			n.slow = false
			s.take(n, r)
			done(r, values)
			s.kick()
		},
		fail: func(code int) {
			land()
			n.asking--
			if code == wire.ErrUnauthorized {
				n.token = nil
			} else if code != 0 {
				n.bad = true
			}
			fail(code)
			s.kick()
		},
		late: func() {
			land()
			n.slow = true
			s.kick()
		},
	})
}

// take reads nodes and token of an answer.
func (s *search) take(n *searchNode, m *wire.Message) {
	if len(m.Token) == 0 {
		n.bad = true // §1.2
		return
	}
	n.token, n.tokenAt = append([]byte(nil), m.Token...), s.c.now
	s.c.learn(s.target, n, v4, m.Nodes4, wire.Node4)
	s.c.learn(s.target, n, v6, m.Nodes6, wire.Node6)
}

// learn takes the nodes of a list into the search of their family.
func (c *Core) learn(target jami.ID, by *searchNode, f int, list []byte, size int) {
	s := c.searches[f][target]
	if s == nil || !c.on[f] {
		return
	}
	teller := by.p.addr.Addr()
	for i := 0; len(list) > 0 && i < wire.MaxNodes; i++ {
		var id jami.ID
		var a netip.AddrPort
		id, a, list = wire.NextNode(list, size)
		a, ok := named(a, teller)
		if !ok || family(a.Addr()) != f || id == c.self || id.IsZero() {
			continue
		}
		s.insert(c.peer(id, a), by.p, by.hop+1)
	}
	s.trim()
	if family(teller) != f {
		s.kick()
	}
}

// sync asks a node for closer nodes and a token. When there are values to put it asks
// what it has of them in the same query.
func (s *search) sync(n *searchNode) {
	if len(s.puts) == 0 {
		s.ask(n, wire.Message{Kind: wire.Find, Target: s.target}, func(*wire.Message, [][]byte) {}, func(int) {})
		return
	}
	s.ask(n, wire.Message{Kind: wire.Get, Target: s.target, Has: wire.HasQuery, Query: probe}, func(m *wire.Message, _ [][]byte) {
		for _, p := range s.puts {
			p.probed(n.p, m)
		}
	}, func(int) {})
}

// FindNodes looks for the nodes closest to a target; done is called once, later, with
// what each family took.
func (c *Core) FindNodes(target jami.ID, done func(Trace)) {
	left, sum := 0, Trace{}
	for f := range c.searches {
		if c.on[f] {
			left++
		}
	}
	for f := range c.searches {
		if !c.on[f] {
			continue
		}
		s := c.search(f, target)
		before := s.msgs
		s.finds = append(s.finds, func(t Trace) {
			sum.Found += t.Found
			sum.Hops = max(sum.Hops, t.Hops)
			sum.Messages += t.Messages - before
			sum.Closest = append(sum.Closest, t.Closest...)
			if left--; left == 0 {
				done(sum)
			}
		})
		s.kick()
	}
}
