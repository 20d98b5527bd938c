package relay

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ownAge is how long the machine's list of addresses is believed.
const ownAge = 10 * time.Second

// Ports is an inclusive range.
type Ports struct{ First, Last uint16 }

func (p Ports) has(port uint16) bool { return p.First <= port && port <= p.Last }

// Peers says what may be relayed to. Without it, a relay on a machine is a way into all
// that trusts the machine: its loopback, its network, its cloud's metadata. It is safe
// for concurrent use.
type Peers struct {
	allow []allowed
	relay Ports // on own addresses: another allocation, which has permissions of its own
	media Ports // on own addresses, UDP: the node's audio
	extra []netip.Addr

	interfaces func() ([]net.Addr, error)
	now        func() time.Time

	mu  sync.Mutex
	at  time.Time
	own map[netip.Addr]struct{}
}

type allowed struct {
	prefix netip.Prefix
	port   uint16 // 0: all
}

// NewPeers returns the rules. allow are PREFIX, ADDRESS or ADDRESS:PORT; public are
// addresses that mean this machine though no interface has them; media may be zero.
func NewPeers(allow []string, public []netip.Addr, relay, media Ports) (*Peers, error) {
	p := &Peers{relay: relay, media: media, extra: public, interfaces: net.InterfaceAddrs, now: time.Now}
	for _, s := range allow {
		var a allowed
		if pre, err := netip.ParsePrefix(s); err == nil {
			a.prefix = pre.Masked()
		} else if ip, err := netip.ParseAddr(s); err == nil {
			a.prefix = netip.PrefixFrom(ip.Unmap().WithZone(""), ip.Unmap().BitLen())
		} else if at, err := netip.ParseAddrPort(s); err == nil {
			a = allowed{netip.PrefixFrom(at.Addr().Unmap().WithZone(""), at.Addr().Unmap().BitLen()), at.Port()}
		} else {
			return nil, fmt.Errorf("%q is no PREFIX, ADDRESS or ADDRESS:PORT", s)
		}
		p.allow = append(p.allow, a)
	}
	return p, nil
}

// forbidden are the addresses that are not of the public Internet (IANA registries of
// special-purpose addresses, RFC 6890), and those by which an IPv4 one is reached: an
// address within an address is judged by none of the rules for it.
var forbidden = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Address reports whether some port of ip may be relayed to; a permission is for an
// address (RFC 8656 §9).
func (p *Peers) Address(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() {
		return false
	}
	for _, a := range p.allow {
		if a.prefix.Contains(ip) {
			return true
		}
	}
	return p.mine(ip) || !special(ip)
}

// Port reports whether this port may be relayed to; udp tells UDP from TCP.
func (p *Peers) Port(to netip.AddrPort, udp bool) bool {
	ip := to.Addr().Unmap().WithZone("")
	if !ip.IsValid() || to.Port() == 0 {
		return false
	}
	for _, a := range p.allow {
		if a.prefix.Contains(ip) && (a.port == 0 || a.port == to.Port()) {
			return true
		}
	}
	if p.mine(ip) {
		return p.relay.has(to.Port()) || udp && p.media.has(to.Port())
	}
	return !special(ip)
}

func special(ip netip.Addr) bool {
	for _, f := range forbidden {
		if f.Contains(ip) {
			return true
		}
	}
	return false
}

// mine reports whether ip is this machine, other than its loopback and its link-local
// addresses, which nobody outside means.
func (p *Peers) mine(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now(); p.own == nil || now.Sub(p.at) > ownAge {
		if own := p.read(); own != nil { // else what was known last
			p.own, p.at = own, now
		}
	}
	_, ok := p.own[ip]
	return ok
}

func (p *Peers) read() map[netip.Addr]struct{} {
	list, err := p.interfaces()
	if err != nil {
		return nil
	}
	own := map[netip.Addr]struct{}{}
	for _, x := range list {
		if n, ok := x.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = struct{}{}
			}
		}
	}
	for _, ip := range p.extra {
		own[ip.Unmap()] = struct{}{}
	}
	return own
}
