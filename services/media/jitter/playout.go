package jitter

import (
	"sync"

	"github.com/parley-jami/parley/services/media/codec"
)

// Frame is what a Pull brought.
type Frame struct {
	Active    bool     // there was something to play; else dst is silence
	Concealed bool     // at least part of it is made up
	Lost      int      // packets lost directly before Packets
	Packets   [][]byte // those that began to play, valid until the next Pull
}

// step is what comes next in the stream.
type step struct {
	kind    stepKind
	slot    *slot // play; redundancy: the packet after the lost one, which plays next
	samples int   // of what is to be made up
}

type stepKind uint8

const (
	stepWait   stepKind = iota // nothing to play: a pause
	stepPlay                   // slot
	stepPatch                  // a lost packet of that many samples
	stepExpand                 // nothing came in time
)

// pcmSize holds a lost packet and the one after it, of the greatest length, on
// top of what waits.
const pcmSize = 2*codec.MaxSamples + 2*maxHave

// maxHave is how much may wait ready before more is doubled.
const maxHave = 4 * frame

var pcmPool = sync.Pool{New: func() any { return new([pcmSize]float32) }}

// Pull moves the stream on by 20 ms of sound and writes it to dst (960 samples).
// now is on the clock of Put's arrival. dec is of the codec id, which [Buffer.Next] says; packets of another one
// wait for the next Pull. With a nil decoder nothing is decoded and
// dst isn't touched; a decoder given after a nil one, or of another codec, must be fresh.
func (b *Buffer) Pull(now int64, id codec.ID, dec codec.Decoder, dst []float32) Frame {
	var f Frame
	b.releaseUsed()
	if b.id = id; b.prev != nil && b.prev.codec != id {
		b.releasePrev()
	}
	if dec == nil {
		b.cool()
	} else if !b.decoding {
		b.warm(dec)
	}
	b.fill(now, dec, frame, &f)
	if !f.Active {
		if dec != nil {
			clear(dst)
		}
		return f
	}
	b.adapt(now, dec, &f)
	if dec != nil {
		copy(dst, b.pcm[:frame])
	}
	b.drop(frame)
	return f
}

// drop takes n samples from the front.
func (b *Buffer) drop(n int) {
	if b.pcm != nil {
		copy(b.pcm, b.pcm[n:b.have])
	}
	b.have -= n
}

// fill makes at least want samples ready.
func (b *Buffer) fill(now int64, dec codec.Decoder, want int, f *Frame) {
	f.Active = f.Active || b.have > 0
	for b.have < want {
		b.mu.Lock()
		st := b.stepLocked(now)
		b.mu.Unlock()
		switch st.kind {
		case stepWait:
			if !f.Active {
				return
			}
			if b.pcm != nil {
				clear(b.pcm[b.have:want])
			}
			b.have = want
		case stepPlay:
			f.Active = true
			b.play(dec, st.slot)
		case stepPatch:
			f.Active, f.Concealed = true, true
			f.Lost++
			b.patch(dec, st)
		case stepExpand:
			f.Active, f.Concealed = true, true
			b.patch(dec, st)
		}
	}
	f.Packets = b.packets
}

// play appends a packet.
func (b *Buffer) play(dec codec.Decoder, s *slot) {
	n := s.samples
	if dec != nil {
		got, err := dec.Decode(b.pcm[b.have:b.have+codec.MaxSamples], s.payload())
		if err != nil { // damaged: as good as lost
			b.conceal(dec, n)
		} else {
			n = got
		}
	}
	b.have += n
	b.lastDur = n
	if b.prev != nil && !contains(b.used, b.prev) {
		putSlot(b.prev)
	}
	b.prev = s
	b.used = append(b.used, s)
	b.packets = append(b.packets, s.payload())
}

func contains(list []*slot, s *slot) bool {
	for _, o := range list {
		if o == s {
			return true
		}
	}
	return false
}

// patch appends st.samples of made-up sound, from the redundancy in the next
// packet where there is one.
func (b *Buffer) patch(dec codec.Decoder, st step) {
	if dec != nil {
		if st.slot == nil || dec.DecodeFEC(b.pcm[b.have:b.have+st.samples], st.slot.payload()) != nil {
			b.conceal(dec, st.samples)
		}
	}
	b.have += st.samples
	if st.slot != nil {
		b.play(dec, st.slot)
	}
}

func (b *Buffer) conceal(dec codec.Decoder, n int) {
	dst := b.pcm[b.have : b.have+n]
	if dec.Conceal(dst) != nil {
		clear(dst) // odd lengths that the codec can't make up
	}
}

// stepLocked decides what comes next.
func (b *Buffer) stepLocked(now int64) step {
	first := b.firstLocked()
	if !b.playing {
		if first == nil || first.codec != b.id || now < b.startsLocked(first) {
			return step{}
		}
		b.playing, b.started, b.next, b.expanded = true, true, first.seq, 0
	}
	if first == nil || first.codec != b.id {
		if b.expanded+frame > maxExpand {
			b.playing = false
			return step{}
		}
		if b.expanded == 0 {
			b.expandedAt = now
		}
		b.expanded += frame
		b.concealed++
		return step{kind: stepExpand, samples: frame}
	}
	if b.count > slotCount/2 || b.queuedLocked(first) > maxQueue {
		if first = b.skipLocked(first); first.codec != b.id {
			return step{kind: stepExpand, samples: frame}
		}
	}
	missing := first.seq - b.next
	if missing > 0 && b.expanded > 0 && b.lossy && !b.slack {
		// One frame more of delay has the next packet here in time to bring the
		// redundancy for a lost one.
		b.slack, b.expanded = true, 0
	}
	if missing > 0 && b.expanded > 0 {
		// What was made up while nothing came stands for the lost packets.
		covered := min(missing, int64((b.expanded+b.lastDur-1)/b.lastDur))
		b.next += covered
		b.lost += uint64(covered)
		b.lostInWindow += int(covered)
		missing -= covered
		b.expanded = 0
	}
	if missing > maxPatches {
		b.lost += uint64(missing)
		b.next, missing = first.seq, 0
	}
	if missing > 0 {
		b.lost++
		b.lostInWindow++
		b.next++
		st := step{kind: stepPatch, samples: b.lastDur}
		if missing == 1 {
			b.fec++
			st.slot = first
			b.playLocked(now, first)
		} else {
			b.concealed++
		}
		return st
	}
	b.playLocked(now, first)
	return step{kind: stepPlay, slot: first}
}

// skipLocked drops the oldest packets, after a stall of the network, until only
// what a calm stream has waiting is left; it returns the first of that.
func (b *Buffer) skipLocked(first *slot) *slot {
	for b.count > 1 && b.queuedLocked(first) > 2*frame {
		b.takeLocked(first)
		b.next = first.seq + 1
		putSlot(first)
		b.lost++
		first = b.firstLocked()
	}
	b.expanded = 0
	return first
}

// queuedLocked is how much sound waits, in samples, as the timestamps say.
func (b *Buffer) queuedLocked(first *slot) int64 { return b.highTS - first.ts }

func (b *Buffer) takeLocked(s *slot) {
	b.slots[s.seq&(slotCount-1)] = nil
	b.count--
}

// playLocked takes s out and learns from how long it waited.
func (b *Buffer) playLocked(now int64, s *slot) {
	b.takeLocked(s)
	b.next = s.seq + 1
	wait := now - s.arrival
	if b.expanded > 0 {
		late := min(max(s.arrival-b.expandedAt, 0), frameNs)
		b.guard = min(b.guard+late, maxGuard)
		b.expanded = 0
	}
	b.minWait = min(b.minWait, wait)
	b.waitAvg += (float64(wait) - b.waitAvg) / 32
}

// warm gives the buffer PCM: the packet before is decoded again, which fills the
// decoder's memory and what was skipped over of a packet longer than 20 ms.
func (b *Buffer) warm(dec codec.Decoder) {
	b.store, b.decoding = pcmPool.Get().(*[pcmSize]float32), true
	b.pcm = b.store[:]
	clear(b.pcm)
	if b.prev == nil {
		return
	}
	n, err := dec.Decode(b.pcm[:codec.MaxSamples], b.prev.payload())
	if err != nil {
		n = 0
	}
	keep := min(b.have, n)
	copy(b.pcm[b.have-keep:], b.pcm[n-keep:n])
	clear(b.pcm[:b.have-keep])
	clear(b.pcm[b.have:])
}

// cool gives the PCM back.
func (b *Buffer) cool() {
	if b.store != nil {
		pcmPool.Put(b.store)
	}
	b.store, b.pcm, b.decoding = nil, nil, false
}
