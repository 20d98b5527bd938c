package leg

import (
	"errors"
	"net/netip"
	"sync"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/wire"
)

const (
	// maxRelays bounds the pairs of allocations that there are at once.
	maxRelays = 32
	// relayLegs is how many legs share one: each address that is sent to has a permission and a
	// channel in it, which last as long as it does.
	relayLegs = 16
)

// ErrRelays says that there are as many pairs of allocations as may be.
var ErrRelays = errors.New("leg: as many relays are in use as may be")

// Allocation is a relay of datagrams on a TURN server.
type Allocation interface {
	Addr() netip.AddrPort
	ReadFrom(b []byte) (int, netip.AddrPort, error)
	// Send copies b and does not wait; false: it is dropped.
	Send(b []byte, to netip.AddrPort) bool
	// Permit calls done, from another goroutine, when datagrams of an address may come.
	Permit(to netip.AddrPort, done func())
	Lost() <-chan struct{}
	Close()
}

// relay is a pair of allocations, for RTP and RTCP, that Jami legs share as they share ports:
// whose a packet is, its user fragment or its source tells. Browsers have all on the first one.
type relay struct {
	pair  [2]Allocation
	ports [2]*port
	slot  int

	full, end    chan struct{} // closed once each, under relays.mu
	isFull, ends bool
	legs, taken  int // that have it now; that had it
}

// relays are those of a host.
type relays struct {
	mu   sync.Mutex
	now  *relay // what legs that begin are given; nil: there is none
	used [maxRelays]bool
}

// Relay takes a pair of allocations over, of RTP and of RTCP: legs of Jami peers, and of browsers,
// that begin from now on name it beside what they have. full is closed when another one is wanted, since this one is
// lost, or has as many legs as it shall have.
func (h *Host) Relay(rtp, rtcp Allocation) (full <-chan struct{}, err error) {
	rs := &h.relays
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := &relay{pair: [2]Allocation{rtp, rtcp}, slot: -1, full: make(chan struct{}), end: make(chan struct{})}
	for i, used := range rs.used {
		if !used {
			r.slot = i
			break
		}
	}
	if r.slot < 0 || h.ctx.Err() != nil {
		return nil, ErrRelays
	}
	rs.used[r.slot] = true
	for i, a := range r.pair {
		p := &port{h: h, kind: kindRTP + kind(i), name: "relay", relayed: true, sock: wire.Via(a.Addr(), a.Send), index: 1 + 2*Pairs + 2*r.slot + i,
			batch: 1 + Pairs + r.slot, byAddr: map[netip.AddrPort]*Leg{}, waiting: map[netip.Addr]*Leg{}}
		p.reply = wire.NewWriter(p.sock)
		r.ports[i] = p
		h.wg.Go(func() { p.receive(a) })
	}
	r.ports[1].below = r.ports[0]
	if old := rs.now; old != nil {
		rs.retireLocked(old)
	}
	rs.now = r
	h.wg.Go(func() { h.keep(r) })
	return r.full, nil
}

// receive reads what a relay gets until it is closed.
func (p *port) receive(a Allocation) {
	b := make([]byte, wire.SlotSize)
	for {
		n, from, err := a.ReadFrom(b)
		if err != nil {
			return
		}
		p.packet(b[:n], from, mix.Now())
		p.reply.Flush()
	}
}

// keep closes a relay's allocations when it is lost or nobody needs it.
func (h *Host) keep(r *relay) {
	select {
	case <-r.pair[0].Lost():
	case <-r.pair[1].Lost():
	case <-r.end:
	case <-h.ctx.Done():
	}
	rs := &h.relays
	rs.mu.Lock()
	rs.retireLocked(r)
	lost := r.legs
	rs.mu.Unlock()
	if lost > 0 && h.ctx.Err() == nil {
		h.log.Warn("a relay is lost; who is heard by way of it is not any more", zap.Int("legs_that_named_it", lost))
	}
	for _, a := range r.pair {
		a.Close()
	}
	rs.mu.Lock()
	rs.used[r.slot] = false
	rs.mu.Unlock()
}

// retireLocked gives a relay to no leg any more.
func (rs *relays) retireLocked(r *relay) {
	if rs.now == r {
		rs.now = nil
	}
	r.wantLocked()
	rs.endLocked(r)
}

// wantLocked says that another one is wanted.
func (r *relay) wantLocked() {
	if !r.isFull {
		r.isFull = true
		close(r.full)
	}
}

// endLocked ends a relay that nobody has and nobody is given.
func (rs *relays) endLocked(r *relay) {
	if r.legs == 0 && rs.now != r && !r.ends {
		r.ends = true
		close(r.end)
	}
}

// take gives a leg the relay that there is; nil: none.
func (rs *relays) take() *relay {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.now
	if r == nil || r.taken >= 2*relayLegs { // no other one came in time
		return nil
	}
	r.legs++
	if r.taken++; r.taken >= relayLegs {
		r.wantLocked()
	}
	return r
}

// release gives it back; nil has nothing to give.
func (rs *relays) release(r *relay) {
	if r == nil {
		return
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.legs--
	rs.endLocked(r)
}

// relayLocked has the leg take a relay where it has none, for a description with candidates. A
// browser, which may have one of its own, needs it only where our ports may not be reached: as a lite
// agent we open no NAT. The caller holds l.mu.
func (l *Leg) relayLocked() {
	if l.relay != nil || l.closed || l.st.WebRTC && !l.h.addrs.hidden(l.port.sock.Local().Addr(), l.port.sock.Dual()) {
		return
	}
	l.relay = l.h.relays.take()
}

// permit lets a browser in by the relay, from the addresses that its offer names, from where it
// signals, which is often all that is known of it, and from a relay of its own on the same server.
func (l *Leg) permit(offer string, remote netip.Addr) {
	l.mu.Lock()
	r := l.relay
	l.mu.Unlock()
	if r == nil {
		return
	}
	from := append(sdp.Addresses(offer), r.pair[0].Addr()) // where its own relay is, which comes later, if it needs one
	if remote.IsValid() {
		from = append(from, netip.AddrPortFrom(remote.Unmap(), discard))
	}
	for _, at := range from {
		r.pair[0].Permit(at, func() {})
	}
}

// discard is the port for what has no effect (RFC 863).
const discard = 9

// unrelayLocked lets go of a relay. The caller holds l.mu.
func (l *Leg) unrelayLocked() {
	if l.relay == nil {
		return
	}
	for _, p := range l.relay.ports {
		p.forget(l)
	}
	l.h.relays.release(l.relay)
	l.relay, l.relayed = nil, [2][]netip.AddrPort{}
}

// has reports whether what comes to a port may be the leg's. The caller holds l.mu.
func (l *Leg) hasLocked(p *port) bool {
	return p == l.port || p == l.rtcp || l.relay != nil && (p == l.relay.ports[0] || p == l.relay.ports[1])
}

// outLocked are the ports that RTP and RTCP of a leg go out by. The caller holds l.mu.
func (l *Leg) outLocked() (rtp, rtcp *port) {
	rtp, rtcp = l.port, l.rtcp
	if l.relay != nil && l.st.Relayed {
		rtp = l.relay.ports[0]
	}
	if l.relay != nil && l.st.RelayedRTCP {
		rtcp = l.relay.ports[1]
	}
	return rtp, rtcp
}
