package icetcp

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	"github.com/parley-jami/parley/services/connect/device/request"
)

// maxAddresses is how many addresses of each kind are told; stock takes no more hosts.
const maxAddresses = 8

// Type preferences (RFC 8445 §5.1.2.2), as pjnath has them.
const (
	prefHost  = 126
	prefSrflx = 100
)

// candidates are where this process is reached: at each address its port, and connections
// that it opens from there.
func (l *Listener) candidates() ([]request.Candidate, error) {
	bound := l.addr()
	hosts := []netip.Addr{bound.Addr()}
	if bound.Addr().IsUnspecified() {
		var err error
		if hosts, err = hostAddresses(l.o.Loopback, bound.Addr().Is6()); err != nil {
			return nil, err
		}
	}
	var out []request.Candidate
	add := func(typ request.Type, pref uint32, letter string, ips []netip.Addr) {
		index := uint32(0)
		for _, ip := range ips[:min(len(ips), maxAddresses)] {
			for _, tcp := range []request.TCPType{request.Passive, request.Active} {
				port := bound.Port()
				if tcp == request.Active {
					port = request.ActivePort
				}
				out = append(out, request.Candidate{Foundation: letter + foundation(ip), Priority: pref<<24 | (65535-index)<<8 | 255,
					Addr: netip.AddrPortFrom(ip, port), Type: typ, TCPType: tcp})
				index++
			}
		}
	}
	add(request.Host, prefHost, "H", hosts)
	public := slices.DeleteFunc(slices.Clone(l.o.Public), func(ip netip.Addr) bool { return slices.Contains(hosts, ip) })
	add(request.ServerReflexive, prefSrflx, "S", public)
	return out[:min(len(out), 2*maxAddresses+8)], nil // with one of a relay below what stock trims
}

// hostAddresses are the addresses of this machine, IPv4 first; six those of IPv6 too. Those
// of a link alone are left out: they mean nothing without its name.
func hostAddresses(loopback, six bool) ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		switch ip = ip.Unmap(); {
		case !usable(ip, loopback):
		case ip.Is4():
			v4 = append(v4, ip)
		case six:
			v6 = append(v6, ip)
		}
	}
	if len(v6) > 0 {
		v4 = v4[:min(len(v4), maxAddresses-1)] // one of IPv6 has a place
	}
	return append(v4, v6...), nil
}

// usable reports whether a connection to an address makes sense.
func usable(ip netip.Addr, loopback bool) bool {
	return ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast() && (loopback || !ip.IsLoopback()) &&
		ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func foundation(ip netip.Addr) string {
	if ip.Is4() {
		b := ip.As4()
		return fmt.Sprintf("%x", b[:])
	}
	h := fnv.New32a()
	h.Write(ip.AsSlice())
	return fmt.Sprintf("%08x", h.Sum32())
}
