package iceudp

import (
	"net/netip"
	"slices"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// candidates are where the socket is reached.
func (p *Port) candidates() ([]request.Candidate, error) {
	bound := p.addr()
	hosts := []netip.Addr{bound.Addr()}
	if bound.Addr().IsUnspecified() {
		var err error
		if hosts, err = ice.HostAddresses(p.o.Loopback, bound.Addr().Is6()); err != nil {
			return nil, err
		}
	}
	var out []request.Candidate
	add := func(typ request.Type, pref uint32, letter string, all []netip.AddrPort) {
		for i, a := range all[:min(len(all), ice.MaxAddresses)] {
			out = append(out, request.Candidate{Foundation: letter + ice.Foundation(a.Addr()), Priority: pref<<24 | (65535-uint32(i))<<8 | 255, Addr: a, Type: typ})
		}
	}
	var at, outside []netip.AddrPort
	for _, ip := range hosts {
		at = append(at, netip.AddrPortFrom(ip, bound.Port()))
	}
	for _, ip := range p.o.Public {
		outside = append(outside, netip.AddrPortFrom(ip, bound.Port()))
	}
	p.mu.Lock()
	for _, a := range p.mapped {
		outside = append(outside, a)
	}
	p.mu.Unlock()
	slices.SortFunc(outside[len(p.o.Public):], netip.AddrPort.Compare) // a map has no order
	outside = slices.DeleteFunc(slices.Compact(outside), func(a netip.AddrPort) bool { return slices.Contains(at, a) || !ice.Usable(a.Addr(), p.o.Loopback) })
	add(request.Host, ice.PrefHost, "H", at)
	add(request.ServerReflexive, ice.PrefSrflx, "S", outside)
	return out, nil
}
