package codec

import (
	"fmt"
	"math"
	"testing"
)

var all = []ID{Opus, G722, PCMU, PCMA}

// tone writes a sine; phase counts samples from 0.
func tone(dst []float32, hz, amp float64, phase int) {
	for i := range dst {
		dst[i] = float32(amp * math.Sin(2*math.Pi*hz*float64(phase+i)/Rate))
	}
}

// share returns how much of the power of pcm is at hz (Goertzel), and the level in dBFS.
func share(pcm []float32, hz float64) (part, db float64) {
	var re, im, sum float64
	for i, v := range pcm {
		a := 2 * math.Pi * hz * float64(i) / Rate
		re += float64(v) * math.Cos(a)
		im += float64(v) * math.Sin(a)
		sum += float64(v) * float64(v)
	}
	n := float64(len(pcm))
	return 2 * (re*re + im*im) / n / (sum + 1e-20), 10 * math.Log10(sum/n+1e-20)
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRoundTripKeepsATone(t *testing.T) {
	for _, id := range all {
		for _, hz := range []float64{300, 1000, 3000} {
			t.Run(fmt.Sprintf("%v/%v", id, hz), func(t *testing.T) {
				enc, err := NewEncoder(id)
				enc = must(t, enc, err)
				dec, err := NewDecoder(id)
				dec = must(t, dec, err)
				var in, out [FrameSamples]float32
				buf, wide := make([]byte, MaxPayload), make([]float32, MaxSamples)
				var heard []float32
				for i := range 50 {
					tone(in[:], hz, 0.3, i*FrameSamples)
					n, err := enc.Encode(buf, in[:])
					must(t, n, err)
					if got := Samples(id, buf[:n]); got != FrameSamples {
						t.Fatalf("Samples = %d", got)
					}
					m, err := dec.Decode(wide, buf[:n])
					must(t, m, err)
					if m != FrameSamples {
						t.Fatalf("decoded %d samples", m)
					}
					copy(out[:], wide)
					if i >= 20 {
						heard = append(heard, out[:]...)
					}
				}
				part, db := share(heard, hz)
				if part < 0.98 || math.Abs(db-(-13.47)) > 1.5 {
					t.Errorf("%.1f %% of the power at %v Hz, %.1f dBFS", 100*part, hz, db)
				}
			})
		}
	}
}

func TestSilenceStaysSilent(t *testing.T) {
	for _, id := range all {
		enc, err := NewEncoder(id)
		enc = must(t, enc, err)
		dec, err := NewDecoder(id)
		dec = must(t, dec, err)
		in, out, buf := make([]float32, FrameSamples), make([]float32, MaxSamples), make([]byte, MaxPayload)
		for range 10 {
			n, err := enc.Encode(buf, in)
			must(t, n, err)
			n, err = dec.Decode(out, buf[:n])
			must(t, n, err)
			if _, db := share(out[:n], 1000); db > -70 { // A-law has no zero: 8 of 32,768
				t.Errorf("%v: silence comes out at %.0f dBFS", id, db)
			}
		}
	}
}

func TestResamplersPassVoiceAndStopAliases(t *testing.T) {
	for _, factor := range []int{2, 3, 6} {
		low := float64(Rate / factor)
		for _, c := range []struct {
			hz       float64
			min, max float64 // dB relative to the input
		}{{0.05 * low, -0.2, 0.2}, {0.4 * low, -1, 0.5}, {0.56 * low, -300, -45}, {0.9 * low, -300, -50}} {
			d, u := NewDown(factor, FrameSamples), NewUp(factor, FrameSamples/factor)
			in, mid, out := make([]float32, FrameSamples), make([]float32, FrameSamples), make([]float32, FrameSamples)
			var heard []float32
			for i := range 10 {
				tone(in, c.hz, 0.5, i*FrameSamples)
				n := d.Process(mid, in)
				u.Process(out, mid[:n])
				if i > 1 {
					heard = append(heard, out...)
				}
			}
			_, db := share(heard, c.hz)
			if rel := db + 9.03; rel < c.min || rel > c.max {
				t.Errorf("factor %d, %.0f Hz: %.1f dB, want %v to %v", factor, c.hz, rel, c.min, c.max)
			}
		}
	}
}

func TestConcealmentHidesOneLossAndFadesALongOne(t *testing.T) {
	for _, id := range all {
		enc, err := NewEncoder(id)
		enc = must(t, enc, err)
		dec, err := NewDecoder(id)
		dec = must(t, dec, err)
		in, out, buf := make([]float32, FrameSamples), make([]float32, MaxSamples), make([]byte, MaxPayload)
		for i := range 20 {
			tone(in, 400, 0.3, i*FrameSamples)
			n, err := enc.Encode(buf, in)
			must(t, n, err)
			if i == 15 {
				if err := dec.Conceal(out[:FrameSamples]); err != nil {
					t.Fatal(err)
				}
				if part, db := share(out[:FrameSamples], 400); part < 0.7 || db < -20 {
					t.Errorf("%v: one lost frame sounds at %.1f dBFS, %.0f %% in tune", id, db, 100*part)
				}
				continue
			}
			n, err = dec.Decode(out, buf[:n])
			must(t, n, err)
		}
		for range 25 {
			if err := dec.Conceal(out[:FrameSamples]); err != nil {
				t.Fatal(err)
			}
		}
		if _, db := share(out[:FrameSamples], 400); db > -45 {
			t.Errorf("%v: after 500 ms of loss still %.1f dBFS", id, db)
		}
	}
}

// TestOpusFEC needs the redundancy to bring back what only the lost packet had: a
// change of pitch.
func TestOpusFEC(t *testing.T) {
	var withFEC, withPLC float64
	for _, fec := range []bool{true, false} {
		enc, err := NewEncoder(Opus)
		enc = must(t, enc, err)
		dec, err := NewDecoder(Opus)
		dec = must(t, dec, err)
		in, out, buf := make([]float32, FrameSamples), make([]float32, MaxSamples), make([]byte, MaxPayload)
		var heard []float32
		for i := range 60 {
			voice(in, i*FrameSamples)
			n, err := enc.Encode(buf, in)
			must(t, n, err)
			switch {
			case i%10 == 8:
			case i%10 == 9 && fec:
				if err := dec.DecodeFEC(out[:FrameSamples], buf[:n]); err != nil {
					t.Fatal(err)
				}
				heard = append(heard, out[:FrameSamples]...)
				_, err := dec.Decode(out, buf[:n])
				must(t, 0, err)
			case i%10 == 9:
				if err := dec.Conceal(out[:FrameSamples]); err != nil {
					t.Fatal(err)
				}
				heard = append(heard, out[:FrameSamples]...)
				_, err := dec.Decode(out, buf[:n])
				must(t, 0, err)
			default:
				_, err := dec.Decode(out, buf[:n])
				must(t, 0, err)
			}
		}
		_, db := share(heard, 200)
		if fec {
			withFEC = db
		} else {
			withPLC = db
		}
	}
	t.Logf("recovered by FEC %.1f dBFS, by concealment %.1f dBFS", withFEC, withPLC)
	if withFEC < -40 {
		t.Errorf("FEC brought back %.1f dBFS", withFEC)
	}
}

// voice is a buzz of 120 to 220 Hz with syllables, enough for libopus to take it
// for speech.
func voice(dst []float32, phase int) {
	for i := range dst {
		t := float64(phase+i) / Rate
		f := 170 + 50*math.Sin(2*math.Pi*1.3*t)
		env := 0.5 + 0.5*math.Sin(2*math.Pi*4*t)
		v := 0.0
		for h := 1.0; h < 12; h++ {
			v += math.Sin(2*math.Pi*h*f*t) / h
		}
		dst[i] = float32(0.12 * env * v)
	}
}

func TestMalformedPayloadsAreErrors(t *testing.T) {
	for _, id := range all {
		dec, err := NewDecoder(id)
		dec = must(t, dec, err)
		out := make([]float32, MaxSamples)
		for _, p := range [][]byte{nil, {}, {0xff}, {0xff, 0x3f}, make([]byte, 5), make([]byte, 4000)} {
			if n, err := dec.Decode(out, p); err == nil && n != Samples(id, p) {
				t.Errorf("%v: %d bytes decode to %d samples, the head says %d", id, len(p), n, Samples(id, p))
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(0), []byte{0x78, 1, 2, 3})
	f.Add(uint8(0), []byte{0xff, 0x3f, 0})
	f.Add(uint8(1), make([]byte, 160))
	f.Add(uint8(2), make([]byte, 80))
	out := make([]float32, MaxSamples)
	f.Fuzz(func(t *testing.T, id uint8, p []byte) {
		c := ID(id) % Count
		dec, err := NewDecoder(c)
		dec = must(t, dec, err)
		n, err := dec.Decode(out, p)
		if err == nil && (n < 1 || n > MaxSamples) {
			t.Fatalf("%v: %d samples", c, n)
		}
		if Samples(c, p) > 0 {
			_ = dec.DecodeFEC(out[:FrameSamples], p) // any error will do, a crash won't
		}
		if err := dec.Conceal(out[:FrameSamples]); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	for _, id := range all {
		enc, err := NewEncoder(id)
		enc = must(t, enc, err)
		dec, err := NewDecoder(id)
		dec = must(t, dec, err)
		in, out, buf := make([]float32, FrameSamples), make([]float32, MaxSamples), make([]byte, MaxPayload)
		tone(in, 440, 0.3, 0)
		if n := testing.AllocsPerRun(20, func() {
			n, err := enc.Encode(buf, in)
			must(t, n, err)
			_, err = dec.Decode(out, buf[:n])
			must(t, n, err)
			must(t, n, dec.Conceal(out[:FrameSamples]))
		}); n != 0 {
			t.Errorf("%v: %v allocations a frame", id, n)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, id := range all {
		b.Run(id.String(), func(b *testing.B) {
			enc, err := NewEncoder(id)
			enc = must(b, enc, err)
			in, buf := make([]float32, FrameSamples), make([]byte, MaxPayload)
			b.ReportAllocs()
			for i := range b.N {
				if i%50 == 0 {
					voice(in, i*FrameSamples)
				}
				n, err := enc.Encode(buf, in)
				must(b, n, err)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, id := range all {
		b.Run(id.String(), func(b *testing.B) {
			enc, err := NewEncoder(id)
			enc = must(b, enc, err)
			dec, err := NewDecoder(id)
			dec = must(b, dec, err)
			in, out, buf := make([]float32, FrameSamples), make([]float32, MaxSamples), make([]byte, MaxPayload)
			var n int
			for i := range 10 {
				voice(in, i*FrameSamples)
				n, err = enc.Encode(buf, in)
				must(b, n, err)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, err := dec.Decode(out, buf[:n])
				must(b, n, err)
			}
		})
	}
}
