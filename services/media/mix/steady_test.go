package mix

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
)

// ear is a tap that keeps what is heard.
type ear struct{ pcm []float32 }

func (*ear) WantOpus() bool         { return false }
func (e *ear) WriteTap(t *TapFrame) { e.pcm = append(e.pcm, t.Mix...) }

// steadiness looks at what is left of a tone of constant level, in windows of 20 ms: how far the level
// strays from its median in dB, and the loudest of what is not the tone, in dB below it.
func steadiness(pcm []float32, hz float64) (off []float64, dirt float64) {
	const win = frameSamples
	var levels []float64
	dirt = math.Inf(-1)
	for ; len(pcm) >= win; pcm = pcm[win:] {
		var re, im, all float64
		for i, v := range pcm[:win] {
			a := 2 * math.Pi * hz * float64(i) / codec.Rate
			re += float64(v) * math.Cos(a)
			im += float64(v) * math.Sin(a)
			all += float64(v) * float64(v)
		}
		tone := 2 * (re*re + im*im) / win
		levels = append(levels, 10*math.Log10(all/win+1e-12))
		dirt = max(dirt, 10*math.Log10(max(all-tone, 1e-12)/all))
	}
	mid := slices.Sorted(slices.Values(levels))[len(levels)/2]
	for _, l := range levels {
		off = append(off, l-mid)
	}
	return off, dirt
}

// loop is a second of a tone of whole periods, encoded.
func loop(t testing.TB, c CodecID, hz float64) [][]byte {
	t.Helper()
	enc, err := codec.NewEncoder(c)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for k := range 100 {
		buf := make([]byte, codec.MaxPayload)
		n, err := enc.Encode(buf, tone(hz, 0.2, k))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, buf[:n])
	}
	return out[50:]
}

// TestClocksDrift has senders whose clocks are 500 ppm fast or slow, which is more than any sound card's, for five
// minutes: what waits does not grow, and what is taken out or put in is not heard as a cut.
func TestClocksDrift(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	const minutes, hz = 5, 400
	for _, c := range []CodecID{Opus, PCMU} {
		for _, ppm := range []float64{500, -500} {
			t.Run(fmt.Sprint(c, " ", ppm, " ppm"), func(t *testing.T) {
				r := manual(Config{})
				e := new(ear)
				r.SetTap(e)
				m, err := r.Add("a", c, c, nil, true, false)
				if err != nil {
					t.Fatal(err)
				}
				packets := loop(t, c, hz)
				sent, period := 0, float64(tickNs)*(1-ppm/1e6)
				early, worst := 0.0, 0.0
				for tick := range minutes * 60 * 50 {
					now := int64(tick)*tickNs + int64(12*time.Millisecond)
					for ; float64(sent)*period <= float64(now); sent++ {
						m.Push(&Packet{Seq: uint16(sent), Timestamp: uint32(sent) * c.RTPSamples(), Level: 20, Payload: packets[sent%50], Arrival: int64(float64(sent) * period)})
					}
					r.tick(now, uint64(tick))
					switch wait := m.Stats().BufferMs; {
					case tick < 60*50:
						early = max(early, wait)
					default:
						worst = max(worst, wait)
					}
				}
				off, dirt := steadiness(e.pcm[50*frameSamples:], hz)
				low, high, strays := 0.0, 0.0, 0
				for _, d := range off {
					low, high = min(low, d), max(high, d)
					if math.Abs(d) > 3 {
						strays++
					}
				}
				s := m.Stats()
				t.Logf("waits %.0f ms in the first minute, %.0f later; level %+.1f to %+.1f dB, %d of %d frames beyond 3 dB, rest at most %.1f dB; concealed %d",
					early, worst, low, high, strays, len(off), dirt, s.Concealed)
				if worst > 45 || worst > early+25 {
					t.Errorf("a packet waits %.0f ms", worst)
				}
				if strays > 0 || dirt > -6 {
					t.Errorf("%d frames are beyond 3 dB, the loudest of what is no tone is at %.1f dB", strays, dirt)
				}
			})
		}
	}
}

// TestCodecsChangeMidCall has a sender who takes another codec each second, as far ends may do within what
// was negotiated, and at a renegotiation.
func TestCodecsChangeMidCall(t *testing.T) {
	const hz = 400
	order := []CodecID{PCMU, Opus, G722, PCMA, Opus, PCMU, G722, Opus}
	for _, lead := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 19 * time.Millisecond} {
		t.Run(lead.String(), func(t *testing.T) {
			r := manual(Config{})
			e := new(ear)
			r.SetTap(e)
			m, err := r.Add("a", PCMU, PCMU, nil, true, false)
			if err != nil {
				t.Fatal(err)
			}
			loops := map[CodecID][][]byte{}
			for _, c := range order {
				if loops[c] == nil {
					loops[c] = loop(t, c, hz)
				}
			}
			ts := uint32(0)
			for tick := range 50 * len(order) {
				c := order[tick/50]
				if err := m.SetCodecs(c, PCMU); err != nil {
					t.Fatal(err)
				}
				m.Push(&Packet{Seq: uint16(tick), Timestamp: ts, Level: 20, Payload: loops[c][tick%50], Arrival: int64(tick) * tickNs})
				ts += c.RTPSamples()
				r.tick(int64(tick)*tickNs+int64(lead), uint64(tick))
			}
			off, _ := steadiness(e.pcm[10*frameSamples:], hz)
			low, gone := 0.0, 0
			for _, d := range off {
				low = min(low, d)
				if d < -6 {
					gone++
				}
			}
			s := m.Stats()
			t.Logf("lowest %+.1f dB, %d frames below -6 dB, concealed %d, lost %d", low, gone, s.Concealed, s.Lost)
			if gone > len(order)-1 || s.Lost > 0 {
				t.Errorf("%d frames of sound are gone after %d changes, %d counted as lost", gone, len(order)-1, s.Lost)
			}
		})
	}
}
