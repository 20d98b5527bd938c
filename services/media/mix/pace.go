package mix

import "sync/atomic"

// How a room that does not keep its time is found, and what is done. Nearly all of a large room's tick is
// sending, a datagram for each listener, so what helps is fewer datagrams: who only listens gets two, then three
// frames in one packet. Encoding less well would save a fiftieth of it. Who is heard keeps his 20 ms.
const (
	// paceTicks is the time that is judged at once: a second.
	paceTicks = 50
	// maxSpan is how many frames a packet has at most: 60 ms.
	maxSpan = 3
	// fewListeners is up to how many nothing would be won: the machine has other work then.
	fewListeners = 64
	// badLoad and badLate are the share of the time that ticks take, and of ticks that were missed, from which
	// on, twice in a row, packets get longer; goodLoad and goodLate are those below which, for a while, they get
	// shorter. With two frames in place of one a load of 0.75 becomes some 0.4.
	badLoad, badLate   = 0.75, 0.05
	goodLoad, goodLate = 0.35, 0.01
	badTimes           = 2
	// At the longest packets it does not help while badLoad is exceeded, or overLate of the ticks are missed; overLoad is the
	// load below which, overTimes in a row, it does again.
	overLate            = 0.25
	overLoad, overTimes = 0.6, 5
	// firstCalm to mostCalm are the seconds below for that; they double each time that it was too early.
	firstCalm, mostCalm = 10, 160
)

// pace is how a room keeps its time. It belongs to the room's goroutine.
type pace struct {
	span  int // frames in a packet of who only listens, 1 to maxSpan
	ticks int // in this window, missed ones too
	late  int
	spent int64 // ns

	load, share float64 // of the last window: of the time, of the ticks that were missed
	bad, good   int     // windows in a row
	calm        int     // windows that have to be good
	since       int     // windows since the span was lowered
	over        bool    // the longest packets don't help either
	better      int     // windows in a row that are not over the top
}

func newPace() pace { return pace{span: 1, calm: firstCalm, since: mostCalm} }

// done takes a tick, with those missed before it, and reports whether the span changed, or whether it is over.
func (p *pace) done(spent, missed int64, listeners int) bool {
	p.ticks += 1 + int(missed)
	p.late += int(missed)
	p.spent += spent
	if p.ticks < paceTicks {
		return false
	}
	p.load = float64(p.spent) / float64(int64(p.ticks)*int64(TickLength))
	p.share = float64(p.late) / float64(p.ticks)
	p.ticks, p.late, p.spent = 0, 0, 0
	p.since++
	switch {
	case (p.load > badLoad || p.share > badLate) && listeners > fewListeners:
		p.bad, p.good = p.bad+1, 0
	case p.load < goodLoad && p.share < goodLate || listeners <= fewListeners:
		p.bad, p.good = 0, p.good+1
	default:
		p.bad, p.good = 0, 0
	}
	if p.better++; p.load > overLoad || p.share > goodLate {
		p.better = 0
	}
	switch {
	case p.bad >= badTimes && p.span == maxSpan && !p.over && (p.load > badLoad || p.share > overLate):
		p.over, p.better = true, 0
		return true
	case p.over && p.better >= overTimes:
		p.over = false
		return true
	case p.bad >= badTimes && p.span < maxSpan:
		if p.span == 1 && p.since < mostCalm {
			p.calm = min(2*p.calm, mostCalm)
		} else if p.span == 1 {
			p.calm = firstCalm
		}
		p.span++
		p.bad = 0
		return true
	case p.good >= p.calm && p.span > 1:
		p.span--
		p.good, p.since = 0, 0
		return true
	}
	return false
}

// rest ends a window: the room sleeps, and costs nothing. It reports whether the span changed.
func (p *pace) rest() bool {
	changed := p.span != 1 || p.over
	if changed {
		p.since = 0
	}
	p.span, p.over, p.ticks, p.late, p.spent, p.bad, p.good = 1, false, 0, 0, 0, 0, 0
	return changed
}

// Pace says how a room keeps its time.
type Pace struct {
	Frames    int     // in a packet of who only listens; 1: as always
	Over      bool    // it does not help: the room should get nobody more
	Load      float64 // share of the last second that ticks took
	Missed    float64 // share of its ticks that were missed
	Listeners int
}

// paced tells of a change of the span.
func (r *Room) paced() {
	if t := r.cfg.Ticks; t != nil {
		count(&t.Shedding, r.sheds, r.pace.span > 1)
		count(&t.Over, r.over, r.pace.over)
	}
	r.sheds, r.over = r.pace.span > 1, r.pace.over
	if r.cfg.OnPace != nil {
		r.cfg.OnPace(Pace{r.pace.span, r.pace.over, r.pace.load, r.pace.share, len(r.listeners)})
	}
}

func count(n *atomic.Int32, was, is bool) {
	switch {
	case is && !was:
		n.Add(1)
	case was && !is:
		n.Add(-1)
	}
}
