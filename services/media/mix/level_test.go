package mix

import (
	"fmt"
	"math"
	"testing"
	"time"
)

func TestLevellingIsGentleAndBounded(t *testing.T) {
	for _, c := range []struct{ in, min, max float64 }{ // dBFS in; gain in dB after a minute
		{-6, -6.1, -5.9}, {-20, -0.2, 0.2}, {-26, 5.5, 6.5}, {-40, 8.9, 9.1}, {-60, -0.1, 0.1},
	} {
		var a agc
		a.reset()
		p := float32(math.Pow(10, c.in/10))
		last, g := 0.0, 0.0
		for range 3000 {
			g = 20 * math.Log10(float64(a.target(p)))
			if math.Abs(g-last) > agcStep+1e-3 {
				t.Fatalf("the gain jumps by %.2f dB", g-last)
			}
			last = g
		}
		if g < c.min || g > c.max {
			t.Errorf("%.0f dBFS gets %.2f dB, want %.1f to %.1f", c.in, g, c.min, c.max)
		}
	}
}

func TestVoiceHasAttackAndHold(t *testing.T) {
	var l loudness
	var turns []int
	for tick := range 100 {
		peak := 20
		if tick == 5 || tick >= 20 && tick < 40 || tick >= 45 && tick < 50 {
			peak = 100
		}
		if l.update(peak, false) {
			turns = append(turns, tick)
		}
	}
	// A click is no voice, a pause of 100 ms doesn't end it.
	if fmt.Sprint(turns) != fmt.Sprint([]int{21, 49 + voiceHold}) {
		t.Errorf("voice turns at ticks %v", turns)
	}
}

// TestManyWithoutLevelsTakeTurns has more senders whose level only decoding
// tells than are decoded in a tick; the one who speaks is found all the same.
func TestManyWithoutLevelsTakeTurns(t *testing.T) {
	r := manual(Config{})
	var legs []*leg
	for i := range 3 * maxProbes {
		l := newLeg(t, r, fmt.Sprint(i), G722)
		l.dec = nil
		legs = append(legs, l)
	}
	speaker := legs[len(legs)-1]
	for tick := range 60 {
		now := int64(tick) * tickNs
		for _, l := range legs {
			amp := 0.0001
			if l == speaker {
				amp = 0.3
			}
			l.say(tone(500, amp, tick), -1, now)
		}
		r.tick(now+tickNs*6/10, uint64(tick))
		decoders := 0
		for _, l := range legs {
			if l.m.t.dec != nil {
				decoders++
			}
		}
		if decoders > maxProbes+2*maxLoudest {
			t.Fatalf("%d members are decoded in a tick", decoders)
		}
	}
	if !speaker.m.t.heard.taken {
		t.Error("who speaks isn't heard")
	}
}

// TestLoudClaims has three who say that they are as loud as can be and send silence, and three who speak and say
// how loud they are: the first have their places for a moment.
func TestLoudClaims(t *testing.T) {
	r := manual(Config{Loudest: 3})
	var legs []*leg
	for i := range 6 {
		legs = append(legs, newLeg(t, r, fmt.Sprint(i), PCMU))
	}
	lost := 0
	for tick := range 500 {
		now := int64(tick) * tickNs
		for i, l := range legs {
			if i < 3 {
				l.say(make([]float32, frameSamples), 0, now)
			} else if tick >= 10 {
				l.say(tone(300*float64(i), 0.05, tick), 29, now)
			}
		}
		r.tick(now+int64(12*time.Millisecond), uint64(tick))
		for _, l := range legs[3:] {
			if tick >= 10 && !l.m.t.heard.taken {
				lost++
			}
		}
	}
	t.Logf("each of three is not heard for %d ms of 10 s", lost*20/3)
	if lost > 3*40 {
		t.Errorf("each of three is not heard for %d ms of 10 s", lost*20/3)
	}
	if h := legs[4].m.t.lie; h > 3 {
		t.Errorf("who says what is true is taken for quieter by %.0f dB", h)
	}
}
