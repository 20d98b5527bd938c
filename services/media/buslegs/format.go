package buslegs

import (
	"encoding/binary"

	"github.com/parley-jami/parley/services/media/codec"
)

// Formats of audio on the bus, as indices.
const (
	opus = iota
	pcm16
	pcm24
	pcm48
	formats
)

// formatNames are the contract's names.
var formatNames = [formats]string{"opus", "s16le-16000", "s16le-24000", "s16le-48000"}

// factors are 48,000 divided by the rate.
var factors = [formats]int{1, 3, 2, 1}

// formatOf returns the index, or -1.
func formatOf(name string) int {
	for i, n := range formatNames {
		if n == name {
			return i
		}
	}
	return -1
}

// converter turns one source's 48 kHz frames into the formats.
type converter struct {
	enc  codec.Encoder
	down [formats]*codec.Down
	low  [codec.FrameSamples]float32
	out  []byte
}

// pcm returns the frame in a PCM format, valid until the next call.
func (c *converter) pcm(f int, in []float32) []byte {
	if c.down[f] == nil {
		c.down[f] = codec.NewDown(factors[f], codec.FrameSamples)
	}
	n := c.down[f].Process(c.low[:], in)
	c.out = c.out[:0]
	for _, v := range c.low[:n] {
		c.out = binary.LittleEndian.AppendUint16(c.out, uint16(clip(v)))
	}
	return c.out
}

// opus returns the frame as an Opus packet, valid until the next call.
func (c *converter) opus(in []float32) ([]byte, error) {
	if c.enc == nil {
		e, err := codec.NewEncoder(codec.Opus)
		if err != nil {
			return nil, err
		}
		c.enc = e
	}
	if cap(c.out) < codec.MaxPayload {
		c.out = make([]byte, 0, 2*codec.FrameSamples)
	}
	n, err := c.enc.Encode(c.out[:codec.MaxPayload], in)
	return c.out[:n], err
}

func clip(v float32) int16 {
	return int16(max(min(v*32767, 32767), -32768))
}
