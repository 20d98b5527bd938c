package icetcp

import (
	"net"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Relay is a relay of TCP connections (RFC 6062) on a TURN server.
type Relay interface {
	Addr() netip.AddrPort
	// Permit lets connections of addresses in, for some minutes.
	Permit(ips []netip.Addr) error
	// Serve gives the connections of peers to take, until the relay is lost.
	Serve(take func(net.Conn))
}

// ServeRelay has peers be told of a relay, and takes the connections that come by way of it,
// until it is lost.
func (l *Listener) ServeRelay(r Relay) {
	l.mu.Lock()
	l.relay = r
	l.mu.Unlock()
	r.Serve(func(c net.Conn) { l.take(c, true) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relay == r {
		l.relay = nil
	}
}

// relayed is the candidate of the relay, as stock has it: its foundation is that of the relay's
// address, its type preference 0.
func relayed(at netip.AddrPort) request.Candidate {
	return request.Candidate{Foundation: "R" + ice.Foundation(at.Addr()), Priority: 65535<<8 | 255, Addr: at, Type: request.Relay, TCPType: request.Passive}
}

// permit has the relay that an agent names let the peer in, from wherever it says that it is.
func (t *attempt) permit() {
	r := t.a.relay
	if r == nil {
		return
	}
	var ips []netip.Addr
	for _, c := range t.s.Remote.Candidates {
		if ip := c.Addr.Addr(); ip.Is4() && ice.Usable(ip, t.a.l.o.Loopback) && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	t.wg.Go(func() {
		if err := r.Permit(ips); err != nil { // of private addresses, of which there is nothing to be had
			t.a.l.o.Log.Debug("not all addresses of a device are let in by the relay", zap.Error(err))
		}
	})
}
