package icetcp

import (
	"net/netip"
	"slices"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// candidates are where this process is reached: at each address its port, and connections
// that it opens from there.
func (l *Listener) candidates() ([]request.Candidate, error) {
	bound := l.addr()
	hosts := []netip.Addr{bound.Addr()}
	if bound.Addr().IsUnspecified() {
		var err error
		if hosts, err = ice.HostAddresses(l.o.Loopback, bound.Addr().Is6()); err != nil {
			return nil, err
		}
	}
	var out []request.Candidate
	add := func(typ request.Type, pref uint32, letter string, ips []netip.Addr) {
		index := uint32(0)
		for _, ip := range ips[:min(len(ips), ice.MaxAddresses)] {
			for _, tcp := range []request.TCPType{request.Passive, request.Active} {
				port := bound.Port()
				if tcp == request.Active {
					port = request.ActivePort
				}
				out = append(out, request.Candidate{Foundation: letter + ice.Foundation(ip), Priority: pref<<24 | (65535-index)<<8 | 255,
					Addr: netip.AddrPortFrom(ip, port), Type: typ, TCPType: tcp})
				index++
			}
		}
	}
	add(request.Host, ice.PrefHost, "H", hosts)
	public := slices.DeleteFunc(slices.Clone(l.o.Public), func(ip netip.Addr) bool { return slices.Contains(hosts, ip) })
	add(request.ServerReflexive, ice.PrefSrflx, "S", public)
	return out[:min(len(out), 2*ice.MaxAddresses+8)], nil // with one of a relay below what stock trims
}
