package leg

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/wire"
)

// Pairs is how many pairs of RTP and RTCP ports the phones share.
const Pairs = 128

// sharedPairs is how many of them are tried first.
const sharedPairs = 4

// maxWild bounds the legs of one port that wait for a first packet from anywhere,
// as each stranger's packet is tried on all of them.
const maxWild = 16

// kind is what a port carries.
type kind uint8

const (
	kindBrowser kind = iota
	kindRTP
	kindRTCP
)

// port is a socket with the legs that are reached through it.
type port struct {
	h       *Host
	kind    kind
	name    string
	sock    *wire.Socket
	index   int   // in Host.ports
	batch   int   // index of the room's batch for it
	below   *port // of RTCP: that of RTP
	relayed bool  // it is of a relay
	reader  *wire.Reader
	reply   *wire.Writer // the reading goroutine's, for answers to checks; nil: none come here
	writers sync.Pool    // *wire.Writer

	mu      sync.RWMutex
	byAddr  map[netip.AddrPort]*Leg
	waiting map[netip.Addr]*Leg // may come from any port of that host
	wild    []*Leg              // with keys: may come from anywhere
}

func newPort(h *Host, k kind, name string, batch int, c *net.UDPConn) (*port, error) {
	s, err := wire.New(c)
	if err != nil {
		return nil, err
	}
	p := &port{
		h: h, kind: k, name: name, batch: batch, sock: s, reader: wire.NewReader(s),
		byAddr: map[netip.AddrPort]*Leg{}, waiting: map[netip.Addr]*Leg{},
	}
	if k == kindBrowser {
		p.reply = wire.NewWriter(s)
	}
	return p, nil
}

func (p *port) getWriter() *wire.Writer {
	if w, ok := p.writers.Get().(*wire.Writer); ok {
		return w
	}
	return wire.NewWriter(p.sock)
}

// putWriter gives a flushed writer back.
func (p *port) putWriter(w *wire.Writer) {
	p.h.stats.packetsOut.Add(w.Sent)
	if w.Dropped != 0 {
		p.h.stats.drops[dropSend].Add(w.Dropped)
	}
	w.Sent, w.Dropped = 0, 0
	p.writers.Put(w)
}

// run reads until the socket is closed.
func (p *port) run() {
	for {
		n, err := p.reader.Read()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.h.log.Error("socket ended", zap.String("socket", p.name), zap.Error(err))
				p.h.fail(err)
			}
			return
		}
		now := mix.Now()
		for i := range n {
			pkt, from, ok := p.reader.Packet(i)
			if !ok {
				p.h.drop(dropOversize)
				continue
			}
			p.packet(pkt, from, now)
		}
		if p.reply != nil {
			p.reply.Flush()
		}
	}
}

// packet gives a datagram to whom it belongs, or counts it as junk.
func (p *port) packet(pkt []byte, from netip.AddrPort, now int64) {
	k := wire.Classify(pkt)
	switch {
	case k == wire.Trunk && p.kind == kindBrowser:
		p.h.trunkPacket(pkt, now)
		return
	case k == wire.Junk, k == wire.Trunk, k == wire.STUN && p.reply == nil, k == wire.DTLS && p.kind != kindBrowser && !(p.relayed && p.kind == kindRTP), p.kind == kindRTCP && k != wire.RTCP && k != wire.STUN:
		p.h.drop(dropJunk)
		return
	case k == wire.STUN:
		p.check(pkt, from, now)
		return
	}
	l := p.leg(from)
	if l == nil {
		if p.kind == kindRTP && k == wire.RTP {
			p.stranger(pkt, from, now)
			return
		}
		if p.kind == kindRTCP {
			l = p.legOfRTCP(from)
		}
		if l == nil {
			p.h.drop(dropStranger)
			return
		}
	}
	switch k {
	case wire.DTLS:
		l.dtlsPacket(p, pkt, from)
	case wire.RTCP:
		l.rtcpIn(pkt, now)
	case wire.RTP:
		if l.rtp(pkt, now) && !l.latched.Load() {
			l.latch(from)
		}
	}
}

func (p *port) leg(from netip.AddrPort) *Leg {
	p.mu.RLock()
	l := p.byAddr[from]
	p.mu.RUnlock()
	return l
}

// stranger tries a packet from an unknown address on the legs that wait for their
// first one: by the far end's host, then, for legs with keys, on each.
func (p *port) stranger(pkt []byte, from netip.AddrPort, now int64) {
	p.mu.RLock()
	l := p.waiting[from.Addr()]
	var wild [maxWild]*Leg
	n := copy(wild[:], p.wild)
	p.mu.RUnlock()
	tries := append(wild[:0:0], l)
	tries = append(tries, wild[:n]...)
	for i, t := range tries {
		if t == nil || t.latched.Load() || (i > 0 && t == l) {
			continue
		}
		var b [wire.SlotSize]byte // a failed try of AES-GCM overwrites the packet
		if t.rtp(b[:copy(b[:], pkt)], now) {
			t.latch(from)
			return
		}
	}
	p.h.drop(dropStranger)
}

// legOfRTCP finds the leg whose RTP comes from the port below.
func (p *port) legOfRTCP(from netip.AddrPort) *Leg {
	if from.Port() == 0 {
		return nil
	}
	return p.below.leg(netip.AddrPortFrom(from.Addr(), from.Port()-1))
}

// latched moves a leg from waiting to its address. The caller holds l.mu.
func (p *port) latched(l *Leg, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(l)
	p.byAddr[from] = l
}

// forgetLocked removes every way to the leg. The caller holds p.mu.
func (p *port) forgetLocked(l *Leg) {
	for _, a := range []netip.AddrPort{l.st.Told, l.st.ToldRTCP, l.st.Remote, l.st.RemoteRTCP} {
		if p.byAddr[a] == l {
			delete(p.byAddr, a)
		}
	}
	for _, a := range slices.Concat(l.st.Valid, l.st.ValidRTCP, l.relayed[0], l.relayed[1]) {
		if p.byAddr[a] == l {
			delete(p.byAddr, a)
		}
	}
	for _, a := range []netip.Addr{l.st.Source, l.st.Told.Addr()} {
		if p.waiting[a] == l {
			delete(p.waiting, a)
		}
	}
	for i, w := range p.wild {
		if w == l {
			p.wild = append(p.wild[:i], p.wild[i+1:]...)
			break
		}
	}
}

func nextPort(a netip.AddrPort) netip.AddrPort {
	if a.Port() == 65535 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr(), a.Port()+1)
}
