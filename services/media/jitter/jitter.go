// Package jitter turns the packets of one sender, which come early, late, twice,
// out of order or never, into 20 ms of sound at each tick.
//
// Delay. A packet waits from its arrival until the tick that needs it. The buffer
// watches the shortest wait of each second: what exceeds the guard by a whole
// frame is taken out by splicing the sound, what a splice left of it in the seconds after; and when it is near nothing, or
// packets come too late, a stretch of the sound is put in once more. So in a calm network a packet waits 4 to 24 ms, 14 on
// average, and a clock that drifts costs one splice for each 20 ms of drift. The
// guard grows by how late packets were and shrinks by 0.5 ms and a thirty-second a second, so that
// spikes which come again don't cost a gap each time. Where more than 3 % are lost
// it grows by a frame, so that the redundancy in the next packet comes in time.
//
// Who is not decoded still moves on: [Buffer.Pull] without a decoder costs next
// to nothing and keeps the place. When a decoder comes, it is warmed up with the
// packet before, so the first syllable is whole.
//
// Concurrency: Put may run beside Pull and Stats; Pull is for one goroutine.
package jitter

import (
	"sync"

	"github.com/parley-jami/parley/services/media/codec"
)

const nsPerSecond = int64(1e9)

// Bounds of the delay, in ns or in samples at 48 kHz.
const (
	frame       = codec.FrameSamples
	frameNs     = int64(20e6)
	baseGuard   = int64(4e6)   // covers the tick's own lateness
	maxGuard    = int64(100e6) // beyond it, loss is better than delay
	startMargin = int64(8e6)   // wait of a spurt's first packet, at least, from a sender somewhere
	nearMargin  = baseGuard    // and of one by a network that is known to be calm
	guardDecay  = int64(5e5)   // each second, and
	guardShare  = 32           // one part in so many of what is above baseGuard
	windowPulls = 50           // one second

	maxExpand  = 5 * frame  // made up while nothing comes; then it is a pause
	maxQueue   = 15 * frame // more waits after a stall: the oldest is dropped
	maxPatches = 3          // lost packets in a row that are made up one by one
)

// Buffer is the jitter buffer of one sender.
type Buffer struct {
	mu           sync.Mutex // guards what follows
	slots        [slotCount]*slot
	count        int
	codec        codec.ID // of the latest packet
	known        bool
	ssrc         uint32
	highSeq      int64
	highTS       int64
	rawTS        uint32
	oddSeq       uint16
	oddSet       bool
	margin       int64 // startMargin or nearMargin
	lateSeq      int64 // of the last packet that was late
	lateRun      int   // late ones in order, and none between that was not
	started      bool  // next is valid
	playing      bool  // within a spurt
	next         int64 // sequence number whose turn it is
	expanded     int   // samples made up since the last packet, not yet in next
	expandedAt   int64 // when that began
	lateInWindow int
	lostInWindow int
	lossy        bool // so many are lost that their redundancy is worth a frame of delay
	slack        bool // that frame is there
	lastTransit  int64
	haveTransit  bool
	jitter       float64
	guard        int64
	waitAvg      float64 // ns
	lost         uint64
	concealed    uint64
	fec          uint64

	// Of Pull's goroutine.
	id       codec.ID // that the decoder is of
	minWait  int64
	minOver  int // samples, the least that was ready beyond a frame
	pulls    int
	shrink   int // samples to take out
	trim     int // the same of those that are ready beyond a frame and help nobody
	grow     int // samples to put in
	lastDur  int
	prev     *slot // the last packet played
	decoding bool
	have     int // samples ready, made or virtual
	store    *[pcmSize]float32
	pcm      []float32 // all of store; nil: what is ready is virtual
	used     []*slot   // packets of the last Pull
	packets  [][]byte
}

// New makes an empty buffer. near says that the sender is a worker of the same node, whose packets come
// evenly: the first of a spurt waits 4 ms, and else 8.
func New(near bool) *Buffer {
	margin := startMargin
	if near {
		margin = nearMargin
	}
	return &Buffer{guard: baseGuard, margin: margin, minWait: maxWait, minOver: maxHave, lastDur: frame, used: make([]*slot, 0, 16), packets: make([][]byte, 0, 16)}
}

const maxWait = int64(1) << 62

// Stats are counted since the buffer was made.
type Stats struct {
	Lost, Concealed, FEC uint64
	JitterMs, BufferMs   float64
}

// Stats returns them.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Stats{Lost: b.lost, Concealed: b.concealed, FEC: b.fec, JitterMs: b.jitter / 1e6, BufferMs: b.waitAvg / 1e6}
}

// Waiting returns how many packets wait.
func (b *Buffer) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// Next is the codec that the next [Buffer.Pull] needs: that of the packet that is played next, while
// none waits that of the one before.
func (b *Buffer) Next() codec.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.firstLocked(); s != nil {
		return s.codec
	}
	return b.codec
}

// Starts is when the spurt whose first packet waits may begin to play, on the clock of Put's arrival; 0 when none waits, or one plays.
func (b *Buffer) Starts() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.firstLocked(); s != nil && !b.playing {
		return b.startsLocked(s)
	}
	return 0
}

func (b *Buffer) startsLocked(first *slot) int64 { return first.arrival + max(b.margin, b.guard) }

// Reset drops everything that waits; the next packet begins a stream. Like Pull it belongs to Pull's goroutine.
func (b *Buffer) Reset() {
	b.mu.Lock()
	b.flushLocked()
	b.known, b.guard = false, baseGuard
	b.mu.Unlock()
	b.releaseUsed()
	b.releasePrev()
	b.cool()
	b.have, b.shrink, b.trim, b.grow, b.minWait, b.minOver, b.pulls = 0, 0, 0, 0, maxWait, maxHave, 0
}

func (b *Buffer) releasePrev() {
	if b.prev != nil {
		putSlot(b.prev)
		b.prev = nil
	}
}

// releaseUsed gives the packets of the last Pull back, but for the last one,
// which may be needed to warm a decoder up.
func (b *Buffer) releaseUsed() {
	for _, s := range b.used {
		if s != b.prev {
			putSlot(s)
		}
	}
	b.used, b.packets = b.used[:0], b.packets[:0]
}
