package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Times of the upkeep (§1.6).
const (
	bootFirst  = 10 * time.Second
	bootMost   = 24 * time.Hour
	upkeepNew  = 2 * time.Second  // while few nodes are known and it has just started
	upkeepFew  = 10 * time.Second // while few nodes are known
	newFor     = 30 * time.Second
	bootAgain  = 20 * time.Minute // a network that fell apart grows together again
	upkeepMany = 60 * time.Second // each and half as long again at most
	pingAfter  = 8 * time.Minute  // not heard for so long
	handOnWait = 3 * time.Second  // after a new neighbour came
)

// Bounds of the upkeep.
const (
	savedMost  = 64 // nodes of a process before this one that are asked at once
	bootPings  = 16 // nodes that failed, asked again while no other is known
	handOnMost = 64 // values that are handed on at a time
)

// bootstrap finds the first nodes.
type bootstrap struct {
	addrs   []netip.AddrPort
	pending [families]int // who may be the first node and has not answered yet
	joined  [families]bool
	reached [families]bool          // one of addrs has answered
	again   time.Time               // when one of addrs is asked although all is well
	answers map[netip.AddrPort]bool // of addrs: whether the last question was answered
	wait    time.Duration
	task    *task
	handing *task
	came    bool      // a neighbour that handOn has not looked for yet
	toHand  []jami.ID // keys that it has still to look at
}

func (b *bootstrap) init() { b.wait, b.answers = bootFirst, map[netip.AddrPort]bool{} }

// Node is where another node is.
type Node struct {
	ID   jami.ID
	Addr netip.AddrPort
}

// Bootstrap sets whom to ask while no node is known, and asks them until one has
// answered: nodes that know only one another are no network.
func (c *Core) Bootstrap(addrs []netip.AddrPort) {
	c.SetBootstrap(addrs)
	c.boot.reached = [families]bool{}
	c.boot.wait = bootFirst
	c.tryBootstrap()
}

// Saved asks nodes that were known to a process before this one; it is back as soon as
// one of them answers.
func (c *Core) Saved(nodes []Node) {
	for _, n := range nodes[:min(len(nodes), savedMost)] {
		if a := n.Addr; usable(a) && c.on[family(a.Addr())] && n.ID != c.self && !n.ID.IsZero() {
			c.first(c.peer(n.ID, a))
		}
	}
}

// Meet asks the node at an address who it is, and looks for neighbours through it.
func (c *Core) Meet(a netip.AddrPort) {
	if usable(a) && c.on[family(a.Addr())] {
		c.first(&peer{peerKey: peerKey{addr: a}, tid: c.rand.Uint32()})
	}
}

// through goes on with the answer of a node that may know others than ours do.
func (c *Core) through(id jami.ID, a netip.AddrPort) {
	f := family(a.Addr())
	if slices.Contains(c.boot.addrs, a) {
		c.boot.reached[f] = true
	}
	if p := c.peer(id, a); !p.client {
		s := c.search(f, c.nearSelf())
		s.insert(p, nil, 0)
		s.trim()
		s.finds = append(s.finds, func(Trace) {})
		s.kick()
	}
}

// first pings what may be the first node; searches wait for it for a moment.
func (c *Core) first(p *peer) {
	f := family(p.addr.Addr())
	c.boot.pending[f]++
	waits := true
	over := func() {
		if waits {
			waits = false
			c.boot.pending[f]--
		}
	}
	c.request(p, wire.Message{Kind: wire.Ping}, nil, &request{
		done: func(m *wire.Message, _ [][]byte) {
			over()
			c.boot.note(p.addr, true)
			if p.id.IsZero() { // not one of ours from before
				c.through(m.ID, p.addr)
			}
		},
		fail: func(int) { over(); c.boot.note(p.addr, false) }, late: over})
}

// note keeps whether a bootstrap node answers: a full bucket has no place for it, so that
// the table does not tell.
func (b *bootstrap) note(a netip.AddrPort, answers bool) {
	if slices.Contains(b.addrs, a) {
		b.answers[a] = answers
	}
}

// tryBootstrap asks the bootstrap nodes, and those that failed, while a family has no
// good node or no bootstrap node has answered.
func (c *Core) tryBootstrap() {
	b := &c.boot
	again := false
	for f := range c.tables {
		alone := c.tables[f].count(c.now).Good == 0
		if !c.on[f] || !alone && b.reached[f] {
			continue
		}
		for _, a := range b.addrs {
			if family(a.Addr()) == f {
				again = true
				c.Meet(a)
			}
		}
		n := 0
		for _, bk := range c.tables[f].buckets {
			if !alone {
				break
			}
			for _, p := range bk.peers {
				if n < bootPings {
					n++
					again = true
					c.first(p)
				}
			}
		}
	}
	c.timer.stop(b.task)
	b.task = nil
	if again {
		b.task = c.timer.at(c.now.Add(b.wait), c.tryBootstrap)
		b.wait = min(2*b.wait, bootMost)
	}
}

// met starts to look for neighbours when the first node of a family is known.
func (b *bootstrap) met(c *Core, f int) {
	if b.joined[f] {
		return
	}
	b.joined[f] = true
	b.wait = bootFirst
	c.findNear(f, c.self)
}

// findNear looks for nodes near a target in one family.
func (c *Core) findNear(f int, target jami.ID) {
	s := c.search(f, target)
	s.finds = append(s.finds, func(Trace) {})
	s.kick()
}

func (c *Core) startUpkeep() { c.timer.at(c.now.Add(c.jitter(upkeepNew)), c.upkeep) }

// upkeep keeps the tables fresh and the memory bounded.
func (c *Core) upkeep() {
	next := upkeepMany
	lost := false
	for f := range c.tables {
		if !c.on[f] {
			continue
		}
		n := c.tables[f].count(c.now)
		if n.Good == 0 && c.boot.joined[f] {
			c.boot.joined[f] = false
			lost = true
		}
		if n.Good > 0 && n.Good < bucketSize {
			next = upkeepFew
			if c.now.Sub(c.cfg.Now) < newFor {
				next = upkeepNew
			}
		}
		c.upkeepTable(f)
		c.dropSearches(f, searchIdle)
	}
	if b := &c.boot; len(b.addrs) > 0 && !c.now.Before(b.again) {
		b.again = c.now.Add(c.jitter(bootAgain))
		if c.Counts().Good > 0 {
			c.Meet(b.addrs[c.rand.IntN(len(b.addrs))])
		}
	}
	if lost {
		c.boot.wait = bootFirst
		c.tryBootstrap()
	}
	c.sweepPeers()
	c.dropHeld()
	for _, s := range c.store.keys {
		for k, l := range s.listeners {
			if c.now.Sub(l.at) > listenerLife {
				c.dropListener(s, k)
			}
		}
		c.tidy(s)
	}
	for a, at := range c.guard.proven {
		if c.now.Sub(at) >= provenFor {
			delete(c.guard.proven, a)
		}
	}
	c.timer.at(c.now.Add(c.jitter(next)), c.upkeep)
}

// upkeepTable pings who was not heard of for long, gives one failed node another
// chance, and looks around in the bucket that waits longest.
func (c *Core) upkeepTable(f int) {
	t := &c.tables[f]
	var failed []*peer
	oldest, any := 0, false
	for i := range t.buckets {
		b := &t.buckets[i]
		if b.touched.Before(t.buckets[oldest].touched) {
			oldest = i
		}
		for _, p := range b.peers {
			any = true
			switch {
			case p.failed:
				failed = append(failed, p)
			case c.now.Sub(p.heard) > pingAfter || c.now.Sub(p.replied) > pingAfter:
				c.ask(p)
			}
		}
	}
	if len(failed) > 0 {
		c.ask(failed[c.rand.IntN(len(failed))])
	}
	if !any {
		return
	}
	t.buckets[oldest].touched = c.now
	if oldest == len(t.buckets)-1 {
		c.findNear(f, c.nearSelf())
		return
	}
	id := c.randomID()
	for i := range oldest + 1 { // shares that many bits, and then differs
		bit := byte(0x80 >> (i % 8))
		id[i/8] = id[i/8]&^bit | c.self[i/8]&bit
		if i == oldest {
			id[i/8] ^= bit
		}
	}
	c.findNear(f, id)
}

// nearSelf returns an id next to the own one.
func (c *Core) nearSelf() jami.ID {
	id := c.self
	id[len(id)-1] ^= byte(1 + c.rand.IntN(255))
	return id
}

// neighbour notes that a node came that may have to know values of ours.
func (c *Core) neighbour() {
	if len(c.store.keys) == 0 || c.cfg.Client {
		return
	}
	if c.boot.handing == nil {
		c.boot.handing = &task{fn: c.handOn}
	}
	c.boot.came = true
	c.handOnSoon()
}

func (c *Core) handOnSoon() {
	if c.boot.handing.index == 0 {
		c.timer.set(c.boot.handing, c.now.Add(c.jitter(handOnWait)))
	}
}

// handOn gives the values of keys to nodes that are new among the closest. Of those
// who have them the two closest do it.
func (c *Core) handOn() {
	b := &c.boot
	if len(b.toHand) == 0 {
		if !b.came {
			return
		}
		b.came, b.toHand = false, c.sortedKeys()
	}
	n := 0
	for ; len(b.toHand) > 0; b.toHand = b.toHand[1:] {
		key := b.toHand[0]
		s := c.store.keys[key]
		if s == nil || len(s.values) == 0 { // it ended meanwhile
			continue
		}
		near := c.near(&key)
		fresh, before := 0, 0
		for _, id := range near {
			switch {
			case !slices.Contains(s.near, id):
				fresh++
			case closer(&key, &id, &c.self):
				before++
			}
		}
		if s.near == nil || fresh == 0 || before >= 2 {
			s.near = near
			continue
		}
		if n+len(s.values) > handOnMost && n > 0 {
			c.handOnSoon() // the rest in the next round
			return
		}
		s.near = near
		for _, v := range slices.Clone(s.values) {
			if c.puts[putKey{key, v.ID}] == nil {
				n++
				if _, err := c.Put(key, v.Value, PutOptions{Created: v.expires.Add(-v.lifetime()), handOn: true}); err != nil {
					return // own storage is not asked when handing on
				}
			}
		}
	}
	b.toHand = nil
	if b.came { // while this went on
		c.handOnSoon()
	}
}

// near returns the closest good nodes of a key in all families.
func (c *Core) near(key *jami.ID) []jami.ID {
	out := []jami.ID{}
	for f := range c.tables {
		var buf [searchTarget]*peer
		for _, p := range c.tables[f].closest(buf[:0], key, searchTarget, func(p *peer) bool { return p.good(c.now) }) {
			out = append(out, p.id)
		}
	}
	return out
}

func (c *Core) sortedKeys() []jami.ID {
	out := make([]jami.ID, 0, len(c.store.keys))
	for k := range c.store.keys {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b jami.ID) int { return slices.Compare(a[:], b[:]) })
	return out
}

// Good returns up to n nodes that work, to be saved.
func (c *Core) Good(n int) []Node {
	var out []Node
	for f := range c.tables {
		for _, b := range c.tables[f].buckets {
			for _, p := range b.peers {
				if p.good(c.now) && len(out) < n {
					out = append(out, Node{p.id, p.addr})
				}
			}
		}
	}
	return out
}

// Counts returns how many nodes are known, of both families.
func (c *Core) Counts() (n Counts) {
	for f := range c.tables {
		x := c.tables[f].count(c.now)
		n.Good += x.Good
		n.Dubious += x.Dubious
		n.Failed += x.Failed
	}
	return n
}

// Joining reports whether a first node may answer any moment.
func (c *Core) Joining() bool { return c.boot.pending[v4]+c.boot.pending[v6] > 0 }

// Storage returns how many values of others there are and their bytes.
func (c *Core) Storage() (values, bytes int) {
	for _, s := range c.store.keys {
		values += len(s.values)
	}
	return values, c.store.bytes
}

// SetBootstrap sets whom to ask when no node is known any more.
func (c *Core) SetBootstrap(addrs []netip.AddrPort) {
	c.boot.addrs = slices.Clone(addrs)
	for a := range c.boot.answers {
		if !slices.Contains(addrs, a) {
			delete(c.boot.answers, a)
		}
	}
	c.boot.again = c.now.Add(c.jitter(bootAgain))
}

// Incoming returns the bytes of values that are coming in fragments.
func (c *Core) Incoming() int { return c.partial }

// Listeners returns how many others listen here.
func (c *Core) Listeners() int { return c.store.listeners }
