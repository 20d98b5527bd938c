package wav

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// file builds a WAV file.
func file(format, channels, rate, bits int, data []byte) []byte {
	le := binary.LittleEndian
	b := append([]byte("RIFF"), 0, 0, 0, 0)
	b = append(b, "WAVELIST\x03\x00\x00\x00abc\x00fmt \x10\x00\x00\x00"...)
	b = le.AppendUint16(b, uint16(format))
	b = le.AppendUint16(b, uint16(channels))
	b = le.AppendUint32(b, uint32(rate))
	b = le.AppendUint32(b, uint32(rate*channels*bits/8))
	b = le.AppendUint16(b, uint16(channels*bits/8))
	b = le.AppendUint16(b, uint16(bits))
	b = append(b, "data"...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}

func TestParse(t *testing.T) {
	rate, pcm, err := Parse(file(1, 2, 16000, 16, Bytes([]int16{100, 200, -300, -100, 32767, 32767})))
	if err != nil || rate != 16000 || !slices.Equal(pcm, []int16{150, -200, 32767}) {
		t.Fatalf("%d, %v, %v", rate, pcm, err)
	}
	ok := file(1, 1, 48000, 16, Bytes([]int16{1, 2, 3}))
	if _, pcm, err := Parse(ok[:len(ok)-3]); err != nil || len(pcm) != 1 {
		t.Fatalf("a cut file: %v, %v", pcm, err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "junk": []byte("RIFFxxxxWAVEjunk"), "float": file(3, 1, 48000, 32, nil), "44.1 kHz": file(1, 1, 44100, 16, nil),
		"8 bits": file(1, 1, 48000, 8, nil), "no data": ok[:len(ok)-14],
	} {
		if _, _, err := Parse(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(file(1, 2, 16000, 16, Bytes([]int16{1, 2})))
	f.Add(file(1, 1, 48000, 16, []byte{1}))
	f.Add([]byte("RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, pcm, err := Parse(b)
		if err != nil && pcm != nil || len(pcm)*2 > len(b) {
			t.Fatalf("%d samples of %d bytes, %v", len(pcm), len(b), err)
		}
	})
}
