package codec

import (
	"errors"
	"fmt"

	opus "gopkg.in/hraban/opus.v2"
)

// Settings of the Opus encoders. Complexity 4 costs half of 8 and more
// (docs/decisions/004-mixer.md has the figures); 36 kbit/s
// is fullband hybrid for voice with room for the in-band redundancy; an expected loss is what makes libopus spend bits
// on that at all. Expecting more than 5 % costs who loses nothing and gains nothing for who loses 20 (TestExpectedLoss
// in package mix), so it is the same for all and does not follow their reports.
const (
	opusComplexity = 4
	opusBitrate    = 36000
	opusLossPct    = 5
)

// errPayload refuses a packet that no decoder should see.
var errPayload = errors.New("codec: malformed payload")

type opusEncoder struct{ enc *opus.Encoder }

func newOpusEncoder() (*opusEncoder, error) {
	enc, err := opus.NewEncoder(Rate, 1, opus.AppVoIP)
	if err != nil {
		return nil, fmt.Errorf("opus encoder: %w", err)
	}
	err = errors.Join(enc.SetComplexity(opusComplexity), enc.SetBitrate(opusBitrate),
		enc.SetInBandFEC(true), enc.SetPacketLossPerc(opusLossPct), enc.SetDTX(false))
	if err != nil {
		return nil, fmt.Errorf("opus encoder settings: %w", err)
	}
	return &opusEncoder{enc: enc}, nil
}

func (e *opusEncoder) Reset() error { return e.enc.Reset() }

func (e *opusEncoder) Encode(dst []byte, pcm []float32) (int, error) {
	n := min(len(dst), MaxPayload)
	return e.enc.EncodeFloat32(pcm, dst[:n:n]) // which may take up to the capacity
}

type opusDecoder struct{ dec *opus.Decoder }

func newOpusDecoder() (*opusDecoder, error) {
	d := new(opusDecoder)
	return d, d.Reset()
}

// Reset makes a new libopus decoder: the binding has no reset for it.
func (d *opusDecoder) Reset() error {
	dec, err := opus.NewDecoder(Rate, 1)
	if err != nil {
		return fmt.Errorf("opus decoder: %w", err)
	}
	d.dec = dec
	return nil
}

// Decode also takes stereo packets; libopus mixes them down.
func (d *opusDecoder) Decode(dst []float32, payload []byte) (int, error) {
	n := opusSamples(payload)
	if n == 0 || n > len(dst) {
		return 0, errPayload
	}
	return d.dec.DecodeFloat32(payload, dst[:n:n])
}

func (d *opusDecoder) DecodeFEC(dst []float32, payload []byte) error {
	if opusSamples(payload) == 0 {
		return errPayload
	}
	return d.dec.DecodeFECFloat32(payload, dst[:len(dst):len(dst)])
}

func (d *opusDecoder) Conceal(dst []float32) error {
	return d.dec.DecodePLCFloat32(dst[:len(dst):len(dst)])
}

// opusSamples reads the length of a packet from its first bytes (RFC 6716 §3.1,
// §3.2), in samples at [Rate]; 0 for a packet that isn't one.
func opusSamples(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	var frame int // of one frame, in samples
	switch cfg := p[0] >> 3; {
	case cfg < 12: // SILK: 10, 20, 40, 60 ms
		frame = [4]int{480, 960, 1920, 2880}[cfg&3]
	case cfg < 16: // hybrid: 10, 20 ms
		frame = 480 << (cfg & 1)
	default: // CELT: 2.5, 5, 10, 20 ms
		frame = 120 << (cfg & 3)
	}
	count := 1
	switch p[0] & 3 {
	case 1, 2:
		count = 2
	case 3:
		if len(p) < 2 {
			return 0
		}
		count = int(p[1] & 0x3f)
	}
	if n := frame * count; n <= MaxSamples {
		return n
	}
	return 0
}

// SetLoss is [LossSetter].
func (e *opusEncoder) SetLoss(percent int) error { return e.enc.SetPacketLossPerc(percent) }
