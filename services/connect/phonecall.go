package connect

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/sip"
)

// resolveTime bounds the look-up of a phone's host.
const resolveTime = 3 * time.Second

// toPhone has a phone called, if the operator named its host. The node connects to no other:
// whoever may call people in could have it knock at any door.
func (c *calls) toPhone(ctx context.Context, o *sip.Outgoing, uri string) error {
	t, err := sip.ParseTarget(uri)
	if err != nil {
		return contract.ErrBadRequest.With("%v", err)
	}
	if !named(c.hosts, t.Host) {
		return contract.ErrForbidden.With("phones at %s are not called; sip.call_hosts names the hosts whose phones are", t.Host)
	}
	ip, err := resolve(ctx, t.Host)
	if err != nil {
		return contract.ErrUnreachable.With("%s: %v", t.Host, err)
	}
	if !c.sip.Speaks(t.Transport) {
		return contract.ErrBadRequest.With("SIP over %s is switched off", t.Transport)
	}
	o.ID = sip.NewID("sip")
	if o.Name == "" {
		if o.Name = t.User; o.Name == "" {
			o.Name = t.Host
		}
	}
	o.Phone = sip.Phone{URI: t.URI, Transport: t.Transport, At: netip.AddrPortFrom(ip, t.Port).String()}
	return nil
}

// named reports whether a host is in the list: by its name, or an address of it or a prefix
// around it. A name is not looked up for that.
func named(list []string, host string) bool {
	ip, err := netip.ParseAddr(host)
	isIP := err == nil
	for _, x := range list {
		if p, err := netip.ParsePrefix(x); err == nil {
			if isIP && p.Contains(ip.Unmap()) {
				return true
			}
			continue
		}
		if a, err := netip.ParseAddr(x); err == nil {
			if isIP && a.Unmap() == ip.Unmap() {
				return true
			}
			continue
		}
		if !isIP && strings.EqualFold(x, host) {
			return true
		}
	}
	return false
}

func resolve(ctx context.Context, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	ctx, stop := context.WithTimeout(ctx, resolveTime)
	defer stop()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	return ips[0].Unmap(), nil
}
