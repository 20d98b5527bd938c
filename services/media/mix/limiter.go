package mix

import "github.com/parley-jami/parley/services/media/codec"

const (
	frameSamples = codec.FrameSamples
	// lookAhead is how far the limiter sees, and so what it delays: 2 ms.
	lookAhead = 96
	// ceiling is what nothing exceeds: -1 dBFS.
	ceiling = 0.891
	// release is how much of the reduction goes each 2 ms: 90 % in 230 ms.
	release = 0.02
)

// limiter keeps a sum of voices below the ceiling without the distortion of
// clipping: it looks 2 ms ahead and has the gain down when the peak comes.
type limiter struct {
	delay [lookAhead]float32
	gain  float32 // at the end of the last block, never above what delay needs
	need  float32 // gain that delay needs
}

func (l *limiter) reset() { *l = limiter{gain: 1, need: 1} }

// process limits a frame in place.
func (l *limiter) process(pcm []float32) {
	for ; len(pcm) >= lookAhead; pcm = pcm[lookAhead:] {
		block := pcm[:lookAhead]
		var peak float32
		for _, v := range block {
			peak = max(peak, v, -v)
		}
		need := float32(1)
		if peak > ceiling {
			need = ceiling / peak
		}
		from := l.gain
		to := min(from+(1-from)*release, l.need, need)
		if to > 0.9999 {
			to = min(1, l.need, need)
		}
		step := (to - from) / lookAhead
		for i, v := range block {
			block[i] = l.delay[i] * (from + step*float32(i+1))
			l.delay[i] = v
		}
		l.gain, l.need = to, need
	}
}
