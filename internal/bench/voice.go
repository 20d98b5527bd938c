package bench

import (
	"fmt"
	"math"

	opus "gopkg.in/hraban/opus.v2"
)

const (
	rate         = 48000
	frameSamples = rate / 50
	loopSeconds  = 6
	loopFrames   = loopSeconds * 50
)

// chirpLength is 30 ms; the chirp rises through the band that every codec keeps.
const chirpLength = rate * 30 / 1000

// marks are where speaker 0's chirps begin in the loop, in samples. They are odd
// places in a frame on purpose.
var marks = []int{2*rate + 12345, 3*rate + 12001, 4*rate + 13007, 5*rate + 12567}

var chirp = func() []float32 {
	c := make([]float32, chirpLength)
	for i := range c {
		t := float64(i) / rate
		w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/chirpLength)
		c[i] = float32(0.6 * w * math.Sin(2*math.Pi*(500*t+0.5*(3300-500)/0.03*t*t)))
	}
	return c
}()

// voiceFrame is an encoded frame with its level in -dBov.
type voiceFrame struct {
	payload []byte
	level   byte
}

// voice makes the loop of a speaker: a buzz with a melody and syllables, with a
// pause of 1.5 s at another time for each, so that somebody always speaks.
func voice(k, speakers int) ([]voiceFrame, error) {
	pcm := make([]float32, loopSeconds*rate)
	base := 110 * math.Pow(1.19, float64(k%8))
	phase := 0.0
	quiet := (2 * k) % loopSeconds
	for i := range pcm {
		t := float64(i) / rate
		phase += 2 * math.Pi * base * (1 + 0.2*math.Sin(2*math.Pi*t*0.7)) / rate
		v := 0.0
		for h := 1.0; h < 10; h++ {
			v += math.Sin(h*phase) / h
		}
		env := 0.35 + 0.65*math.Abs(math.Sin(math.Pi*3.5*t))
		if d := t - float64(quiet); speakers > 1 && d >= 0 && d < 1.5 {
			env = 0.0001
		}
		pcm[i] = float32(0.06 * env * v)
	}
	if k == 0 {
		for _, m := range marks {
			for i := -rate / 100; i < chirpLength+rate/100; i++ {
				pcm[m+i] *= 0.05
			}
			for i, v := range chirp {
				pcm[m+i] += v
			}
		}
	}
	return encode(pcm)
}

func encode(pcm []float32) ([]voiceFrame, error) {
	enc, err := opus.NewEncoder(rate, 1, opus.AppVoIP)
	if err != nil {
		return nil, fmt.Errorf("opus encoder: %w", err)
	}
	if err := enc.SetBitrate(32000); err != nil {
		return nil, fmt.Errorf("opus encoder: %w", err)
	}
	var out []voiceFrame
	buf := make([]byte, 1276)
	for ; len(pcm) >= frameSamples; pcm = pcm[frameSamples:] {
		frame := pcm[:frameSamples]
		n, err := enc.EncodeFloat32(frame, buf)
		if err != nil {
			return nil, fmt.Errorf("opus encoder: %w", err)
		}
		p := 1e-13
		for _, v := range frame {
			p += float64(v) * float64(v) / frameSamples
		}
		level := min(max(-10*math.Log10(p), 0), 127)
		out = append(out, voiceFrame{append([]byte(nil), buf[:n]...), byte(level)})
	}
	return out, nil
}
