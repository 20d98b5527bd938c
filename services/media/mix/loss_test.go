package mix

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/parley-jami/parley/internal/stoi"
	"github.com/parley-jami/parley/services/media/codec"
)

// packetsOf reads the Opus packets of an Ogg file (RFC 3533 §6), less its two headers.
func packetsOf(t testing.TB, path string) (out [][]byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var packet []byte
	for len(raw) > 27 && bytes.HasPrefix(raw, []byte("OggS")) {
		lacing := raw[27 : 27+int(raw[26])]
		raw = raw[27+len(lacing):]
		for _, n := range lacing {
			packet, raw = append(packet, raw[:n]...), raw[n:]
			if n < 255 {
				out, packet = append(out, packet), nil
			}
		}
	}
	return out[2:]
}

// speech is 16.8 s of two voices, made by espeak-ng 1.51.
func speech(t testing.TB) []float32 {
	t.Helper()
	dec, err := codec.NewDecoder(Opus)
	if err != nil {
		t.Fatal(err)
	}
	var pcm []float32
	buf := make([]float32, codec.MaxSamples)
	for _, p := range packetsOf(t, "testdata/speech.opus") {
		n, err := dec.Decode(buf, p)
		if err != nil {
			t.Fatal(err)
		}
		pcm = append(pcm, buf[:n]...)
	}
	return pcm[:len(pcm)/frameSamples*frameSamples]
}

// losses are which of n packets are lost: each by itself, or in bursts of three on average.
func losses(n int, share float64, bursts bool) []bool {
	rnd := rand.New(rand.NewPCG(11, uint64(1000*share)))
	out, bad := make([]bool, n), false
	for i := range out {
		switch {
		case !bursts:
			bad = rnd.Float64() < share
		case bad:
			bad = rnd.Float64() < 2.0/3
		default:
			bad = rnd.Float64() < share/3/(1-share)
		}
		out[i] = bad && i > 10
	}
	return out
}

// encoded is pcm as a sender makes packets of it that expects a loss, in percent.
func encoded(t testing.TB, pcm []float32, expects int) (out [][]byte) {
	t.Helper()
	enc, err := codec.NewEncoder(Opus)
	if err == nil {
		err = enc.(codec.LossSetter).SetLoss(expects)
	}
	for ; err == nil && len(pcm) >= frameSamples; pcm = pcm[frameSamples:] {
		buf := make([]byte, codec.MaxPayload)
		n := 0
		n, err = enc.Encode(buf, pcm[:frameSamples])
		out = append(out, buf[:n])
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Ways of packets to the ear.
const (
	concealed = "libopus, concealment"
	redundant = "libopus, redundancy"
	parley    = "Parley"
)

// received is what is heard of packets, some of which are lost.
func received(t testing.TB, packets [][]byte, lost []bool, way string) (pcm []float32) {
	t.Helper()
	if way == parley {
		r := manual(Config{})
		e := new(ear)
		r.SetTap(e)
		m, err := r.Add("a", Opus, Opus, nil, true, false)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range packets {
			now := int64(i) * tickNs
			if !lost[i] {
				m.Push(&Packet{Seq: uint16(i), Timestamp: uint32(i * frameSamples), Level: 20, Payload: p, Arrival: now + 5e6})
			}
			r.tick(now+tickNs-1e6, uint64(i))
		}
		return e.pcm
	}
	dec, err := codec.NewDecoder(Opus)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]float32, codec.MaxSamples)
	for i, p := range packets {
		out := buf[:frameSamples]
		switch {
		case !lost[i]:
			_, err = dec.Decode(buf, p)
		case way == redundant && i+1 < len(packets) && !lost[i+1]:
			err = dec.DecodeFEC(out, packets[i+1])
		default:
			err = dec.Conceal(out)
		}
		if err != nil {
			t.Fatal(err)
		}
		pcm = append(pcm, out...)
	}
	return pcm
}

// aligned brings heard in time with clean, for what was spliced in and out: by blocks of 160 ms, each where it is most
// alike, at most 120 ms away.
func aligned(clean, heard []float64) []float64 {
	const block, most = stoi.Rate * 160 / 1000, stoi.Rate * 120 / 1000
	out := make([]float64, len(clean))
	lag := 0
	for at := 0; at+block <= len(clean); at += block {
		best := 0.5
		try := func(d, step int) {
			if at+d < 0 || at+d+block > len(heard) {
				return
			}
			var xy, xx, yy float64
			for i := 0; i < block; i += step {
				x, y := clean[at+i], heard[at+d+i]
				xy, xx, yy = xy+x*y, xx+x*x, yy+y*y
			}
			if c := xy / (math.Sqrt(xx*yy) + 1e-9); c > best {
				best, lag = c, d
			}
		}
		const coarse = 4
		for d := -most; d <= most; d += coarse {
			try(d, 3)
		}
		best = 0
		for d, mid := lag-coarse, lag; d <= mid+coarse; d++ {
			try(d, 1)
		}
		for i := range block {
			if k := at + lag + i; k >= 0 && k < len(heard) {
				out[at+i] = heard[k]
			}
		}
	}
	return out
}

// clarity is the intelligibility of what is heard.
func clarity(clean []float64, heard []float32) float64 {
	return stoi.Compare(clean, aligned(clean, stoi.Resample(heard)))
}

// evenness is how well a steady sound keeps its level: the share of frames that are more than 3 dB off, in percent, and the
// longest time for which it is that much too quiet, in ms.
func evenness(pcm []float32) (share float64, dip int) {
	off, _ := steadiness(pcm[20*frameSamples:], 150)
	run, beyond := 0, 0
	for _, d := range off {
		if math.Abs(d) > 3 {
			beyond++
		}
		if run++; d > -3 {
			run = 0
		}
		dip = max(dip, 20*run)
	}
	return 100 * float64(beyond) / float64(len(off)), dip
}

// TestLoss prints what loss does to a hum and to speech on the way in, beside what libopus alone makes of it. Its
// figures are in docs/performance.md.
func TestLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	spoken := speech(t)
	clean := stoi.Resample(spoken)
	var hum []float32
	for i := range 1000 * frameSamples { // as of a vowel, so that the encoder takes it for a voice
		v := 0.0
		for h := 1.0; h <= 16; h++ {
			v += math.Cos(2*math.Pi*150*h*float64(i)/codec.Rate+h*h) * 0.12 / (1 + math.Abs(h-4)/2)
		}
		hum = append(hum, float32(v))
	}
	t.Logf("%-22s %-22s  %s  %s  %s", "loss", "way", "frames off 3 dB", "longest dip", "STOI")
	for _, c := range []struct {
		share  float64
		bursts bool
	}{{0, false}, {0.01, false}, {0.05, false}, {0.1, false}, {0.2, false}, {0.05, true}, {0.1, true}, {0.2, true}} {
		expects := int(100 * c.share)
		said, hummed := encoded(t, spoken, max(expects, 5)), encoded(t, hum, max(expects, 5))
		got := map[string]float64{}
		for _, way := range []string{concealed, redundant, parley} {
			name := fmt.Sprintf("%.0f %%", 100*c.share)
			if c.bursts {
				name += " in bursts"
			}
			got[way] = clarity(clean, received(t, said, losses(len(said), c.share, c.bursts), way))
			share, dip := evenness(received(t, hummed, losses(len(hummed), c.share, c.bursts), way))
			t.Logf("%-22s %-22s  %13.2f %%  %8d ms  %.3f", name, way, share, dip, got[way])
		}
		if got[parley] < got[concealed]-0.01 || got[parley] < got[redundant]-0.03 {
			t.Errorf("%.0f %%: what is heard is worse than what libopus alone makes of it", 100*c.share)
		}
	}
}

// TestExpectedLoss prints what a listener who loses packets hears of an encoder that expects a loss, and what that
// costs one who loses none.
func TestExpectedLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	spoken := speech(t)
	clean := stoi.Resample(spoken)
	got := map[[2]int]float64{}
	for _, expects := range []int{0, 5, 15} {
		packets, size := encoded(t, spoken, expects), 0
		for _, p := range packets {
			size += len(p)
		}
		row := ""
		for _, share := range []int{0, 5, 10, 20} {
			got[[2]int{expects, share}] = clarity(clean, received(t, packets, losses(len(packets), float64(share)/100, false), redundant))
			row += fmt.Sprintf("  %.3f", got[[2]int{expects, share}])
		}
		if expects == 5 && (got[[2]int{5, 0}] < 0.98 || got[[2]int{5, 10}] < got[[2]int{0, 10}]+0.05) {
			t.Errorf("redundancy costs too much, or helps too little: %v", got)
		}
		t.Logf("expects %2d %%: %.1f kbit/s, STOI with 0, 5, 10, 20 %% lost:%s", expects, float64(size)*8/1000/(float64(len(packets))/50), row)
	}
}
