// Package wav reads WAV files: 16-bit PCM, mono or stereo, at 16, 24 or 48 kHz, the
// rates that rooms take.
//
// A file is a RIFF form of type WAVE: "RIFF" u32 "WAVE", then chunks of a 4-letter
// name, a u32 length and that many bytes, padded to even. "fmt " holds u16 format (1:
// PCM), u16 channels, u32 rate, u32 bytes/s, u16 block, u16 bits; "data" the samples,
// little-endian.
package wav

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrFormat is every refusal of [Parse].
var ErrFormat = errors.New("not a WAV file of 16-bit PCM at 16, 24 or 48 kHz")

// Parse returns the sample rate and the samples, mixed to mono.
func Parse(b []byte) (rate int, pcm []int16, err error) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WAVE" {
		return 0, nil, ErrFormat
	}
	channels := 0
	for b = b[12:]; len(b) >= 8; {
		name, n := string(b[:4]), int(binary.LittleEndian.Uint32(b[4:8]))
		b = b[8:]
		if n > len(b) {
			if name != "data" {
				return 0, nil, fmt.Errorf("%w: chunk %q is cut", ErrFormat, name)
			}
			n = len(b) // written by something that did not know the length yet
		}
		chunk := b[:n]
		b = b[min(n+n%2, len(b)):]
		switch name {
		case "fmt ":
			if n < 16 {
				return 0, nil, ErrFormat
			}
			format, bits := binary.LittleEndian.Uint16(chunk), binary.LittleEndian.Uint16(chunk[14:])
			channels, rate = int(binary.LittleEndian.Uint16(chunk[2:])), int(binary.LittleEndian.Uint32(chunk[4:]))
			if format != 1 && format != 0xfffe || bits != 16 || channels < 1 || channels > 2 || rate != 16000 && rate != 24000 && rate != 48000 {
				return 0, nil, fmt.Errorf("%w: format %d, %d bits, %d channels, %d Hz", ErrFormat, format, bits, channels, rate)
			}
		case "data":
			if channels == 0 {
				return 0, nil, fmt.Errorf("%w: data before its format", ErrFormat)
			}
			return rate, mono(chunk, channels), nil
		}
	}
	return 0, nil, fmt.Errorf("%w: no data", ErrFormat)
}

func mono(b []byte, channels int) []int16 {
	out := make([]int16, len(b)/2/channels)
	for i := range out {
		sum := 0
		for c := range channels {
			sum += int(int16(binary.LittleEndian.Uint16(b[2*(i*channels+c):])))
		}
		out[i] = int16(sum / channels)
	}
	return out
}

// Bytes returns samples as s16le, the form in which a bot says them.
func Bytes(pcm []int16) []byte {
	out := make([]byte, 0, 2*len(pcm))
	for _, v := range pcm {
		out = binary.LittleEndian.AppendUint16(out, uint16(v))
	}
	return out
}
