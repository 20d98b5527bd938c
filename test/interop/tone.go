//go:build interop

package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

const rate = 48000

// tone returns s16 samples of a sine with the given level in dBFS (a full-scale
// sine is 0 dBFS here).
func tone(freq, dBFS, seconds float64) []int16 {
	out := make([]int16, int(seconds*rate))
	a := 32767 * math.Pow(10, dBFS/20)
	for i := range out {
		out[i] = int16(a * math.Sin(2*math.Pi*freq*float64(i)/rate))
	}
	return out
}

// levelOf returns the level of one frequency in dBFS over the samples, -120 at
// the least: the magnitude of their correlation with that frequency.
func levelOf(s []int16, freq float64) float64 {
	if len(s) == 0 {
		return -120
	}
	var re, im float64
	for i, v := range s {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(s))) // Hann, so that neighbours don't leak in
		p := 2 * math.Pi * freq * float64(i) / rate
		re += w * float64(v) * math.Cos(p)
		im += w * float64(v) * math.Sin(p)
	}
	a := 2 * math.Hypot(re, im) / (0.5 * float64(len(s))) / 32767
	if a < 1e-6 {
		return -120
	}
	return 20 * math.Log10(a)
}

func writeWAV(path string, s []int16) error {
	b := make([]byte, 44+2*len(s))
	copy(b, "RIFF")
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	copy(b[8:], "WAVEfmt ")
	binary.LittleEndian.PutUint32(b[16:], 16)
	binary.LittleEndian.PutUint16(b[20:], 1)
	binary.LittleEndian.PutUint16(b[22:], 1)
	binary.LittleEndian.PutUint32(b[24:], rate)
	binary.LittleEndian.PutUint32(b[28:], 2*rate)
	binary.LittleEndian.PutUint16(b[32:], 2)
	binary.LittleEndian.PutUint16(b[34:], 16)
	copy(b[36:], "data")
	binary.LittleEndian.PutUint32(b[40:], uint32(2*len(s)))
	for i, v := range s {
		binary.LittleEndian.PutUint16(b[44+2*i:], uint16(v))
	}
	return os.WriteFile(path, b, 0o600)
}

const wavHeader = 44

// wavFormat is what the header of a 16-bit mono or stereo file says.
type wavFormat struct{ channels, hz int }

func (f wavFormat) frame() int  { return 2 * f.channels }
func (f wavFormat) repeat() int { return rate / f.hz }

// wavHead reads the header of a file, also one that is still being written.
func wavHead(path string) (wavFormat, error) {
	f, err := os.Open(path)
	if err != nil {
		return wavFormat{}, err
	}
	defer f.Close()
	b := make([]byte, wavHeader)
	if _, err := io.ReadFull(f, b); err != nil || string(b[:4]) != "RIFF" {
		return wavFormat{}, errors.Join(errors.New("not a WAV file"), err)
	}
	h := wavFormat{int(binary.LittleEndian.Uint16(b[22:])), int(binary.LittleEndian.Uint32(b[24:]))}
	if h.channels < 1 || h.channels > 2 || h.hz < 8000 || rate%h.hz != 0 || binary.LittleEndian.Uint16(b[34:]) != 16 {
		return wavFormat{}, fmt.Errorf("WAV of %d channels at %d Hz", h.channels, h.hz)
	}
	return h, nil
}

// readWAV returns the first channel at 48 kHz, by repeating samples, from a
// sample on.
func readWAV(path string, from int) ([]int16, error) {
	h, err := wavHead(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(int64(wavHeader+from/h.repeat()*h.frame()), io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	out := make([]int16, 0, len(b)/h.frame()*h.repeat())
	for i := 0; i+h.frame() <= len(b); i += h.frame() {
		v := int16(binary.LittleEndian.Uint16(b[i:]))
		for range h.repeat() {
			out = append(out, v)
		}
	}
	return out, nil
}

func samples(b []byte) []int16 {
	out := make([]int16, len(b)/2)
	for i := range out {
		out[i] = int16(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return out
}
