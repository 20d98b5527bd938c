package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/votes"
)

// Limits on queries, a second (§1.6).
const (
	queriesMost = 8192
	hostQueries = 1024
)

// amplification is how many times the bytes of its query an address gets in answer
// before it is proven.
const amplification = 4

// Bounds of what is kept about addresses.
const (
	provenFor  = 10 * time.Minute
	provenMost = 8192
	provePings = 1024 // on the way at once
	heldFor    = 3 * time.Second
	heldMost   = 256
	heldEach   = 4 // of one address
)

// held is an answer that waits for a proof of its address.
type held struct {
	main   []byte
	tid    uint32
	values [][]byte
	until  time.Time
}

// guard knows which addresses are real and how much they ask.
type guard struct {
	window time.Time
	all    int
	each   map[netip.Addr]int
	proven map[netip.AddrPort]time.Time
	held   map[netip.AddrPort][]held
	nHeld  int
	asked  map[netip.AddrPort]bool // a ping to prove it is on the way
}

func (g *guard) init(now time.Time) {
	g.window = now
	g.each = map[netip.Addr]int{}
	g.proven = map[netip.AddrPort]time.Time{}
	g.held = map[netip.AddrPort][]held{}
	g.asked = map[netip.AddrPort]bool{}
}

// allow counts a query; false: over the limit. The last quarter of all that are answered
// is kept for addresses that are proven: strangers, who may be one with many addresses,
// don't shut them out.
func (c *Core) allow(from netip.AddrPort) bool {
	g, now, ip := &c.guard, c.now, from.Addr()
	if now.Sub(g.window) >= time.Second {
		g.window, g.all = now, 0
		clear(g.each)
	}
	h := limits.Subnet(ip)
	most := c.cfg.Queries
	if g.each[h] >= c.cfg.HostQueries || g.all >= most || g.all >= most-most/4 && !c.isProven(from) {
		return false
	}
	g.all++
	g.each[h]++
	return true
}

// prove notes that an address is real and sends what waited for that.
func (c *Core) prove(a netip.AddrPort) {
	g := &c.guard
	if len(g.proven) >= provenMost {
		for k, at := range g.proven {
			if c.now.Sub(at) >= provenFor {
				delete(g.proven, k)
			}
		}
		if len(g.proven) >= provenMost {
			clear(g.proven) // they are proven again in a round trip
		}
	}
	g.proven[a] = c.now
	waiting := g.held[a]
	if waiting == nil {
		return
	}
	delete(g.held, a)
	g.nHeld -= len(waiting)
	for _, h := range waiting {
		if c.now.Before(h.until) {
			c.send(a, wire.Reply, h.main)
			c.sendChunks(a, h.tid, h.values)
		}
	}
}

func (c *Core) isProven(a netip.AddrPort) bool {
	at, ok := c.guard.proven[a]
	return ok && c.now.Sub(at) < provenFor
}

// hold keeps an answer until its address is proven; false: no room.
func (c *Core) hold(a netip.AddrPort, tid uint32, main []byte, values [][]byte) bool {
	g := &c.guard
	if g.nHeld >= heldMost || len(g.held[a]) >= heldEach {
		c.dropHeld()
		if g.nHeld >= heldMost || len(g.held[a]) >= heldEach {
			c.stats.Crowded++
			return false
		}
	}
	g.held[a] = append(g.held[a], held{main, tid, values, c.now.Add(heldFor)})
	g.nHeld++
	c.stats.Held++
	return true
}

// dropHeld forgets what waited in vain.
func (c *Core) dropHeld() {
	g := &c.guard
	for a, hs := range g.held {
		if !c.now.Before(hs[len(hs)-1].until) {
			g.nHeld -= len(hs)
			delete(g.held, a)
		}
	}
}

// ask pings a stranger who queried us: the answer proves the address, and only who
// answers comes into the table.
func (c *Core) ask(p *peer) {
	g := &c.guard
	if g.asked[p.addr] || len(g.asked) >= provePings {
		return
	}
	g.asked[p.addr] = true
	c.ping(p, func() { delete(g.asked, p.addr) })
}

// ping sends a ping; after, which may be nil, is called when it ended either way.
func (c *Core) ping(p *peer, after func()) {
	end := func() {
		if after != nil {
			after()
		}
	}
	c.request(p, wire.Message{Kind: wire.Ping}, nil, &request{done: func(*wire.Message, [][]byte) { end() }, fail: func(int) { end() }})
}

// Others are asked where they see this node, and what it has there is told anew, so often
// at most.
const (
	askWhere = 10 * time.Second
	askMost  = 16 // nodes
	moveMost = time.Minute
)

// sight is where others see this node, in one family.
type sight struct {
	votes.Votes
	asked time.Time
	moved time.Time
}

// observed notes where a host sees this node. One that sees it elsewhere has others be
// asked; when most do, the node has moved.
func (c *Core) observed(by, at netip.Addr) {
	f := family(at)
	v := &c.seen[f]
	before := v.Most()
	if v.Add(by, at) && before.IsValid() {
		c.moved(f)
	}
	if at == v.Most() || !c.on[f] || c.now.Sub(v.asked) < askWhere {
		return
	}
	v.asked = c.now
	n := 0
	for _, b := range c.tables[f].buckets {
		for _, p := range b.peers {
			if h := limits.Subnet(p.addr.Addr()); n < askMost && h != by && p.good(c.now) {
				n++
				c.ping(p, nil)
			}
		}
	}
}

// moved has this node be known at its new address: tokens and listeners are of the one
// before, and neighbours have that one in their tables.
func (c *Core) moved(f int) {
	v := &c.seen[f]
	if c.now.Sub(v.moved) < moveMost {
		return // what others refuse is mended one by one
	}
	v.moved = c.now
	for _, s := range c.sortedSearches(f) {
		for _, n := range s.nodes {
			n.token = nil
		}
		for _, x := range s.listens {
			for _, st := range x.state {
				st.sent, st.fails = time.Time{}, 0
			}
		}
		if s.busy() {
			s.kick()
		}
	}
	c.findNear(f, c.nearSelf())
}

func (c *Core) sortedSearches(f int) []*search {
	out := make([]*search, 0, len(c.searches[f]))
	for _, s := range c.searches[f] {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *search) int { return slices.Compare(a.target[:], b.target[:]) })
	return out
}

// PublicAddrs returns the addresses under which most others see this node, one a
// family at most.
func (c *Core) PublicAddrs() []netip.Addr {
	var out []netip.Addr
	for f := range c.seen {
		if a := c.seen[f].Most(); a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
