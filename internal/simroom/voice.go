package simroom

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// rate is the sample rate of what people say.
const rate = 48_000

// voice makes the sound of a speech, a piece at a time.
type voice struct {
	sp    *Speech
	pos   int
	rand  *rand.Rand
	phase float64
}

func newVoice(sp *Speech) *voice { return &voice{sp: sp, rand: rand.New(rand.NewPCG(1, 2))} }

// next returns the next n samples as s16le.
func (v *voice) next(n int) []byte {
	level := v.sp.Level
	if level == 0 {
		level = -20
	}
	// dBFS here is of the root mean square, 0 being a full-scale sine's.
	peak := 32767 * math.Pow(10, level/20)
	out := make([]byte, 0, 2*n)
	for range n {
		var s float64
		switch {
		case v.sp.WAV != "":
			if len(v.sp.sound) > 0 {
				s = float64(v.sp.sound[v.pos%len(v.sp.sound)])
			}
		case v.sp.Noise:
			s = peak * math.Sqrt(1.5) * (2*v.rand.Float64() - 1) // uniform noise has √(2/3) of a sine's power
		default:
			s = peak * math.Sin(v.phase)
			v.phase = math.Mod(v.phase+2*math.Pi*v.sp.Tone/rate, 2*math.Pi)
		}
		v.pos++
		out = binary.LittleEndian.AppendUint16(out, uint16(int16(max(-32768, min(32767, s)))))
	}
	return out
}

// stretch brings samples to 48 kHz by straight lines between them: enough for a test.
func stretch(pcm []int16, from int) []int16 {
	f := rate / from
	if f == 1 {
		return pcm
	}
	out := make([]int16, 0, len(pcm)*f)
	for i, v := range pcm {
		next := int(v)
		if i+1 < len(pcm) {
			next = int(pcm[i+1])
		}
		for k := range f {
			out = append(out, int16(int(v)+(next-int(v))*k/f))
		}
	}
	return out
}
