package leg

import (
	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/mix"
)

// A process with many small rooms has none that would say that it does not keep its time: of all their ticks
// together more than lateShare are missed, for lateFor seconds in a row, and less than calmShare for calmFor seconds
// when that is over. With up to fewLegs it is other work of the machine that is in the way, and refusing
// legs would not help.
const (
	lateShare, lateFor = 0.25, 3
	calmShare, calmFor = 0.02, 10
	fewLegs            = 64
	lateWindow         = int64(1e9)
	lateTicks          = 50 // at least, in a window that is judged
)

// lateness is how the process keeps its time. It belongs to the clock goroutine.
type lateness struct {
	at           int64 // mix.Now of the beginning of the window
	done, missed uint64
	bad, calm    int // windows in a row
}

// judge closes a window and returns whether the process is late now.
func (x *lateness) judge(now int64, done, missed uint64, legs int, late bool) bool {
	if now-x.at < lateWindow {
		return late
	}
	d, m := done-x.done, missed-x.missed
	x.at, x.done, x.missed = now, done, missed
	share := 0.0
	if d+m >= lateTicks {
		share = float64(m) / float64(d+m)
	}
	if x.bad++; share < lateShare || legs <= fewLegs {
		x.bad = 0
	}
	if x.calm++; share > calmShare && legs > fewLegs {
		x.calm = 0
	}
	return x.bad >= lateFor || late && x.calm < calmFor
}

// punctual is called by the clock goroutine.
func (h *Host) punctual(now int64) {
	was := h.late.Load()
	late := h.lateness.judge(now, h.ticks.Done.Load(), h.ticks.Missed.Load(), h.Len(), was)
	if late == was {
		return
	}
	h.late.Store(late)
	if late {
		h.log.Warn("this worker does not keep its time and takes no more legs; join another machine (parley join), or set media.max_legs", zap.Int("legs", h.Len()))
		return
	}
	h.log.Info("this worker keeps its time again", zap.Int("legs", h.Len()))
}

// Late reports whether the host cannot keep its time, so that it should get no more legs.
func (h *Host) Late() bool { return !h.cfg.Keep && (h.late.Load() || h.ticks.Over.Load() > 0) }

// paced logs how a room's pace changed.
func (h *Host) paced(room string, p mix.Pace) {
	what := []zap.Field{zap.String("room", room), zap.Int("packet_ms", 20*p.Frames), zap.Float64("load", p.Load), zap.Float64("missed", p.Missed), zap.Int("listeners", p.Listeners)}
	switch {
	case p.Over:
		h.log.Warn("room cannot keep its time, and no leg is taken any more; join another machine (parley join), or set media.max_legs", what...)
	case p.Frames > 1:
		h.log.Warn("room cannot keep its time: who only listens gets longer packets", what...)
	default:
		h.log.Info("room keeps its time again", what...)
	}
}
