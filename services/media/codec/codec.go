// Package codec encodes and decodes the audio codecs of a call: Opus, G.722 and
// G.711. Whatever the codec, PCM is mono float32 at 48 kHz in ±1 and a frame is
// 20 ms; the resampling that G.722 and G.711 need is inside.
//
// Encoders and decoders belong to one goroutine at a time. After construction
// they don't allocate.
package codec

import "fmt"

// Rate is the sample rate of all PCM, in Hz.
const Rate = 48000

// FrameSamples is the length of a 20 ms frame at [Rate].
const FrameSamples = Rate / 50

// MaxSamples is the longest packet that is decoded, 120 ms (RFC 6716 §2.1.4).
const MaxSamples = 6 * FrameSamples

// MaxPayload is room enough for any packet that an [Encoder] makes.
const MaxPayload = 1276

// ID names a codec.
type ID uint8

// The codecs.
const (
	Opus ID = iota
	G722
	PCMU
	PCMA
	Count // how many there are; not a codec
)

// String returns the name that the bus and the status use.
func (id ID) String() string {
	switch id {
	case Opus:
		return "opus"
	case G722:
		return "g722"
	case PCMU:
		return "pcmu"
	case PCMA:
		return "pcma"
	}
	return fmt.Sprintf("codec-%d", uint8(id))
}

// RTPSamples is the advance of the codec's RTP clock in 20 ms. G.722 counts
// 8,000 a second although it samples 16,000 (RFC 3551 §4.5.2).
func (id ID) RTPSamples() uint32 {
	if id == Opus {
		return FrameSamples
	}
	return 160
}

// ClockScale is the number of samples at [Rate] in one unit of the RTP clock.
func (id ID) ClockScale() int {
	if id == Opus {
		return 1
	}
	return Rate / 8000
}

// Encoder makes packets of 20 ms.
type Encoder interface {
	// Encode reads exactly [FrameSamples] samples and writes one packet to dst,
	// which holds at least [MaxPayload] bytes; it returns the packet's length.
	Encode(dst []byte, pcm []float32) (int, error)
	// Reset forgets the past, for a new stream.
	Reset() error
}

// Decoder turns packets into PCM at [Rate].
type Decoder interface {
	// Decode writes the packet's samples to dst, which holds at least
	// [MaxSamples], and returns how many they are.
	Decode(dst []float32, payload []byte) (int, error)
	// DecodeFEC fills dst with the packet before payload, which was lost: from
	// the redundancy in payload where the codec has it, else as Conceal does.
	DecodeFEC(dst []float32, payload []byte) error
	// Conceal fills dst with what may stand in for a lost packet; it fades out
	// when called again and again.
	Conceal(dst []float32) error
	// Reset forgets the past, for a new stream.
	Reset() error
}

// LossSetter is an [Encoder] that can add redundancy for packets that get lost.
type LossSetter interface {
	// SetLoss says how many packets are expected to be lost, 0 to 100 %.
	SetLoss(percent int) error
}
