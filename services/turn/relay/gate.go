package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/internal/limits"
)

// Strangers bounds those without an allocation. Over UDP, where their address may be a
// lie, a request of 28 bytes is refused with 72 and more: so that nobody is flooded by
// way of us, an address (for IPv6 its /64) gets few answers, and all together get no
// more than a machine notices.
type Strangers struct {
	PerSec, Burst       float64 // answers to one address
	AllPerSec, AllBurst float64
	Patience            time.Duration // with a TCP connection that has not shown a credential
}

// DefaultStrangers lets a browser with several networks open its allocations at once,
// and whole offices behind one address within seconds.
var DefaultStrangers = Strangers{PerSec: 20, Burst: 100, AllPerSec: 2000, AllBurst: 4000, Patience: 15 * time.Second}

// gate is the UDP listener as pion sees it: what should not be answered is not read.
// One goroutine reads it.
type gate struct {
	*net.UDPConn
	book *book
	m    *Metrics

	each *limits.Limiter[netip.Addr]
	all  *rate.Limiter
}

func newGate(c *net.UDPConn, b *book, s Strangers, m *Metrics) *gate {
	return &gate{UDPConn: c, book: b, m: m, each: limits.New[netip.Addr](s.PerSec, int(s.Burst)), all: rate.NewLimiter(rate.Limit(s.AllPerSec), int(s.AllBurst))}
}

// ReadFrom returns the next datagram that is to be looked at.
func (g *gate) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := g.ReadFromUDPAddrPort(b)
		if err != nil {
			if passing(err) {
				continue
			}
			return 0, nil, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		k := classify(b[:n])
		if s := g.book.client(from); s != nil {
			switch {
			case k == kindNone:
				g.m.ignored(ignoredMalformed)
			case k == kindRequest && !s.requests.Allow():
				g.m.ignored(ignoredFlood)
			default:
				return n, s.addr, nil
			}
			continue
		}
		switch {
		case k == kindNone:
			g.m.ignored(ignoredMalformed)
		case k != kindRequest: // of an allocation that is over
			g.m.ignored(ignoredUnknown)
		case g.each.Take(limits.Subnet(from.Addr()), time.Now()) > 0, !g.all.Allow():
			g.m.ignored(ignoredFlood)
		default:
			return n, net.UDPAddrFromAddrPort(from), nil
		}
	}
}

type kind int

const (
	kindNone       kind = iota // neither STUN nor ChannelData
	kindRequest                // is answered
	kindIndication             // is not
	kindData                   // ChannelData
)

const (
	stunHeader  = 20
	magicCookie = 0x2112a442
)

// classify tells what a datagram is by its header alone:
//
//	0 0 class and method (14) | length (16) | magic cookie (32) | transaction (96)   RFC 8489 §5
//	0 1 channel (14) | length (16) | data                                            RFC 8656 §12.4
//
// The two class bits are 8 and 4 of the first 16; 00 is a request, 01 an indication. A
// server gets no responses.
func classify(b []byte) kind {
	if len(b) < 4 {
		return kindNone
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	switch first := binary.BigEndian.Uint16(b); {
	case first >= 0x4000 && first <= 0x4fff: // RFC 8656 §12
		if length > len(b)-4 { // over UDP, padding may be there and may be not
			return kindNone
		}
		return kindData
	case first>>14 != 0, len(b) < stunHeader, length%4 != 0, length != len(b)-stunHeader,
		binary.BigEndian.Uint32(b[4:]) != magicCookie:
		return kindNone
	default:
		switch first & 0x0110 {
		case 0:
			return kindRequest
		case 0x0010:
			return kindIndication
		}
		return kindNone
	}
}
