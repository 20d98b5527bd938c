package mix

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
)

// TickLength is the length of a frame.
const TickLength = 20 * time.Millisecond

var start = time.Now()

// Now is the monotonic clock of [Packet].Arrival, in nanoseconds.
func Now() int64 { return int64(time.Since(start)) }

// Room mixes for its members.
type Room struct {
	cfg   Config
	epoch int64
	wake  chan struct{}
	done  chan struct{}
	ended chan struct{}
	dirty atomic.Bool // members changed: merge

	mu      sync.Mutex // guards what follows
	members map[string]*Member
	added   []*Member // not yet seen by the room's goroutine
	roused  []*Member // began to send, not yet seen
	running bool
	closed  bool

	trunk atomic.Pointer[carrier]
	early atomic.Int32 // packets of newcomers that may still be carried in this tick
	// silent says that nothing is sent: whoever begins to speak wakes the room.
	silent atomic.Bool

	tapMu    sync.Mutex // guards tap
	tap      Tap
	tapFrame TapFrame

	// Of the room's goroutine.
	listeners []*Member // those with a sink
	sending   []*Member
	loud      []*Member
	carried   []*Member // those who go to other workers
	shared    *stream
	streams   []*stream
	voices    []*voice
	decoders  [codec.Count][]codec.Decoder
	buffers   []*[frameSamples]float32
	tail      int // ticks that are still sent after the last sound
	probe     int // where the rotation of those who must be decoded stands
	lastTick  uint64
	sent      uint64 // the last tick in which frames were sent
	shift     int64  // ns, how far the ticks lie behind those that are counted from epoch
	pace      pace
	sheds     bool // is counted in Ticks.Shedding
	over      bool // and in Ticks.Over
	past      *[codec.Count]history
}

// NewRoom makes an empty room. It costs nothing until somebody sends.
func NewRoom(cfg Config) *Room {
	if cfg.Loudest == 0 {
		cfg.Loudest = defaultLoudest
	}
	cfg.Loudest = min(max(cfg.Loudest, 1), maxLoudest)
	return &Room{
		cfg: cfg, epoch: Now(), members: map[string]*Member{}, shared: newStream(), pace: newPace(),
		wake: make(chan struct{}, 1), done: make(chan struct{}), ended: make(chan struct{}),
	}
}

const (
	defaultLoudest = 3
	maxLoudest     = 8
)

// Add takes a member in. in is the codec of the packets that it will push, out
// the codec of the frames that its sink gets; a nil sink gets none.
func (r *Room) Add(id string, in, out CodecID, sink Sink, canSpeak, muted bool) (*Member, error) {
	if in >= codec.Count || out >= codec.Count {
		return nil, ErrCodec
	}
	return r.add(&Member{id: id, key: id, sink: sink, canSpeak: canSpeak, muted: muted}, in, out)
}

// AddSource takes a member in that brings PCM and receives nothing.
func (r *Room) AddSource(id string, src Source, canSpeak, muted bool) (*Member, error) {
	return r.add(&Member{id: id, key: id, source: src, canSpeak: canSpeak, muted: muted}, Opus, Opus)
}

func (r *Room) add(m *Member, in, out CodecID) (*Member, error) {
	m.room = r
	m.in.Store(uint32(in))
	m.out.Store(uint32(out))
	m.peak.Store(-1)
	m.maxFrames.Store(maxSpan)
	m.level.Store(silence)
	m.t.agc.reset()
	m.openLocked()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, ErrClosed
	case r.members[m.key] != nil:
		return nil, ErrDuplicate
	}
	r.members[m.key] = m
	r.added = append(r.added, m)
	r.dirty.Store(true)
	return m, nil
}

// Len returns the number of members.
func (r *Room) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.members)
}

// remove forgets a closed member; the room's goroutine lets go of it in its next turn.
func (r *Room) remove(m *Member) {
	r.mu.Lock()
	if r.members[m.key] == m {
		delete(r.members, m.key)
	}
	running := r.running
	if !running { // no goroutine that could know it
		r.added = without(r.added, m)
	}
	r.dirty.Store(true)
	r.mu.Unlock()
	if running {
		r.rouse()
	}
}

func without(list []*Member, m *Member) []*Member {
	for i, o := range list {
		if o == m {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// changed has the room's goroutine look at its members again.
func (r *Room) changed() { r.dirty.Store(true) }

// activate puts a member among those who send.
func (r *Room) activate(m *Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.roused = append(r.roused, m)
	r.dirty.Store(true)
	if !r.running {
		r.running = true
		go r.run()
	}
	r.rouse()
}

func (r *Room) rouse() {
	select {
	case r.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Close takes all members out and waits for the room's goroutine.
func (r *Room) Close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	running := r.running
	all := make([]*Member, 0, len(r.members))
	for _, m := range r.members {
		all = append(all, m)
	}
	r.mu.Unlock()
	close(r.done)
	if running {
		<-r.ended
	}
	for _, m := range all {
		m.Close()
	}
}

// run is the room's goroutine. It sleeps without a timer while nobody sends.
func (r *Room) run() {
	defer close(r.ended)
	defer r.rest()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-r.wake:
		}
		r.merge()
		due := r.align(Now())
		for len(r.sending) > 0 || r.tail > 0 {
			if wait := r.until(due, Now()); wait > 0 {
				timer.Reset(wait)
				select {
				case <-r.done:
					return
				case <-r.wake:
					if r.tail == 0 { // somebody begins to speak, perhaps
						due = r.align(Now())
					}
					continue
				case <-timer.C:
				}
			} else {
				select {
				case <-r.done:
					return
				default:
				}
			}
			now := Now()
			tick := r.turn(due, now)
			r.tick(now, uint64(tick))
			spent, missed := Now()-now, max(0, tick-due)
			if t := r.cfg.Ticks; t != nil {
				t.Done.Add(1)
				t.Missed.Add(uint64(missed))
				t.Spent.Add(uint64(spent))
			}
			if !r.cfg.Keep && r.pace.done(spent, missed, len(r.listeners)) {
				r.paced()
			}
			due = r.next(tick, Now())
		}
		r.rest()
	}
}

// next is the tick after one that was done. The first of a voice that breaks the silence comes when its
// packets have waited for as long as they need to, and not up to 20 ms later.
func (r *Room) next(tick, now int64) int64 {
	if r.tail == 0 {
		if at := r.starts(); at > now && at < now+int64(TickLength) {
			return r.align(at)
		}
	}
	return tick + 1
}

// starts is when the first of those who begin to send may be played; 0 when nobody begins.
func (r *Room) starts() (first int64) {
	for _, m := range r.sending {
		if buf := m.buf.Load(); buf != nil {
			if at := buf.Starts(); at > 0 && (first == 0 || at < first) {
				first = at
			}
		}
	}
	return first
}

// shiftStep is 125 µs, whole samples for every codec's clock.
const shiftStep = int64(TickLength) / 160

// align moves the ticks so that one comes at a time, and returns its number. That is for when nothing is
// sent: who listens hears a voice begin anew, at an RTP timestamp that says when.
func (r *Room) align(at int64) int64 {
	since := (at - r.epoch + shiftStep - 1) / shiftStep * shiftStep
	tick := since / int64(TickLength)
	r.shift = since - tick*int64(TickLength)
	return max(tick, int64(r.sent)+1)
}

// shifted is shift as [Frame.Shift].
func (r *Room) shifted() uint32 { return uint32(r.shift / shiftStep * (frameSamples / 160)) }

// rest is the end of the ticks for now.
func (r *Room) rest() {
	if r.pace.rest() {
		r.paced()
	}
}

// maxLate is how late a tick is still done: a receiver's buffer bears 20 ms of jitter better
// than a frame that never comes. It is one frame at a time: older ones would be a burst.
const maxLate = TickLength

// until is how long it is to a tick.
func (r *Room) until(tick, now int64) time.Duration {
	return time.Duration(r.epoch + r.shift + tick*int64(TickLength) - now)
}

// turn is the tick to do when one was due: that one, or the last one whose time has come when
// it is too late. Those between are gone.
func (r *Room) turn(due, now int64) int64 {
	if r.until(due, now) >= -maxLate {
		return due
	}
	return r.tickAt(now)
}

func (r *Room) tickAt(now int64) int64 { return (now - r.epoch - r.shift) / int64(TickLength) }

// merge brings the lists of the room's goroutine up to date.
func (r *Room) merge() {
	if !r.dirty.Swap(false) {
		return
	}
	r.mu.Lock()
	for _, m := range r.added {
		if m.sink != nil {
			r.listeners = append(r.listeners, m)
		}
	}
	r.sending = append(r.sending, r.roused...)
	clear(r.added)
	clear(r.roused)
	r.added, r.roused = r.added[:0], r.roused[:0]
	r.mu.Unlock()
	r.loud = r.keep(r.loud, r.retire)
	r.carried = r.keep(r.carried, r.uncarry)
	r.sending = r.keep(r.sending, r.silence)
	r.listeners = r.keep(r.listeners, nil)
}

// keep filters the closed members out of a list and calls gone for them.
func (r *Room) keep(list []*Member, gone func(*Member)) []*Member {
	out := list[:0]
	for _, m := range list {
		if !m.isClosed() {
			out = append(out, m)
		} else if gone != nil {
			gone(m)
		}
	}
	clear(list[len(out):])
	return out
}
