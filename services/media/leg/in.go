package leg

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// inbound is what the far end sends.
type inbound struct {
	mu        sync.Mutex
	secure    bool
	clear     bool // RTCP is not protected
	srtp      *srtp.In
	keys      srtp.Keys
	pt, dtmf  uint8
	codec     codec.ID    // of pt
	also      []sdp.Codec // that the far end may send instead
	level     uint8       // id of the extension
	clock     int         // RTP clock of the codec, Hz
	dtmfClock int
	member    *mix.Member
	pkt       mix.Packet // scratch, so that it does not escape for each packet
	rx        receiver
	ssrc      uint32 // of who speaks
	ssrcAt    int64  // mix.Now of his last packet
	digit     digits
}

// rtp takes a packet that came from an address of this leg, or, with latch set,
// from one that may become it. It reports whether the packet was authentic: for
// plain RTP, well formed and of a negotiated type.
func (l *Leg) rtp(pkt []byte, now int64) bool {
	var h wire.Header
	if !h.Parse(pkt) {
		l.h.drop(dropMalformed)
		return false
	}
	in := &l.in
	in.mu.Lock()
	payload := pkt[h.Size:]
	if in.secure {
		if in.srtp == nil {
			in.mu.Unlock()
			l.h.drop(dropEarly)
			return false
		}
		var err error
		var index uint64
		if payload, index, err = in.srtp.RTP(pkt, h.Size); err != nil {
			in.mu.Unlock()
			if err == srtp.ErrReplay {
				l.h.drop(dropReplay) // told from the header alone: it proves nothing
				return false
			}
			l.h.drop(dropAuth)
			return false
		}
		if l.slot.Source.Load() != uint64(h.SSRC) {
			l.slot.Source.Store(uint64(h.SSRC))
			l.slot.Received.Store(index)
		} else if index > l.slot.Received.Load() {
			l.slot.Received.Store(index)
		}
	}
	if !in.secure && !in.speaks(h.SSRC, now) {
		in.mu.Unlock()
		l.h.drop(dropSource)
		return false
	}
	if h.Padding {
		var ok bool
		if payload, ok = wire.Unpad(payload); !ok {
			in.mu.Unlock()
			l.h.drop(dropMalformed)
			return in.secure
		}
	}
	var pressed string
	var ms int
	switch {
	case in.takes(h.PayloadType):
		in.rx.packet(&h, now, in.clock)
		if in.member != nil && len(payload) > 0 {
			level, voice, _ := h.Level(in.level)
			p := &in.pkt
			p.SSRC, p.Seq, p.Timestamp, p.Marker = h.SSRC, h.Seq, h.Timestamp, h.Marker
			p.Level, p.Voice, p.Payload, p.Arrival = level, voice, payload, now
			in.member.Push(p)
			p.Payload = nil
		}
	case in.dtmf != 0 && h.PayloadType == in.dtmf:
		in.rx.packet(&h, now, in.clock)
		pressed, ms = in.digit.packet(payload, h.Timestamp, in.dtmfClock, now)
	default:
		secure := in.secure
		in.mu.Unlock()
		l.h.drop(dropPayloadType)
		return secure
	}
	in.mu.Unlock()
	l.h.stats.packetsIn.Add(1)
	if pressed != "" {
		l.h.events.Digit(l.id, l.room.name, pressed, ms)
	}
	l.touch(now)
	return true
}

// sourceQuiet is the silence of a sender after which another one may take his place, without keys.
const sourceQuiet = int64(100e6)

// speaks reports whether a packet without keys is of who speaks: with somebody else's address, anybody may
// send in between, and each change of the sender begins the stream anew (RFC 3550 §8.2).
func (in *inbound) speaks(ssrc uint32, now int64) bool {
	if ssrc != in.ssrc && in.rx.started && now-in.ssrcAt < sourceQuiet {
		return false
	}
	in.ssrc, in.ssrcAt = ssrc, now
	return true
}

// takes reports whether a payload type is a codec's that was negotiated, and has the member send that.
func (in *inbound) takes(pt uint8) bool {
	id := in.codec
	if pt != in.pt {
		i := slices.IndexFunc(in.also, func(c sdp.Codec) bool { return c.PT == pt })
		if i < 0 {
			return false
		}
		id = in.also[i].ID
	}
	in.clock = 50 * int(id.RTPSamples())
	return in.member == nil || in.member.SetIn(id) == nil
}

// latch makes from the address of a leg that was waiting for its first packet.
func (l *Leg) latch(from netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.st.Latched {
		return
	}
	l.st.Latched, l.st.Remote = true, from
	l.port.latched(l, from)
	if err := l.configureLocked(); err != nil {
		l.h.logError("leg not latched", l.id, err)
	}
	l.h.dirty(l)
}
