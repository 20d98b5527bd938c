package codec

import (
	"bytes"
	"testing"
)

// parts are frames of a voice with a pause, of every length that occurs.
func parts(t testing.TB, id ID, n int) [][]byte {
	t.Helper()
	enc, err := NewEncoder(id)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for i := range n {
		pcm := make([]float32, FrameSamples)
		for k := range pcm {
			if i%10 < 7 {
				pcm[k] = float32(0.3 * float64((i*FrameSamples+k)*(97+i%3)%2000-1000) / 1000)
			}
		}
		buf := make([]byte, MaxPayload)
		m, err := enc.Encode(buf, pcm)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, buf[:m])
	}
	return out
}

// TestJoined: frames in one packet sound as they do one by one.
func TestJoined(t *testing.T) {
	for _, id := range []ID{Opus, G722, PCMU, PCMA} {
		one, err := NewDecoder(id)
		if err != nil {
			t.Fatal(err)
		}
		all, err := NewDecoder(id)
		if err != nil {
			t.Fatal(err)
		}
		list, apart := parts(t, id, 120), 0
		for i := 0; i+3 <= len(list); {
			n := 2 + i/2%2
			var buf [3 * MaxPayload]byte
			size := Join(id, buf[:], list[i:i+n])
			if size == 0 {
				apart++
				n = 1
				size = copy(buf[:], list[i])
			}
			if got := Samples(id, buf[:size]); got != n*FrameSamples {
				t.Fatalf("%v: %d frames are %d samples", id, n, got)
			}
			var want, got [MaxSamples]float32
			at := 0
			for _, p := range list[i : i+n] {
				k, err := one.Decode(want[at:], p)
				if err != nil {
					t.Fatal(err)
				}
				at += k
			}
			if k, err := all.Decode(got[:], buf[:size]); err != nil || k != at {
				t.Fatalf("%v: %d samples of %d, %v", id, k, at, err)
			}
			for k := range at {
				if d := got[k] - want[k]; d > 1e-4 || d < -1e-4 {
					t.Fatalf("%v: sample %d of frame %d is %v, not %v", id, k, i, got[k], want[k])
				}
			}
			i += n
		}
		if apart > 10 {
			t.Errorf("%v: %d did not go together", id, apart)
		}
	}
}

func TestNotJoined(t *testing.T) {
	var buf [20]byte
	for name, c := range map[string]struct {
		id    ID
		parts [][]byte
	}{
		"nothing":        {Opus, nil},
		"an empty one":   {Opus, [][]byte{{0x78, 1}, {}}},
		"other kinds":    {Opus, [][]byte{{0x78, 1}, {0x70, 1}}},
		"joined already": {Opus, [][]byte{{0x79, 1, 2}, {0x79, 1, 2}}},
		"too long":       {Opus, [][]byte{append([]byte{0x78}, bytes.Repeat([]byte{1}, 9)...), append([]byte{0x78}, bytes.Repeat([]byte{1}, 9)...)}},
		"long G.711":     {PCMU, [][]byte{make([]byte, 11), make([]byte, 10)}},
	} {
		if n := Join(c.id, buf[:], c.parts); n != 0 {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
}

func FuzzJoin(f *testing.F) {
	f.Add([]byte{0x78, 1, 2, 3}, []byte{0x78, 4})
	f.Add([]byte{0x78}, bytes.Repeat([]byte{0x78}, 300))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a) > MaxPayload || len(b) > MaxPayload {
			return
		}
		buf := make([]byte, 2*MaxPayload+8)
		n := Join(Opus, buf, [][]byte{a, b})
		if n == 0 {
			return
		}
		if got := Samples(Opus, buf[:n]); got != 0 && got != 2*Samples(Opus, a) {
			t.Fatalf("%d samples of %d", got, Samples(Opus, a))
		}
		if !bytes.HasSuffix(buf[:n], b[1:]) || !bytes.Contains(buf[:n], a[1:]) {
			t.Fatal("the frames are not in it")
		}
	})
}
