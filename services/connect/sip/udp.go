package sip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
)

const (
	// maxPeers is how many UDP sources the SIP library may remember before it
	// begins anew: it forgets them only when its reader ends.
	maxPeers = 16_384
	// overlap is how long what came last in a round has to find its way back.
	overlap = 5 * time.Second
)

// gate lets datagrams in, before anything is parsed or remembered. Each address
// has its share; all that have no call share another, so that who is in a room
// is heard whatever the others send.
type gate struct {
	known     func(netip.Addr) bool // has a call
	each, all *buckets
	log       *zap.Logger
	junk      atomic.Uint64 // not SIP
	flood     atomic.Uint64 // SIP, too much of it
}

func newGate(known func(netip.Addr) bool, now func() time.Time, log *zap.Logger) *gate {
	return &gate{known: known, log: log, each: newBuckets(messagesPerSec, messagesBurst, now), all: newBuckets(strangersPerSec, strangersBurst, now)}
}

func (g *gate) admit(b []byte, from netip.AddrPort) bool {
	if !looksLikeSIP(b) {
		if n := g.junk.Add(1); n&(n-1) == 0 {
			g.log.Warn("datagrams that are not SIP dropped", zap.Uint64("total", n), zap.Stringer("last_from", from))
		}
		return false
	}
	ip := limits.Subnet(from.Addr().Unmap().WithZone(""))
	if len(b) > maxDatagram || !g.each.take(ip, 1) || !g.known(ip) && !g.all.take(netip.Addr{}, 1) {
		if n := g.flood.Add(1); n&(n-1) == 0 {
			g.log.Warn("SIP datagrams dropped: too many or too large", zap.Uint64("total", n), zap.Stringer("last_from", from))
		}
		return false
	}
	return true
}

// slow makes the reader of a stream wait while its address sends too much.
func (g *gate) slow(ctx context.Context) sip.TransportReadFilter {
	return func(p sip.TransportReadProps, data []byte) ([]byte, error) {
		if p.Transport == "UDP" {
			return data, nil // see udpRound
		}
		ip := sourceKey(p.RemoteAddr.String())
		for !g.each.take(ip, float64(1+len(data)/512)) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
		return data, nil
	}
}

// udpRound is the socket as the SIP library's reader sees it until it has seen
// peers many sources: then the next round begins, and this one reads no more.
type udpRound struct {
	net.PacketConn
	gate    *gate
	peers   int
	seen    map[netip.AddrPort]struct{}
	read    int
	begun   sync.Once
	reading chan struct{} // closed when this round reads
	next    func() *udpRound
	end     <-chan struct{}
}

func (r *udpRound) ReadFrom(b []byte) (int, net.Addr, error) {
	r.begun.Do(func() { close(r.reading) })
	if r.seen == nil {
		return 0, nil, net.ErrClosed
	}
	if len(r.seen) >= r.peers {
		r.seen = nil
		<-r.next().reading
		select {
		case <-r.end:
		case <-time.After(overlap):
		}
		return 0, nil, net.ErrClosed
	}
	for {
		n, from, err := r.PacketConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		u, ok := from.(*net.UDPAddr)
		if !ok {
			return 0, nil, fmt.Errorf("a datagram from %v", from)
		}
		if at := u.AddrPort(); r.gate.admit(b[:n], at) {
			r.seen[at] = struct{}{}
			if r.read++; r.read%8 == 0 {
				runtime.Gosched() // each is a goroutine: they have their turn before there are more
			}
			return n, from, nil
		}
	}
}

// serveUDP runs rounds until the socket is closed.
func (s *Server) serveUDP(serve func(net.PacketConn) error) error {
	var open sync.WaitGroup
	var begin func() *udpRound
	begin = func() *udpRound {
		r := &udpRound{PacketConn: s.cfg.UDP, gate: s.gate, peers: maxPeers, seen: map[netip.AddrPort]struct{}{},
			reading: make(chan struct{}), next: begin, end: s.ctx.Done()}
		open.Go(func() {
			if err := serve(r); err != nil {
				s.log.Error("sip over udp", zap.Error(err))
				r.begun.Do(func() { close(r.reading) })
			}
		})
		return r
	}
	first := begin()
	open.Go(func() { <-first.reading; close(s.udpUp) })
	open.Wait()
	return net.ErrClosed
}
