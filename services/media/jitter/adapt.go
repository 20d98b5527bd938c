package jitter

import "github.com/parley-jami/parley/services/media/codec"

// quiet is the mean square below which a frame may be dropped or doubled without
// looking for a place to splice: -50 dBFS.
const quiet = 1e-5

// adapt keeps the delay: once a second it decides, then it splices at each Pull
// until done. There is at least one frame ready.
func (b *Buffer) adapt(now int64, dec codec.Decoder, f *Frame) {
	b.minOver = min(b.minOver, b.have-frame)
	if b.pulls++; b.pulls >= windowPulls {
		b.decide()
	}
	switch {
	case b.shrink >= frame:
		b.mu.Lock()
		waiting := b.count > 0
		b.mu.Unlock()
		if !waiting && b.have < 2*frame {
			return // nothing to join to yet
		}
		b.fill(now, dec, 2*frame, f)
		n := frame
		if dec != nil {
			n = splice(b.pcm[:b.have], frame)
		}
		b.have -= n
		b.shrink -= n
		if b.shrink < frame {
			b.minWait = maxWait
		}
	case b.trim >= minLag && b.have-frame >= b.trim:
		n := b.trim
		if dec != nil {
			n = splice(b.pcm[:b.have], n)
		}
		b.have -= n
		b.trim = 0
	case b.grow > 0 && b.have <= maxHave && (dec == nil || power(b.pcm[:frame]) < quiet):
		b.grow = 0
		if dec != nil {
			copy(b.pcm[frame:], b.pcm[:b.have])
		}
		b.have += frame
	case b.grow > 0 && b.have <= maxHave:
		n := stretch(b.pcm, b.have, min(b.grow, frame-fade))
		b.have += n
		if b.grow -= n; b.grow < 2*minLag { // the shortest stretch is seldom a good one
			b.grow = 0
		}
	}
}

// decide closes the window of one second.
func (b *Buffer) decide() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pulls = 0
	if b.lateInWindow >= 2 { // one may be a packet on a detour
		b.guard = min(b.guard+frameNs/2, maxGuard)
		b.grow = frame
	} else {
		b.guard = max(b.guard-guardDecay-(b.guard-baseGuard)/guardShare, baseGuard)
	}
	if b.lossy = b.lostInWindow >= 2; b.lossy {
		b.guard = max(b.guard, baseGuard+frameNs)
	}
	b.lateInWindow, b.lostInWindow = 0, 0
	b.trim = 0
	if b.minWait != maxWait {
		switch over := b.minWait - b.guard; {
		case over >= frameNs && b.grow == 0:
			b.shrink, b.slack = int(over/frameNs)*frame, false
		case b.minWait < baseGuard/4:
			b.grow = frame // before a packet comes too late
		default:
			b.shrink = 0
			if b.minWait >= b.guard && b.grow == 0 {
				b.trim = b.minOver
			}
		}
	}
	b.minWait, b.minOver = maxWait, maxHave
}

func power(pcm []float32) float32 {
	var p float32
	for _, v := range pcm {
		p += v * v
	}
	return p / float32(len(pcm))
}

// Bounds of a splice, in samples: what is taken out is 5 to 20 ms, and the
// crossfade is 5 ms.
const (
	fade    = frame / 4
	minLag  = frame / 4
	lagStep = 6 // keeps whole samples at 8 kHz
)

// splice takes out the stretch of pcm that is missed least, 5 ms to longest, and returns how many samples it took: of
// silence all. pcm is a frame longer than that.
func splice(pcm []float32, longest int) int {
	lag := longest
	if power(pcm[:frame]) >= quiet {
		lag = bestLag(pcm, longest)
	}
	for i := range fade {
		w := float32(i+1) / float32(fade+1)
		pcm[i] = (1-w)*pcm[i] + w*pcm[i+lag]
	}
	copy(pcm[fade:], pcm[fade+lag:])
	return lag
}

// stretch puts a stretch of 5 to 15 ms, at most longest, of pcm[:have], at least a frame, in once more, where that is heard least,
// and returns how many samples it made more; there is room for them.
func stretch(pcm []float32, have, longest int) int {
	lag := bestLag(pcm, longest)
	copy(pcm[lag+fade:], pcm[fade:have])
	for i := range fade {
		w := float32(i+1) / float32(fade+1)
		pcm[lag+i] = (1-w)*pcm[lag+i] + w*pcm[i]
	}
	return lag
}

// bestLag finds the lag, at most longest, at which the sound resembles itself most.
func bestLag(pcm []float32, longest int) int {
	best, bestScore := longest, float32(-1)
	for lag := longest; lag >= minLag; lag -= lagStep {
		var xy, yy float32 = 0, 1e-9
		for i := 0; i < fade; i += 2 {
			xy += pcm[i] * pcm[i+lag]
			yy += pcm[i+lag] * pcm[i+lag]
		}
		if xy > 0 && xy*xy > bestScore*yy {
			best, bestScore = lag, xy*xy/yy
		}
	}
	return best
}
