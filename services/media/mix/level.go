package mix

import "math"

// Loudness is counted in dB above digital silence: 127 - level, 0 to 127.
const (
	silence = 127 // level of digital silence

	// hearable is the loudness from which a member is mixed at all: -70 dBov.
	hearable = silence - 70
	// voiced is the loudness that counts as voice: -50 dBov; -60 when the sender
	// itself says so (the V bit of RFC 6464).
	voiced     = silence - 50
	voicedFlag = silence - 60

	attack  = 0.7 // share of a rise that is taken at once
	falling = 0.5 // dB a tick: 25 dB a second

	holdTicks  = 50 // a second: how long who is heard stays so after his last sound
	firmTicks  = 15 // 300 ms: how long who was just chosen can't be displaced
	hysteresis = 6  // dB that a newcomer must have over the weakest

	// A microphone's noise is followed by its floor, which falls fast and rises slowly; what is above by speechOver is
	// speech, and by stirOver may be its beginning. Who has not spoken for idleTicks gives his place to whoever begins, at once.
	floorFall  = 0.3  // of the way, each tick
	floorRise  = 0.03 // dB a tick: 1.5 dB a second
	firstFloor = silence - 50
	speechOver = 8 // dB
	stirOver   = 4
	idleTicks  = 10

	// Who says that he is louder than what is decoded of him, by more than lieOver on average, is taken for as loud as he is.
	lieOver     = 12 // dB
	lieSmooth   = 0.1
	lieForgiven = 0.02 // dB a tick

	voiceOn    = 2  // ticks of voice before it is said: 40 ms
	voiceHold  = 20 // ticks without before it is said to have ended: 400 ms
	silentOpus = 12 // bytes for 20 ms; encoded silence is constant and below that
)

// level returns the RFC 6464 level of a mean square.
func level(power float32) int {
	if power < 1e-13 {
		return silence
	}
	return min(max(int(math.Round(-10*math.Log10(float64(power)))), 0), silence)
}

func power(pcm []float32) float32 {
	var p float32
	for _, v := range pcm {
		p += v * v
	}
	return p / float32(len(pcm))
}

// loudness is what a member's packets say, as the selection needs it.
type loudness struct {
	loud  float32 // smoothed: fast up, slow down
	last  int     // of the latest packet
	quiet int     // ticks since it was hearable
	run   int     // ticks of voice in a row
	idle  int     // ticks since voice
	talks bool

	floor float32 // of the noise; 0: not known
	still int     // ticks since he spoke
	stirs bool    // he may be beginning to

	said           int     // of this tick's loudness; -1: nothing
	claims, sounds float32 // smoothed: what he says, and what is decoded of him
	lie            float32 // how much is taken off
}

// update takes the peak loudness of the packets since the last tick (-1: none
// came) and reports whether talks changed.
func (l *loudness) update(peak int, flag bool) bool {
	p := float32(max(peak, 0))
	if p > l.loud {
		l.loud += attack * (p - l.loud)
	} else {
		l.loud = max(p, l.loud-falling)
	}
	if l.still++; peak >= 0 {
		l.last = peak
		switch {
		case l.floor == 0:
			l.floor = min(p, firstFloor)
		case p < l.floor:
			l.floor += floorFall * (p - l.floor)
		default:
			l.floor = min(l.floor+floorRise, p)
		}
		l.stirs = peak >= hearable && p > l.floor+stirOver
		if peak >= hearable && p > l.floor+speechOver {
			l.still = 0
		}
	}
	if l.quiet++; peak >= hearable {
		l.quiet = 0
	}
	voice := peak >= voiced || flag && peak >= voicedFlag
	if l.idle++; voice {
		l.idle = 0
		l.run++
	} else if peak >= 0 {
		l.run = 0
	}
	was := l.talks
	l.talks = l.run >= voiceOn || l.talks && l.idle < voiceHold
	return was != l.talks
}

// honest takes off of what a sender says of his loudness by how much he exaggerated.
func (l *loudness) honest(peak int) int {
	if l.said = peak; peak <= 0 || peak >= unknownPeak {
		l.said = -1
		return peak
	}
	l.lie = max(0, l.lie-lieForgiven)
	return max(0, peak-int(l.lie))
}

// heardAs takes the mean square of what was decoded of him in this tick.
func (l *loudness) heardAs(p float32) {
	if l.said < 0 {
		return
	}
	l.claims += lieSmooth * (float32(l.said) - l.claims)
	l.sounds += lieSmooth * (float32(silence-level(p)) - l.sounds)
	l.lie = max(0, l.claims-l.sounds-lieOver)
}

// Levelling: a voice drifts towards -20 dBFS, slowly and within bounds, so that
// who is far from the microphone is understood.
const (
	agcTarget = -20.0
	agcMin    = -6.0
	agcMax    = 9.0
	agcStep   = 0.05  // dB a tick: 2.5 dB a second
	agcGate   = -45.0 // dBFS below which nothing is learnt
	agcSmooth = 0.03
)

// agc is the levelling of one speaker.
type agc struct {
	level float64 // smoothed, dBFS
	db    float64 // gain
	gain  float32 // of the end of the last frame
}

func (a *agc) reset() { *a = agc{level: agcTarget} }

// target learns from a frame's power and returns the gain for its end.
func (a *agc) target(p float32) float32 {
	if db := 10 * math.Log10(float64(p)+1e-13); db > agcGate {
		a.level += agcSmooth * (db - a.level)
		want := min(max(agcTarget-a.level, agcMin), agcMax)
		a.db += min(max(want-a.db, -agcStep), agcStep)
	}
	return float32(math.Pow(10, a.db/20))
}

// ramp adds src to dst with a gain that goes from a to b along the first n samples
// and stays there.
func ramp(dst, src []float32, a, b float32, n int) {
	step := (b - a) / float32(n)
	for i, v := range src[:n] {
		dst[i] += v * (a + step*float32(i+1))
	}
	for i := n; i < len(src); i++ {
		dst[i] += src[i] * b
	}
}
