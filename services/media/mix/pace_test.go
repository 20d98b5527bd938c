package mix

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
)

// seconds feeds a pace with seconds of ticks that take so long, of which a share is missed.
func (p *pace) seconds(n int, load float64, missed int, listeners int) (changes int) {
	for range n {
		for k := range paceTicks - missed {
			m := 0
			if k == 0 {
				m = missed
			}
			if p.done(int64(load*float64(TickLength)), int64(m), listeners) {
				changes++
			}
		}
	}
	return changes
}

// TestPace: packets get longer when a room does not keep its time, and shorter a while after it does; each time
// that this was too early the while doubles.
func TestPace(t *testing.T) {
	p := newPace()
	step := func(what string, n int, load float64, missed, listeners, span int, over bool) {
		t.Helper()
		p.seconds(n, load, missed, listeners)
		if p.span != span || p.over != over {
			t.Fatalf("%s: %d frames, over %t; want %d, %t", what, p.span, p.over, span, over)
		}
	}
	step("calm", 60, 0.7, 0, 2000, 1, false)
	step("few listeners", 60, 3, 30, fewListeners, 1, false)
	step("a second of load", 1, 0.9, 0, 2000, 1, false)
	step("and calm again", 1, 0.3, 0, 2000, 1, false)
	step("two seconds of load", 2, 0.9, 0, 2000, 2, false)
	step("which helped", 20, 0.5, 0, 2000, 2, false)
	step("ticks are missed", 2, 0.3, 5, 2000, 3, false)
	step("still a few", 5, 0.3, 5, 2000, 3, false)
	step("it does not help", 2, 0.95, 0, 2000, 3, true)
	step("better", 5, 0.5, 0, 2000, 3, false)
	step("not calm for long", firstCalm-1, 0.2, 0, 2000, 3, false)
	step("calm", 1, 0.2, 0, 2000, 2, false)
	step("calm for longer", firstCalm, 0.2, 0, 2000, 1, false)
	step("too early", 2, 0.9, 0, 2000, 2, false)
	step("calm", firstCalm, 0.2, 0, 2000, 2, false)
	step("calm for twice as long", firstCalm, 0.2, 0, 2000, 1, false)
	if !(&pace{span: 2}).rest() || newPacePtr().rest() {
		t.Error("the end of the ticks is a change where packets are long")
	}
}

func newPacePtr() *pace { p := newPace(); return &p }

// TestLongerPackets has a room's packets grow and shrink again while two speak: who only listens loses nothing, gets
// a half and a third as many, and as much is sent in each tick; who speaks gets his each 20 ms; a far end that
// takes no long ones gets none.
func TestLongerPackets(t *testing.T) {
	for _, c := range []CodecID{Opus, G722, PCMU} {
		t.Run(c.String(), func(t *testing.T) {
			r := manual(Config{})
			a, b := newLeg(t, r, "a", Opus), newLeg(t, r, "b", Opus)
			var crowd []*leg
			for i := range 6 {
				l := newLeg(t, r, fmt.Sprint(i), c)
				crowd = append(crowd, l)
			}
			short := newLeg(t, r, "short", c)
			short.m.SetMaxFrames(1)
			spans := []int{1, 2, 3, 2, 1}
			const each = 48
			counts := make([]int, len(spans))
			most := make([]int, len(spans))
			for tick := range each * len(spans) {
				k := tick / each
				r.pace.span = spans[k]
				now := int64(tick) * tickNs
				a.say(tone(400, 0.2, tick), 20, now)
				if k != 2 { // b listens in between: he goes to the stream of all and comes back
					b.say(tone(700, 0.2, tick), 20, now)
				}
				before := 0
				for _, l := range crowd {
					before += l.count
				}
				mine := a.count
				r.tick(now+int64(12*time.Millisecond), uint64(tick))
				if tick > 2 && a.count != mine+1 {
					t.Fatalf("tick %d: who speaks gets %d packets", tick, a.count-mine)
				}
				sent := -before
				for _, l := range crowd {
					sent += l.count
				}
				counts[k] += sent
				most[k] = max(most[k], sent)
			}
			usual := roughness(short.heard) // one voice comes and goes
			for i, l := range append(crowd, short, b) {
				if missing := each*len(spans)*frameSamples - len(l.heard); missing > 2*frameSamples {
					t.Errorf("listener %d got %d frames less than were mixed", i, missing/frameSamples)
				}
				if worst := roughness(l.heard); l != b && worst > usual+1 {
					t.Errorf("listener %d: a frame is off by %.1f dB, with short packets by %.1f", i, worst, usual)
				}
				if l.marks > 1 {
					t.Errorf("listener %d: %d markers", i, l.marks)
				}
			}
			if short.count < each*len(spans)-3 {
				t.Errorf("who takes 20 ms alone got %d packets", short.count)
			}
			t.Logf("packets: %v for %v frames each, at most %v a tick", counts, spans, most)
			for k, span := range spans {
				want := each * len(crowd) / span
				if k > 0 && (counts[k] < want*9/10 || counts[k] > want*13/10) {
					t.Errorf("%d packets with %d frames each, want %d", counts[k], span, want)
				}
			}
			if most[1] > len(crowd)/2+1 && most[2] > len(crowd)/3+2 {
				t.Errorf("at most %v a tick", most)
			}
		})
	}
}

// roughness is how far the level of a frame is from the others', in dB.
func roughness(pcm []float32) (worst float64) {
	off, _ := steadiness(pcm[10*frameSamples:], 400)
	for _, d := range off {
		worst = max(worst, math.Abs(d))
	}
	return worst
}

// slow is a listener whose packets take long.
type slow struct {
	each  time.Duration
	count *int
	codec.Decoder
}

func (s *slow) WriteFrame(*Frame) {
	*s.count++
	for end := Now() + int64(s.each); Now() < end; {
	}
}

// TestOverloadedRoom has a room with the real clock whose listeners take more than a tick: it sheds, says so, and keeps its
// time then; when most of them leave it is as before.
func TestOverloadedRoom(t *testing.T) {
	told := make(chan Pace, 16)
	ticks := new(Ticks)
	r := NewRoom(Config{Ticks: ticks, OnPace: func(p Pace) { told <- p }})
	defer r.Close()
	src, err := r.AddSource("a", humming{}, true, false)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	var crowd []*Member
	for i := range 100 { // 0.25 ms each: 25 ms a tick, and 8 with three frames in a packet
		m, err := r.Add(fmt.Sprint(i), PCMU, PCMU, &slow{each: 250 * time.Microsecond, count: &count}, false, false)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, m)
	}
	src.Wake()
	next := func() Pace {
		t.Helper()
		select {
		case p := <-told:
			return p
		case <-time.After(60 * time.Second):
			t.Fatal("nothing is told")
			return Pace{}
		}
	}
	if p := next(); p.Frames != 2 || p.Listeners != 100 || ticks.Shedding.Load() != 1 {
		t.Errorf("first %+v, %d shed", p, ticks.Shedding.Load())
	}
	for _, m := range crowd[20:] {
		m.Close()
	}
	for p := next(); p.Frames != 1; p = next() {
	}
	if n := ticks.Shedding.Load(); n != 0 {
		t.Errorf("%d rooms shed", n)
	}
}
