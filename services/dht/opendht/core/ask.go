package core

import (
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Reply is what one node answers to [Core.Ask]. OK is false when it did not, and then
// nothing else is set but Sendings.
type Reply struct {
	OK       bool
	ID       jami.ID
	Agent    string // program, as it says
	Seen     netip.Addr
	Time     time.Duration // since the first sending
	Sendings int
	Nodes    []Node // nodes near the target that it named
}

// Ask asks the node at an address for the nodes near a target, or only pings it when
// that is nil. An id that is not zero has to be the one that answers. done is called once,
// later; false: no node can have that address.
func (c *Core) Ask(to Node, target *jami.ID, done func(Reply)) bool {
	if !usable(to.Addr) || !c.on[family(to.Addr.Addr())] || to.ID == c.self {
		return false
	}
	p := &peer{peerKey: peerKey{addr: to.Addr}, tid: c.rand.Uint32()}
	if !to.ID.IsZero() {
		p = c.peer(to.ID, to.Addr)
	}
	m := wire.Message{Kind: wire.Ping}
	if target != nil {
		m.Kind, m.Target, m.Has = wire.Find, *target, wire.HasTarget
		if c.on[v4] && c.on[v6] {
			m.Want = wire.Want4 | wire.Want6
		}
	}
	var r *request
	r = &request{
		done: func(a *wire.Message, _ [][]byte) { done(c.readReply(a, r)) },
		fail: func(int) { done(Reply{Sendings: r.tries}) },
	}
	c.request(p, m, nil, r)
	return true
}

func (c *Core) readReply(m *wire.Message, r *request) Reply {
	x := Reply{OK: true, ID: m.ID, Agent: string(m.Agent), Seen: m.Addr, Time: c.now.Sub(r.first), Sendings: r.tries}
	for f, list := range [...][]byte{m.Nodes4, m.Nodes6} {
		size := [...]int{wire.Node4, wire.Node6}[f]
		for i := 0; len(list) > 0 && i < wire.MaxNodes; i++ {
			var n Node
			n.ID, n.Addr, list = wire.NextNode(list, size)
			var ok bool
			if n.Addr, ok = named(n.Addr, r.to.addr.Addr()); ok && family(n.Addr.Addr()) == f && n.ID != c.self && !n.ID.IsZero() {
				x.Nodes = append(x.Nodes, n)
			}
		}
	}
	return x
}
