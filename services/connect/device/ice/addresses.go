package ice

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
)

// MaxAddresses is how many addresses of each kind are told; stock takes no more hosts.
const MaxAddresses = 8

// Type preferences (RFC 8445 §5.1.2.2), as pjnath has them.
const (
	PrefHost  = 126
	PrefSrflx = 100
)

// HostAddresses are the addresses of this machine, IPv4 first; six those of IPv6 too. Those
// of a link alone are left out: they mean nothing without its name.
func HostAddresses(loopback, six bool) ([]netip.Addr, error) {
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
		case !Usable(ip, loopback):
		case ip.Is4():
			v4 = append(v4, ip)
		case six:
			v6 = append(v6, ip)
		}
	}
	if len(v6) > 0 {
		v4 = v4[:min(len(v4), MaxAddresses-1)] // one of IPv6 has a place
	}
	return append(v4, v6...), nil
}

// Usable reports whether a connection to an address makes sense.
func Usable(ip netip.Addr, loopback bool) bool {
	return ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast() && (loopback || !ip.IsLoopback()) &&
		ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// Foundation is that of a candidate at an address of this machine, without its first letter
// (§1.2).
func Foundation(ip netip.Addr) string {
	if ip.Is4() {
		b := ip.As4()
		return fmt.Sprintf("%x", b[:])
	}
	h := fnv.New32a()
	h.Write(ip.AsSlice())
	return fmt.Sprintf("%08x", h.Sum32())
}
