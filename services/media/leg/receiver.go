package leg

import (
	"math"
	"sync/atomic"

	"github.com/parley-jami/parley/services/media/wire"
)

// receiver counts what arrives as RFC 3550 §6.4.1 and appendix A ask for in
// reports.
type receiver struct {
	ssrc     uint32
	started  bool
	base     uint32 // extended sequence number of the first packet
	highest  uint32 // extended
	received uint64
	before   uint64 // lost from earlier senders of the leg
	here     uint64 // received from this sender
	transit  int64
	jitter   float64 // RTP clock units

	priorExpected, priorReceived uint64
	lastFraction                 float64 // lost of the last interval, 0..1
}

// maxJump is the largest step of the sequence number that is not a new start.
const maxJump = 3000

// packet counts one.
func (r *receiver) packet(h *wire.Header, now int64, clock int) {
	r.received++
	jump := int16(h.Seq - uint16(r.highest))
	if !r.started || r.ssrc != h.SSRC || jump > maxJump || jump < -maxJump {
		r.before = r.lost()
		r.ssrc, r.started = h.SSRC, true
		r.base, r.highest, r.here = uint32(h.Seq), uint32(h.Seq), 1
		r.priorExpected, r.priorReceived = 0, 0
		r.transit = math.MinInt64
		return
	}
	r.here++
	if jump > 0 {
		r.highest += uint32(jump)
	}
	transit := now/1000*int64(clock)/1_000_000 - int64(h.Timestamp)
	if r.transit != math.MinInt64 {
		d := int64(int32(transit - r.transit))
		if d < 0 {
			d = -d
		}
		if d < int64(clock) { // a pause of the sender is not jitter
			r.jitter += (float64(d) - r.jitter) / 16
		}
	}
	r.transit = transit
}

func (r *receiver) expected() uint64 {
	if !r.started {
		return 0
	}
	return uint64(r.highest-r.base) + 1
}

// lost returns how many never came, since the leg began.
func (r *receiver) lost() uint64 {
	if e := r.expected(); e > r.here {
		return r.before + e - r.here
	}
	return r.before
}

func (r *receiver) jitterMs(clock int) float64 {
	if clock == 0 {
		return 0
	}
	return r.jitter * 1000 / float64(clock)
}

// interval closes a reporting interval and returns the fraction lost in 1/256.
func (r *receiver) interval() uint8 {
	expected, received := r.expected()-r.priorExpected, r.here-r.priorReceived
	r.priorExpected, r.priorReceived = r.expected(), r.here
	r.lastFraction = 0
	if expected > received && expected > 0 {
		r.lastFraction = float64(expected-received) / float64(expected)
	}
	return uint8(min(255, r.lastFraction*256))
}

// report is what the far end's reports say, and what ours must answer.
type report struct {
	farLost atomic.Uint64 // float64 bits, percent
	rtt     atomic.Uint64 // float64 bits, milliseconds
	lsr     atomic.Uint32 // middle 32 bits of the NTP time of the last SR
	lsrAt   atomic.Int64  // mix.Now when it came
}

func (r *report) get() (farLostPct, rttMs float64) {
	return math.Float64frombits(r.farLost.Load()), math.Float64frombits(r.rtt.Load())
}
