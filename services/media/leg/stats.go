package leg

import (
	"sync/atomic"

	"go.uber.org/zap"
)

// drop reasons.
const (
	dropJunk = iota
	dropStranger
	dropMalformed
	dropOversize
	dropAuth
	dropReplay
	dropEarly
	dropPayloadType
	dropSource
	dropCheck
	dropHandshake
	dropSend
	dropTrunk
	dropReasons
)

// DropReasons names the counters of [Host.Drops], in order.
var DropReasons = [dropReasons]string{
	"junk",         // neither STUN, DTLS, RTP nor RTCP, or not at this port
	"stranger",     // from an address that no leg has
	"malformed",    // RTP or RTCP that does not parse
	"oversize",     // longer than a slot
	"auth",         // SRTP authentication failed
	"replay",       // seen before, or too old
	"early",        // before there are keys
	"payload_type", // not negotiated
	"source",       // RTP without keys of another sender than who speaks
	"check",        // STUN that is no valid check of a leg
	"handshake",    // DTLS without a place for a handshake
	"send",         // refused by the kernel
	"trunk",        // of a trunk that is not there, or not authentic
}

type stats struct {
	packetsIn, packetsOut, rtcpIn, rtcpOut, handshakes, resumed atomic.Uint64
	drops                                                       [dropReasons]atomic.Uint64
}

// Counters is what was counted since the start.
type Counters struct {
	PacketsIn, PacketsOut, RTCPIn, RTCPOut, Handshakes, Resumed uint64
	Drops                                                       [dropReasons]uint64
}

// Counters returns the counts.
func (h *Host) Counters() Counters {
	s := &h.stats
	c := Counters{
		PacketsIn: s.packetsIn.Load(), PacketsOut: s.packetsOut.Load(), RTCPIn: s.rtcpIn.Load(),
		RTCPOut: s.rtcpOut.Load(), Handshakes: s.handshakes.Load(), Resumed: s.resumed.Load(),
	}
	for i := range c.Drops {
		c.Drops[i] = s.drops[i].Load()
	}
	return c
}

func (h *Host) drop(reason int) { h.stats.drops[reason].Add(1) }

// logDrops says of each reason when its count has doubled: a flood makes a line
// at 1, 2, 4, … packets and not one each. The clock goroutine calls it.
func (h *Host) logDrops() {
	for i := range h.past {
		n := h.stats.drops[i].Load()
		if n == 0 || n < 2*h.past[i] {
			continue
		}
		h.past[i] = n
		h.log.Info("packets dropped", zap.String("why", DropReasons[i]), zap.Uint64("packets", n))
	}
}

func (h *Host) logError(what, id string, err error) {
	h.log.Warn(what, zap.String("leg", id), zap.Error(err))
}
