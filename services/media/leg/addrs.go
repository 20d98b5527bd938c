package leg

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-jami/parley/services/media/reach"
)

// addressesAge is how long the machine's list of addresses is believed.
const addressesAge = 10 * time.Second

// addresses knows under which addresses the far ends reach this machine.
type addresses struct {
	public  []netip.Addr
	learned atomic.Pointer[[]netip.Addr] // by which others reach the machine; beside its own

	mu   sync.Mutex
	at   time.Time
	list []netip.Addr
}

// all returns the addresses for candidates, the best first: those that the
// operator named; else those of the interfaces, IPv4 first, loopback only when
// there is nothing else; and after them those that were learned. A socket that is bound
// to one address has only that of its own, and on loopback nothing else.
func (a *addresses) all(bound netip.Addr, dual bool) []netip.Addr {
	if len(a.public) > 0 {
		return a.public
	}
	if bound.IsLoopback() {
		return []netip.Addr{bound}
	}
	out := a.own(bound, dual)
	for _, ip := range a.known() {
		if (ip.Is4() || dual) && (!bound.IsValid() || bound.IsUnspecified() || bound.Is4() == ip.Is4()) && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	return out
}

// hidden reports whether nobody outside may know an address of this machine by which it is reached:
// it has no public one itself, and the operator named none.
func (a *addresses) hidden(bound netip.Addr, dual bool) bool {
	return len(a.public) == 0 && !slices.ContainsFunc(a.own(bound, dual), reach.Public)
}

// isLearned reports whether an address is not the machine's own, but one that was learned.
func (a *addresses) isLearned(ip netip.Addr) bool {
	return len(a.public) == 0 && slices.Contains(a.known(), ip) && !slices.Contains(a.own(netip.Addr{}, true), ip)
}

func (a *addresses) known() []netip.Addr {
	if p := a.learned.Load(); p != nil {
		return *p
	}
	return nil
}

// own returns the machine's own addresses.
func (a *addresses) own(bound netip.Addr, dual bool) []netip.Addr {
	if bound.IsValid() && !bound.IsUnspecified() {
		return []netip.Addr{bound}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) > addressesAge {
		a.list, a.at = interfaceAddrs(), time.Now()
	}
	var out []netip.Addr
	for _, ip := range a.list {
		if ip.Is4() || dual {
			out = append(out, ip)
		}
	}
	return out
}

func interfaceAddrs() []netip.Addr {
	var v4, v6, loop []netip.Addr
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, x := range list {
		n, ok := x.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ip = ip.Unmap()
		switch {
		case !ok || ip.IsLinkLocalUnicast():
		case ip.IsLoopback():
			loop = append(loop, ip)
		case ip.Is4():
			v4 = append(v4, ip)
		default:
			v6 = append(v6, ip)
		}
	}
	if out := append(v4, v6...); len(out) > 0 {
		return out
	}
	return loop
}

// toward returns the address to name to a far end at ip: a loopback one to those
// on this machine, else what the operator named, else to those on the Internet what was
// learned, else where the route starts.
func (a *addresses) toward(ip, bound netip.Addr) netip.Addr {
	if !ip.IsLoopback() {
		for _, p := range a.public {
			if !ip.IsValid() || p.Is4() == ip.Is4() {
				return p
			}
		}
	}
	if ip.IsGlobalUnicast() && !ip.IsPrivate() && !bound.IsLoopback() {
		for _, p := range a.known() {
			if p.Is4() == ip.Is4() {
				return p
			}
		}
	}
	if bound.IsValid() && !bound.IsUnspecified() {
		return bound
	}
	if ip.IsValid() {
		// Connecting a UDP socket sends nothing; it asks the kernel for the route.
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
		if err == nil {
			defer c.Close()
			if u, ok := c.LocalAddr().(*net.UDPAddr); ok {
				return u.AddrPort().Addr().Unmap()
			}
		}
	}
	for _, x := range a.all(bound, true) {
		if !ip.IsValid() || x.Is4() == ip.Is4() {
			return x
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
