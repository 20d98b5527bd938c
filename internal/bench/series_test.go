package bench

import (
	"testing"
	"time"
)

func TestSeriesJudgesFrames(t *testing.T) {
	const start = int64(1e18)
	ms := int64(time.Millisecond)
	for _, c := range []struct {
		name      string
		frames    int
		lag       func(i int) int64 // ms; negative: it never came
		late, due int
	}{
		{"in time", 500, func(int) int64 { return 30 }, 0, 500},
		{"jitter below the bound", 500, func(i int) int64 { return int64(30 + i%19) }, 0, 500},
		{"one in ten lost", 500, func(i int) int64 {
			if i%10 == 5 {
				return -1
			}
			return 30
		}, 50, 500},
		{"one late", 500, func(i int) int64 {
			if i == 100 {
				return 51
			}
			return 30
		}, 1, 500},
		{"longer than a window, lost across its end", 4000, func(i int) int64 {
			if i >= 1480 && i < 1520 {
				return -1
			}
			return 30
		}, 40, 4000},
		{"several windows without a frame", 8000, func(i int) int64 {
			if i >= 100 && i < 6100 {
				return -1
			}
			return 30
		}, 6000, 8000},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := &timeline{start: start, every: int64(10 * time.Second)}
			s := series{on: true, into: line}
			const ts0 = 0xffff0000 // it wraps
			for i := range c.frames {
				if lag := c.lag(i); lag >= 0 {
					s.note(start+int64(i)*frameTime+lag*ms, ts0+uint32(i)*frameSamples, 7)
					s.note(start+int64(i)*frameTime+lag*ms+5*ms, ts0+uint32(i)*frameSamples, 7) // once more
					s.note(start+int64(i)*frameTime, uint32(i), 8)                              // somebody else's
				}
			}
			// All frames had their time when the last one's bound is over.
			if first := s.end(start + int64(c.frames-1)*frameTime + 60*ms); first != start+30*ms {
				t.Errorf("the first frame came at %d", first)
			}
			s.note(start, ts0, 7)
			due, late := 0, 0
			for _, b := range line.bins {
				due, late = due+b.due, late+b.late
			}
			if late != c.late || due != c.due {
				t.Errorf("%d of %d late, want %d of %d", late, due, c.late, c.due)
			}
			if want := (c.frames + 499) / 500; len(line.bins) < want {
				t.Errorf("%d parts of 10 s, want %d", len(line.bins), want)
			}
		})
	}
}

func TestSeriesWithoutAFrame(t *testing.T) {
	s := series{on: true, into: &timeline{every: 1e9}}
	if s.end(5e9) != 0 || len(s.into.bins) != 0 {
		t.Error("frames were due that had no beginning")
	}
}
