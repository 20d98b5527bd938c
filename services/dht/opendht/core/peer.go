package core

import (
	"math/bits"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// When a node is good (§1.6): it answered in the first time and was heard of in the
// second.
const (
	goodReply = 120 * time.Minute
	goodHeard = 10 * time.Minute
)

// peerKey: an id at another address is another peer until it is proven.
type peerKey struct {
	id   jami.ID
	addr netip.AddrPort
}

// peer is another node, as far as we have to do with it.
type peer struct {
	peerKey
	heard   time.Time // last packet
	replied time.Time // last answer to a query of ours
	failed  bool      // three sendings without an answer, and not heard since
	tid     uint32
	client  bool
	table   bool
	used    bool // mark of the sweep
}

// sid numbers come from the same counter as transactions (§1.6).
func (p *peer) next() uint32 {
	p.tid += 2
	return p.tid
}

func (p *peer) good(now time.Time) bool {
	return !p.failed && !p.client && now.Sub(p.replied) < goodReply && now.Sub(p.heard) < goodHeard
}

// peersMost bounds the peers that are remembered without being in a table or a
// search; beyond it those are forgotten.
const peersMost = 4096

// peer finds or makes one.
func (c *Core) peer(id jami.ID, a netip.AddrPort) *peer {
	k := peerKey{id, a}
	if p := c.peers[k]; p != nil {
		return p
	}
	if len(c.peers) >= peersMost {
		c.sweepPeers()
	}
	p := &peer{peerKey: k, tid: c.rand.Uint32()}
	c.peers[k] = p
	return p
}

// sweepPeers forgets peers that nothing uses.
func (c *Core) sweepPeers() {
	for _, p := range c.peers {
		p.used = p.table
	}
	for _, r := range c.requests {
		r.to.used = true
	}
	for f := range c.searches {
		for _, s := range c.searches[f] {
			for _, n := range s.nodes {
				n.p.used = true
			}
		}
	}
	for _, l := range c.listens {
		l.p.used = true
	}
	for k, p := range c.peers {
		if !p.used {
			delete(c.peers, k)
		}
	}
}

// closer reports whether a is closer to the target than b.
func closer(target, a, b *jami.ID) bool {
	for i := range target {
		if x, y := a[i]^target[i], b[i]^target[i]; x != y {
			return x < y
		}
	}
	return false
}

// commonBits counts the leading bits that two ids share.
func commonBits(a, b *jami.ID) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return 8 * len(a)
}

// usable refuses addresses that no node can have (§1.3).
func usable(a netip.AddrPort) bool {
	ip := a.Addr()
	switch {
	case a.Port() == 0, !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast(), ip.Is4In6():
		return false
	case ip.Is4():
		b := ip.As4()
		return b[0] != 0 && b[0] < 224
	}
	return true
}

// local are addresses that only make sense near us.
func local(ip netip.Addr) bool { return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() }

// site is the network of an address, its /24 or for IPv6 its /48: what one party has
// without effort.
func site(ip netip.Addr) netip.Addr {
	bits := 24
	if ip.Is6() && !ip.Is4In6() {
		bits = 48
	}
	if p, err := ip.Prefix(bits); err == nil {
		return p.Addr()
	}
	return ip
}

// named reports whether an address that a node told of may be asked, and as which.
// A loopback address is the teller's own; a private one from a public teller would have
// us send into our own network.
func named(a netip.AddrPort, teller netip.Addr) (netip.AddrPort, bool) {
	ip := a.Addr()
	if ip.IsLoopback() && ip.Is4() == teller.Is4() {
		a = netip.AddrPortFrom(teller, a.Port())
	}
	if !usable(a) || ip.Is6() && ip.IsLinkLocalUnicast() {
		return a, false
	}
	return a, !local(a.Addr()) || local(teller)
}
