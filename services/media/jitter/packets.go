package jitter

import (
	"sync"

	"github.com/parley-jami/parley/services/media/codec"
)

// slotCount bounds what one sender may have waiting: 64 packets, 1.28 s at 20 ms.
const slotCount = 64

// MaxPayload is the largest payload that is kept.
const MaxPayload = 1500

// restartGap is the jump in sequence numbers that means another stream, not loss:
// 10 s at 20 ms. As in RFC 3550 A.1 it takes two packets in a row to believe it.
const restartGap = 500

// A sender that goes back by less than restartGap looks like one whose packets come late. It is
// believed to have begun anew when so many came in order and none that was not late: the first bound for
// numbers from before anything that could still wait, the second for those of a path that is longer.
const (
	restartStale = 3
	restartLate  = 10
)

// slot holds one packet.
type slot struct {
	seq     int64 // extended
	ts      int64 // unwrapped, in samples at 48 kHz
	arrival int64 // monotonic ns
	samples int   // length at 48 kHz
	codec   codec.ID
	n       int
	data    [MaxPayload]byte
}

func (s *slot) payload() []byte { return s.data[:s.n:s.n] }

// slots is a free list that all buffers share, so that memory follows those who
// send and not those who are there. It keeps at most maxFree.
var slots struct {
	mu   sync.Mutex
	free []*slot
}

const maxFree = 1024

func getSlot() *slot {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if n := len(slots.free); n > 0 {
		s := slots.free[n-1]
		slots.free = slots.free[:n-1]
		return s
	}
	return new(slot)
}

func putSlot(s *slot) {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if slots.free == nil {
		slots.free = make([]*slot, 0, maxFree)
	}
	if len(slots.free) < maxFree {
		slots.free = append(slots.free, s)
	}
}

// Result says what [Buffer.Put] did with a packet.
type Result uint8

// The results.
const (
	Accepted  Result = iota
	Duplicate        // already there
	Late             // its turn has passed
	Dropped          // malformed, or out of any order
	Restarted        // accepted, and the stream began anew
)

// Put takes a packet in; payload is copied. samples is the payload's length at
// 48 kHz and ts the RTP timestamp, in the unit of the codec. A stream may change its codec from one packet
// to the next. It may be called beside Pull.
func (b *Buffer) Put(id codec.ID, ssrc uint32, seq uint16, ts uint32, payload []byte, samples int, arrival int64) Result {
	if samples <= 0 || len(payload) > MaxPayload {
		return Dropped
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	res := Accepted
	switch {
	case !b.known:
		b.beginLocked(ssrc, seq, ts, arrival)
	case ssrc != b.ssrc:
		b.beginLocked(ssrc, seq, ts, arrival)
		res = Restarted
	}
	ext := b.highSeq + int64(int16(seq-uint16(b.highSeq)))
	if d := ext - b.highSeq; d > restartGap || d < -restartGap {
		if !b.oddSet || seq != b.oddSeq+1 {
			b.oddSeq, b.oddSet = seq, true
			return Dropped
		}
		b.beginLocked(ssrc, seq, ts, arrival)
		ext, res = b.highSeq, Restarted
	}
	b.oddSet = false
	if b.started && ext < b.next || b.count > 0 && ext <= b.highSeq-slotCount {
		if !b.staleLocked(ext) {
			b.lateInWindow++
			return Late
		}
		b.beginLocked(ssrc, seq, ts, arrival)
		ext, res = b.highSeq, Restarted
	}
	b.lateRun = 0
	i := ext & (slotCount - 1)
	switch old := b.slots[i]; {
	case old != nil && old.seq == ext:
		return Duplicate
	case old != nil || b.count > 0 && ext > b.highSeq+1 && ext >= b.firstLocked().seq+slotCount:
		b.flushLocked() // so far ahead that what waits is stale
	}
	pos := b.highTS + int64(int32(ts-b.rawTS))*int64(id.ClockScale())
	if id != b.codec { // another clock (RFC 7160 §3): the numbers tell how far it is
		pos = b.highTS + (ext-b.highSeq)*frame
		b.codec, b.haveTransit = id, false
	}
	b.jitterLocked(pos, arrival)
	if ext >= b.highSeq {
		b.highSeq, b.highTS, b.rawTS = ext, pos, ts
	}
	s := getSlot()
	s.codec, s.seq, s.ts, s.arrival, s.samples, s.n = id, ext, pos, arrival, samples, copy(s.data[:], payload)
	b.slots[i] = s
	b.count++
	return res
}

// staleLocked notes a late packet and reports whether it is one of a sender that began anew.
func (b *Buffer) staleLocked(ext int64) bool {
	if b.lateRun > 0 && ext == b.lateSeq+1 {
		b.lateRun++
	} else {
		b.lateRun = 1
	}
	b.lateSeq = ext
	return b.lateRun >= restartLate || b.lateRun >= restartStale && ext <= b.highSeq-slotCount
}

// beginLocked starts a stream. What waits of the one before is dropped: its
// timeline has nothing to do with this one.
func (b *Buffer) beginLocked(ssrc uint32, seq uint16, ts uint32, arrival int64) {
	b.flushLocked()
	b.known, b.ssrc = true, ssrc
	// Beyond one turn, so that packets from before the first one stay positive.
	b.highSeq = 1<<16 + int64(seq)
	b.highTS, b.rawTS = 0, ts
	b.lastTransit, b.haveTransit = 0, false
	b.expanded, b.lateRun = 0, 0
}

// flushLocked drops what waits and makes the next packet begin a spurt.
func (b *Buffer) flushLocked() {
	for i, s := range b.slots {
		if s != nil {
			putSlot(s)
			b.slots[i] = nil
		}
	}
	b.count, b.playing, b.started = 0, false, false
}

// firstLocked returns the waiting packet with the lowest number; nil when none
// waits. All that wait are within slotCount of one another.
func (b *Buffer) firstLocked() *slot {
	if b.count == 0 {
		return nil
	}
	from := b.highSeq - slotCount + 1
	if b.started && b.next > from {
		from = b.next
	}
	for seq := from; seq <= b.highSeq; seq++ {
		if s := b.slots[seq&(slotCount-1)]; s != nil && s.seq == seq {
			return s
		}
	}
	return nil
}

// jitterLocked is the estimate of RFC 3550 §6.4.1, in nanoseconds.
func (b *Buffer) jitterLocked(pos, arrival int64) {
	transit := arrival - pos*nsPerSecond/48000
	if b.haveTransit {
		d := transit - b.lastTransit
		if d < 0 {
			d = -d
		}
		if d < nsPerSecond { // a pause is not jitter
			b.jitter += (float64(d) - b.jitter) / 16
		}
	}
	b.lastTransit, b.haveTransit = transit, true
}
