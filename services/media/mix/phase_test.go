package mix

import (
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
)

// stamps is a listener that keeps when the room's clock says that its frames began.
type stamps struct {
	r    *Room
	got  []int64 // ns since the room's epoch
	mark []bool
}

func (s *stamps) WriteFrame(f *Frame) {
	s.got = append(s.got, (int64(f.Tick)*frameSamples+int64(f.Shift))*int64(time.Second)/codec.Rate)
	s.mark = append(s.mark, f.Marker)
}

// TestTicksFollowWhoBreaksTheSilence has somebody speak, pause and speak again while others send silence, and his
// packets come at any time within a tick. What comes first waits for no longer than it has to, and the frames'
// timestamps are the ticks' own times.
func TestTicksFollowWhoBreaksTheSilence(t *testing.T) {
	for _, c := range []struct {
		name   string
		remote bool
		level  int8
		wait   time.Duration
	}{
		{"by network", false, 20, 8 * time.Millisecond},
		{"of a level that only decoding tells", false, -1, 8 * time.Millisecond},
		{"by a trunk", true, 20, 4 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			for phase := time.Duration(0); phase < TickLength; phase += 1300 * time.Microsecond {
				firsts(t, c.remote, c.level, int64(phase), c.wait)
			}
		})
	}
}

func firsts(t *testing.T, remote bool, level int8, phase int64, want time.Duration) {
	t.Helper()
	r := manual(Config{})
	r.epoch = 0
	listener := &stamps{r: r}
	if _, err := r.Add("listener", Opus, Opus, listener, false, false); err != nil {
		t.Fatal(err)
	}
	enc, err := codec.NewEncoder(Opus)
	if err != nil {
		t.Fatal(err)
	}
	a := &leg{t: t, codec: Opus, enc: enc}
	if remote {
		a.m, err = r.AddRemote("other", "a", Opus)
	} else {
		a.m, err = r.Add("a", Opus, Opus, nil, true, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	idle := join(t, r, "idle", &leg{t: t, codec: PCMU})

	// 1 s of silence by another one, then two spurts of 400 ms, 600 ms apart.
	quiet := make([]float32, frameSamples)
	var spoke, ticked []int64
	due := r.align(0)
	for now, step := int64(0), 0; now < 3e9; {
		at := r.epoch + r.shift + due*tickNs // of the next tick
		next := int64(step)*tickNs + phase   // packet of the speaker
		if at <= next {
			now = at
			heard := len(listener.got)
			r.tick(now, uint64(due))
			if len(listener.got) > heard {
				ticked = append(ticked, now)
			}
			due = r.next(due, now)
			continue
		}
		now = next
		if step%50 >= 30 {
			a.say(tone(400, 0.3, step), level, now)
			if step%50 == 30 {
				spoke = append(spoke, now)
			}
		} else {
			a.ts += 960
		}
		idle.say(quiet, 127, now)
		step++
		select {
		case <-r.wake:
			if r.tail == 0 {
				due = r.align(now)
			}
		default:
		}
	}
	if len(ticked) == 0 || len(spoke) < 2 {
		t.Fatalf("%d frames, %d spurts", len(ticked), len(spoke))
	}
	n := 0
	for i, at := range ticked {
		if listener.got[i] != at {
			t.Fatalf("a frame of %d is stamped %d", at, listener.got[i])
		}
		if !listener.mark[i] {
			continue
		}
		wait := time.Duration(at - spoke[n])
		if wait < want || wait > want+time.Duration(shiftStep) {
			t.Errorf("phase %v, spurt %d: the first packet waited %v, want %v", time.Duration(phase), n, wait, want)
		}
		n++
	}
	if n != len(spoke) {
		t.Errorf("%d spurts were heard of %d", n, len(spoke))
	}
}
