package mix

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
)

// utterance is what somebody says without a pause of more than a tenth of a second.
type utterance struct {
	who        int
	from, to   int // frames in which there is sound
	syllable   int // last frame of the first syllable
	background bool
}

// debate writes what six people say: turns of 1.5 to 5 s that begin between 0.5 s before and 0.6 s after the end of the
// one before, short assents of others, and now and then two who begin at once. It is made of syllables of 120 to 260 ms of harmonics on a
// pitch of each one's own, one in three with 60 ms of soft noise before, levels from -20 to -32 dBFS.
func debate(seed uint64, seconds int) (pcm [6][]float32, said []utterance) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	n := seconds * codec.Rate
	for i := range pcm {
		pcm[i] = make([]float32, n)
	}
	pitch := [6]float64{105, 122, 140, 185, 205, 230}
	level := [6]float64{-20, -24, -28, -22, -32, -26}
	speak := func(who, at, long int, db float64, background bool) int {
		u := utterance{who: who, from: at / frameSamples, background: background}
		first := true
		pos := at
		for pos < at+long && pos < n-codec.Rate/2 {
			length := codec.Rate * (120 + rnd.IntN(140)) / 1000
			if rnd.IntN(3) == 0 {
				soft := codec.Rate * 60 / 1000
				amp := math.Pow(10, (level[who]+db-14)/20)
				for k := range soft {
					pcm[who][pos+k] += float32(amp * rnd.NormFloat64() * min(1, float64(k)/480))
				}
				pos += soft
			}
			amp := math.Pow(10, (level[who]+db+3-float64(rnd.IntN(6)))/20)
			f0 := pitch[who] * (0.9 + 0.2*rnd.Float64())
			bright := 1 + rnd.Float64()
			for k := 0; k < length && pos+k < n; k++ {
				env := min(1, float64(k)/960, float64(length-k)/1920)
				var v float64
				for h := 1; h <= 12; h++ {
					v += math.Sin(2*math.Pi*f0*float64(h)*float64(k)/codec.Rate+float64(h*h)) / math.Pow(float64(h), bright)
				}
				pcm[who][pos+k] += float32(amp * env * v)
			}
			pos += length
			if first {
				u.syllable, first = (pos-1)/frameSamples, false
			}
			pos += codec.Rate * (20 + rnd.IntN(60)) / 1000
		}
		u.to = pos / frameSamples
		said = append(said, u)
		return pos
	}
	floor := 0
	for at := codec.Rate; at < n-6*codec.Rate; {
		end := speak(floor, at, codec.Rate*(1500+rnd.IntN(3500))/1000, 0, false)
		for b := at + codec.Rate; b < end-codec.Rate/2; b += codec.Rate * (900 + rnd.IntN(1800)) / 1000 {
			if who := rnd.IntN(6); who != floor {
				speak(who, b, codec.Rate/5, -6, true)
			}
		}
		next := (floor + 1 + rnd.IntN(5)) % 6
		at = end + codec.Rate*(rnd.IntN(1100)-500)/1000
		if rnd.IntN(4) == 0 { // another one begins as well, and gives up
			if other := rnd.IntN(6); other != next && other != floor {
				speak(other, at+codec.Rate*rnd.IntN(120)/1000, codec.Rate*7/10, 0, false)
			}
		}
		floor = next
	}
	return pcm, said
}

// hiss adds what each microphone hears beside, at a level in dBFS; 0: nothing.
func hiss(clean []float32, seed uint64, noise float64) []float32 {
	if noise >= 0 {
		return clean
	}
	rnd := rand.New(rand.NewPCG(seed, 8))
	out := make([]float32, len(clean))
	amp, last := math.Pow(10, noise/20), 0.0
	for k, v := range clean {
		last = 0.8*last + 0.6*rnd.NormFloat64() // less in the treble, as of fans
		out[k] = v + float32(amp*last)
	}
	return out
}

// verdict is how well a debate was heard.
type verdict struct {
	turns   int
	clipped int     // whose first syllable lacks something
	ms      float64 // that they lack on average
	worst   int     // ms
	unheard int     // first syllables of which nothing was heard
	changes float64 // seats taken a minute
}

func (v verdict) share() float64 { return 100 * float64(v.clipped) / float64(v.turns) }

// judge plays a debate to a room and looks at each tick which frames are heard.
func judge(t testing.TB, c CodecID, clean [6][]float32, said []utterance, noise float64, says bool) (v verdict) {
	var pcm [6][]float32
	r := manual(Config{Loudest: 3})
	if _, err := r.Add("listener", PCMU, PCMU, &sinkCount{}, false, false); err != nil {
		t.Fatal(err)
	}
	var legs []*leg
	var heard [6][]bool
	for i := range pcm {
		pcm[i] = hiss(clean[i], uint64(i), noise)
		l := &leg{t: t, codec: c}
		var err error
		if l.enc, err = codec.NewEncoder(c); err == nil {
			l.m, err = r.Add(fmt.Sprint(i), c, PCMU, nil, true, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		legs = append(legs, l)
		heard[i] = make([]bool, len(pcm[i])/frameSamples+1)
	}
	var seats [6]bool
	taken := 0
	sent := make([]map[string]int, 6)
	for i := range sent {
		sent[i] = map[string]int{}
	}
	buf := make([]byte, codec.MaxPayload)
	for tick := range len(pcm[0]) / frameSamples {
		now := int64(tick) * tickNs
		for i, l := range legs {
			frame := pcm[i][tick*frameSamples : (tick+1)*frameSamples]
			lv := int8(-1)
			if says {
				lv = int8(level(power(frame)))
			}
			n, err := l.enc.Encode(buf, frame)
			if err != nil {
				t.Fatal(err)
			}
			sent[i][string(buf[:n])] = tick
			l.m.Push(&Packet{Seq: uint16(tick), Timestamp: uint32(tick) * c.RTPSamples(), Level: lv, Payload: buf[:n], Arrival: now + int64(i)*int64(time.Millisecond)})
		}
		r.tick(now+int64(14*time.Millisecond), uint64(tick))
		for i, l := range legs {
			on := l.m.t.heard.taken
			if on && !seats[i] {
				taken++
			}
			seats[i] = on
			for _, p := range l.m.t.frame.Packets {
				heard[i][sent[i][string(p)]] = heard[i][sent[i][string(p)]] || on
			}
		}
	}
	loud := max(-45, noise+6) // what can be told from the noise
	if noise >= 0 {
		loud = -45
	}
	talks := func(i, frame int) bool {
		return -level(power(clean[i][frame*frameSamples:(frame+1)*frameSamples])) >= int(loud)
	}
	until := [6]int{}
	for _, u := range said {
		if u.from <= until[u.who]+25 { // goes on with what he said
			until[u.who] = max(until[u.who], u.to)
			continue
		}
		until[u.who] = u.to
		at := u.from
		for at < u.syllable && !talks(u.who, at) {
			at++
		}
		if at == u.syllable {
			continue // nobody could hear that, in this noise
		}
		lacks := 0
		for at+lacks <= u.syllable && !heard[u.who][at+lacks] {
			lacks++
		}
		v.turns++
		if lacks > 0 {
			v.clipped++
			v.ms += float64(20 * lacks)
			v.worst = max(v.worst, 20*lacks)
		}
		if at+lacks > u.syllable {
			v.unheard++
		}
	}
	if v.clipped > 0 {
		v.ms /= float64(v.clipped)
	}
	v.changes = float64(taken) * 60 * codec.Rate / float64(len(clean[0]))
	return v
}

// TestDebate prints how well the selection of three of six follows a debate. Its figures are in docs/performance.md.
func TestDebate(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	clean, said := debate(1, 90)
	t.Log("codec  level   noise dBFS  turns  clipped   by ms  worst  unheard  seats a minute")
	for _, c := range []struct {
		codec CodecID
		says  bool
		noise float64
		share float64 // clipped at most, %
	}{
		{PCMU, true, 0, 1}, {PCMU, true, -60, 1}, {PCMU, true, -50, 2}, {PCMU, true, -42, 3},
		{PCMU, false, 0, 2}, {PCMU, false, -50, 10}, {Opus, false, -50, 10},
	} {
		v := judge(t, c.codec, clean, said, c.noise, c.says)
		what, name := "none", "unsaid"
		if c.noise < 0 {
			what = fmt.Sprint(c.noise)
		}
		if c.says {
			name = "said"
		}
		t.Logf("%-5v  %-6s  %10s  %5d  %5.1f %%  %6.0f  %5d  %7d  %14.1f", c.codec, name, what, v.turns, v.share(), v.ms, v.worst, v.unheard, v.changes)
		if v.share() > c.share || v.unheard > 1 {
			t.Errorf("%.1f %% of the first syllables are clipped, %d are not heard at all", v.share(), v.unheard)
		}
	}
}
