package bench

import (
	"math"
	"slices"
	"sync"
	"time"
)

const frameTime = int64(20 * time.Millisecond)

// windowFrames is how many frames a listener's clock is taken from: 30 s.
const windowFrames = 1500

// missing marks a frame that has not come.
const missing = math.MinInt32

// series judges the frames of one listener window by window, so that a run of hours
// needs no more memory than one of a minute. Safe for concurrent use.
type series struct {
	on   bool // fixed before the first packet
	into *timeline

	mu      sync.Mutex
	begun   bool
	ended   bool
	ssrc    uint32
	first   int64 // arrival of the first frame, unix ns
	base    int64 // when the window's first frame came, or was due; unix ns
	firstTS uint32
	lags    []int32 // arrival minus base minus RTP time, µs, by frame
}

// note takes a frame that came.
func (s *series) note(at int64, ts, ssrc uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if !s.begun {
		s.begun, s.ssrc, s.first, s.base, s.firstTS = true, ssrc, at, at, ts
	}
	if ssrc != s.ssrc {
		return // of who had the address before
	}
	frame := int(int32(ts-s.firstTS)) / frameSamples
	for frame >= windowFrames {
		s.judge(math.MaxInt64)
		frame -= windowFrames
	}
	if frame < 0 {
		return // its window is over, and it counted as late there
	}
	for len(s.lags) <= frame {
		s.lags = append(s.lags, missing)
	}
	if s.lags[frame] == missing {
		s.lags[frame] = int32((at - s.base - int64(frame)*frameTime) / 1000)
	}
}

// end judges what was due until a time in unix ns; nothing is noted after it. It
// returns when the first frame came, 0 when none did.
func (s *series) end(until int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun && !s.ended {
		for (until-s.base)/frameTime >= windowFrames {
			s.judge(math.MaxInt64)
		}
		s.judge(until)
	}
	s.ended = true
	return s.first
}

// judge counts the window's frames and begins the next one.
func (s *series) judge(until int64) {
	came := make([]int32, 0, len(s.lags))
	for _, v := range s.lags {
		if v != missing {
			came = append(came, v)
		}
	}
	var mid int32
	if len(came) > 0 {
		slices.Sort(came)
		mid = came[len(came)/2]
	}
	clock := s.base + int64(mid)*1000
	for frame := range windowFrames {
		due := clock + int64(frame)*frameTime
		if due+onTimeUs*1000 > until {
			break // it might still have come in time
		}
		good := frame < len(s.lags) && s.lags[frame] != missing && s.lags[frame] >= mid-onTimeUs && s.lags[frame] <= mid+onTimeUs
		s.into.count(due, good)
	}
	s.base += windowFrames * frameTime
	s.firstTS += windowFrames * frameSamples
	s.lags = s.lags[:0]
}

// timeline counts frames by when they were due. Safe for concurrent use.
type timeline struct {
	start int64 // unix ns
	every int64 // ns

	mu   sync.Mutex
	bins []bin
}

type bin struct{ due, late int }

func (t *timeline) count(due int64, good bool) {
	i := int(max(0, due-t.start) / t.every)
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.bins) <= i {
		t.bins = append(t.bins, bin{})
	}
	t.bins[i].due++
	if !good {
		t.bins[i].late++
	}
}
