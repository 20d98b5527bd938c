// Package sim runs many OpenDHT nodes over a network that is not there: latency, loss,
// nodes that come and go, and packets of one's own making. Time is simulated, and the
// same seed gives the same run.
package sim

import (
	"container/heap"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
)

// Start is when every simulation begins.
var Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Net is a network. It belongs to one goroutine.
type Net struct {
	// Least and More make the latency of a packet: at least the first, at most both.
	Least, More time.Duration
	Loss        float64 // of packets, from 0 to 1
	Reorder     float64 // of packets, late by Least
	MTU         int     // bytes of a packet that gets through; 0: any
	// Tap, when set, sees every packet before it is lost or not.
	Tap func(from, to netip.AddrPort, b []byte)

	Packets, Bytes, Lost, TooLarge uint64

	now   time.Time
	rand  *rand.Rand
	seed  uint64
	q     queue
	free  []*event // to be used again
	seq   uint64
	ports map[netip.AddrPort]*port
	made  uint32
}

// port is who gets what is sent to an address.
type port struct {
	node *Node
	raw  func(from netip.AddrPort, b []byte)
}

// Node is one simulated node.
type Node struct {
	*core.Core
	Addr netip.AddrPort
	net  *Net
	wake time.Time
	gone bool
}

// New makes a network with 10 to 50 ms of latency and no loss.
func New(seed uint64) *Net {
	return &Net{Least: 10 * time.Millisecond, More: 40 * time.Millisecond, now: Start, seed: seed,
		rand: rand.New(rand.NewPCG(seed, 1)), ports: map[netip.AddrPort]*port{}}
}

// Now returns the simulated time.
func (n *Net) Now() time.Time { return n.now }

// Rand is the source of chance of a run.
func (n *Net) Rand() *rand.Rand { return n.rand }

// ID makes an id.
func (n *Net) ID() (id jami.ID) {
	for i := 0; i < len(id); i += 4 {
		binary.BigEndian.PutUint32(id[i:], n.rand.Uint32())
	}
	return id
}

// NextAddr makes an address that no one has: a host of its own in public space, next to
// none of the others.
func (n *Net) NextAddr() netip.AddrPort {
	n.made++
	x := n.made
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{51 + byte(x>>22), byte(x >> 8), byte(x), 1 + byte(x>>16)}), 4222)
}

// Add starts a node at an address of its own. change, which may be nil, alters its
// settings.
func (n *Net) Add(change func(*core.Config)) *Node { return n.AddAt(n.NextAddr(), change) }

// AddAt starts a node at an address.
func (n *Net) AddAt(a netip.AddrPort, change func(*core.Config)) *Node {
	x := &Node{Addr: a, net: n}
	c := core.Config{ID: n.ID(), IPv4: true, Now: n.now, Send: func(to netip.AddrPort, b []byte) { n.Send(x.Addr, to, b) }}
	if a.Addr().Is6() {
		c.IPv4, c.IPv6 = false, true
	}
	binary.BigEndian.PutUint64(c.Seed[:], n.seed)
	binary.BigEndian.PutUint64(c.Seed[8:], n.rand.Uint64())
	if change != nil {
		change(&c)
	}
	x.Core = core.New(c)
	n.ports[a] = &port{node: x}
	x.Poke()
	return x
}

// Raw gives what is sent to an address to fn, which doesn't keep b.
func (n *Net) Raw(a netip.AddrPort, fn func(from netip.AddrPort, b []byte)) {
	n.ports[a] = &port{raw: fn}
}

// Remove takes a node off the network without a word.
func (n *Net) Remove(x *Node) {
	x.gone = true
	if p := n.ports[x.Addr]; p != nil && p.node == x {
		delete(n.ports, x.Addr)
	}
}

// Move gives a node another address.
func (n *Net) Move(x *Node, a netip.AddrPort) {
	delete(n.ports, x.Addr)
	x.Addr = a
	n.ports[a] = &port{node: x}
}

// Gone reports whether the node was taken off.
func (x *Node) Gone() bool { return x.gone }

// Do calls methods of a node at the present time.
func (x *Node) Do(fn func()) {
	x.Poke()
	fn()
	x.Poke()
}

// Poke has a node look what to do; call it after every call of its methods.
func (x *Node) Poke() {
	if x.gone {
		return
	}
	if next := x.Advance(x.net.now); x.wake.IsZero() || next.Before(x.wake) || !x.wake.After(x.net.now) {
		x.wake = next
		e := x.net.event(next)
		e.node = x
		heap.Push(&x.net.q, e)
	}
}

// Send sends a packet, from anywhere.
func (n *Net) Send(from, to netip.AddrPort, b []byte) {
	n.Packets++
	n.Bytes += uint64(len(b))
	if n.Tap != nil {
		n.Tap(from, to, b)
	}
	if n.MTU > 0 && len(b) > n.MTU {
		n.TooLarge++
		return
	}
	if n.Loss > 0 && n.rand.Float64() < n.Loss || n.ports[to] == nil {
		n.Lost++
		return
	}
	d := n.Least
	if n.More > 0 { // packets that are sent together stay in order
		h := fnv.New64a()
		var x [52]byte
		fill(x[:], from, to, n.now)
		h.Write(x[:])
		d += time.Duration(h.Sum64() % uint64(n.More))
	}
	if n.Reorder > 0 && n.rand.Float64() < n.Reorder {
		d += n.Least
	}
	e := n.event(n.now.Add(d))
	e.from, e.to, e.b = from, to, append(e.b, b...)
	heap.Push(&n.q, e)
}

func fill(x []byte, from, to netip.AddrPort, at time.Time) {
	a, b := from.Addr().As16(), to.Addr().As16()
	copy(x, a[:])
	copy(x[16:], b[:])
	binary.BigEndian.PutUint16(x[32:], from.Port())
	binary.BigEndian.PutUint16(x[34:], to.Port())
	binary.BigEndian.PutUint64(x[36:], uint64(at.UnixNano()))
}

// At calls fn at a time from now.
func (n *Net) At(d time.Duration, fn func()) {
	e := n.event(n.now.Add(d))
	e.fn = fn
	heap.Push(&n.q, e)
}

// Run lets time pass.
func (n *Net) Run(d time.Duration) { n.Until(d, func() bool { return false }) }

// Until lets time pass until ok, at most d; it reports whether it came to that.
func (n *Net) Until(d time.Duration, ok func() bool) bool {
	end := n.now.Add(d)
	for !ok() {
		if len(n.q) == 0 || n.q[0].at.After(end) {
			n.now = end
			return ok()
		}
		n.step()
	}
	return true
}

func (n *Net) step() {
	e := heap.Pop(&n.q).(*event)
	defer n.done(e)
	n.now = e.at
	switch {
	case e.fn != nil:
		e.fn()
	case e.node != nil:
		if !e.node.gone && e.at.Equal(e.node.wake) {
			e.node.Poke()
		}
	default:
		p := n.ports[e.to]
		switch {
		case p == nil:
			n.Lost++
		case p.raw != nil:
			p.raw(e.from, e.b)
		default:
			p.node.Handle(n.now, e.from, e.b)
			p.node.Poke()
		}
	}
}

type event struct {
	at       time.Time
	seq      uint64
	node     *Node
	fn       func()
	from, to netip.AddrPort
	b        []byte
}

// event makes one that is pushed next.
func (n *Net) event(at time.Time) *event {
	var e *event
	if last := len(n.free) - 1; last >= 0 {
		e, n.free = n.free[last], n.free[:last]
	} else {
		e = &event{}
	}
	n.seq++
	e.at, e.seq = at, n.seq
	return e
}

// done gives an event back that was popped.
func (n *Net) done(e *event) {
	*e = event{b: e.b[:0]}
	n.free = append(n.free, e)
}

type queue []*event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}

// Cluster starts size nodes that bootstrap from ones before them, one every gap, and
// gives them time to find one another.
func (n *Net) Cluster(size int, gap time.Duration) []*Node {
	out := make([]*Node, 0, size)
	for i := range size {
		x := n.Add(nil)
		if i > 0 {
			boot := out[n.rand.IntN(i)].Addr
			x.Do(func() { x.Bootstrap([]netip.AddrPort{boot}) })
		}
		out = append(out, x)
		n.Run(gap)
	}
	n.Run(30 * time.Second)
	return out
}
