package bench

import (
	"math"
	"slices"
	"time"
)

// SoakReport is the result of legs that came and went. Scripts rely on the names.
type SoakReport struct {
	Legs       int      `json:"legs"`
	Speakers   int      `json:"speakers"`
	Talk       int      `json:"talk"`
	StayS      float64  `json:"stay_s"`
	Seconds    int      `json:"seconds"`
	EveryS     float64  `json:"every_s"`
	Transports []string `json:"transports"`
	// Interrupted: the run was ended before its time, and Seconds is how long it was.
	Interrupted bool `json:"interrupted,omitempty"`

	Joined  int    `json:"joined"`
	Left    int    `json:"left"`
	Failed  int    `json:"failed"` // joins, leaves and samples that the node refused or did not answer
	Failure string `json:"failure,omitempty"`
	Unheard int    `json:"unheard"` // legs that were there for [MinStay] and got no frame

	Frames    int     `json:"frames"` // that were due to who only listened
	Late      int     `json:"late"`   // of them came late or never
	LatePct   float64 `json:"late_pct"`
	WorstPct  float64 `json:"worst_late_pct"`    // of the worst sample
	Dropped   uint32  `json:"generator_dropped"` // as in [Report]
	Skipped   int64   `json:"generator_skipped"`
	JoinMs    Spread  `json:"join_ms"`  // from the wish to the answer
	SoundMs   Spread  `json:"sound_ms"` // from the answer to the first frame
	Processes []Held  `json:"processes"`

	Samples []Sample `json:"samples"`
}

// Spread is where a half and 99 of 100 lie below, and the most.
type Spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	Of  int     `json:"of"` // how many there were; of none nothing is known
}

// Figures are P50, P99 and Max for people.
func (s Spread) Figures() [3]string {
	return [3]string{known(s.P50, s.Of), known(s.P99, s.Of), known(s.Max, s.Of)}
}

// Held is what a process holds over time. Growth is the slope of a straight line
// through the samples after the first quarter, in which the room fills; nil of a run
// of less than [MinGrowth], which says nothing about an hour.
type Held struct {
	Name             string   `json:"name"`
	RSSBefore        int64    `json:"rss_before"` // bytes
	RSSEnd           int64    `json:"rss_end"`
	RSSAfter         int64    `json:"rss_after"` // when all have left
	RSSGrowth        *float64 `json:"rss_growth_per_hour"`
	GoroutinesBefore int      `json:"goroutines_before"`
	GoroutinesEnd    int      `json:"goroutines_end"`
	GoroutinesAfter  int      `json:"goroutines_after"`
	GoroutinesGrowth *float64 `json:"goroutines_growth_per_hour"`
}

// Sample is a part of the run, as long as EveryS.
type Sample struct {
	At         float64            `json:"at_s"` // its end, since the start
	Legs       int                `json:"legs"`
	Joined     int                `json:"joined"` // until then
	Due        int                `json:"due"`    // frames
	Late       int                `json:"late"`
	CPUPerS    map[string]float64 `json:"cpu_per_s"`
	RSS        map[string]int64   `json:"rss"`
	Heap       map[string]int64   `json:"heap"`
	Goroutines map[string]int     `json:"goroutines"`
	Missed     float64            `json:"ticks_missed"`
	TickMs     float64            `json:"tick_ms"` // on average
	Load       float64            `json:"load"`    // as in [Report]
}

// key names a process: a worker by its name too.
func (p Process) key() string {
	if p.Worker != "" {
		return p.Name + " " + p.Worker
	}
	return p.Name
}

func processOf(list []Process, like Process) Process {
	i := slices.IndexFunc(list, func(q Process) bool { return like.Name == q.Name && like.Worker == q.Worker })
	if i < 0 {
		return Process{}
	}
	return list[i]
}

// used is the CPU between two looks at a process, in cores. elapsed is what passed
// between them where the process does not say.
func used(was, is Process, elapsed float64) float64 {
	if is.At > was.At {
		elapsed = is.At - was.At
	}
	return math.Max(0, is.CPU-was.CPU) / elapsed
}

// sample is how the node is, at seconds after the start; the frames are counted later.
func (s *soak) sample(at float64, last, now []Process, elapsed float64) Sample {
	s.sum.Lock()
	defer s.sum.Unlock()
	o := Sample{At: round(at, 1), Load: load(), Legs: s.now, Joined: s.joined, CPUPerS: map[string]float64{}, RSS: map[string]int64{}, Heap: map[string]int64{}, Goroutines: map[string]int{}}
	var done, spent float64
	for _, p := range now {
		was := processOf(last, p)
		o.CPUPerS[p.key()] = round(used(was, p, elapsed), 4)
		o.RSS[p.key()], o.Heap[p.key()], o.Goroutines[p.key()] = p.RSS, p.Heap, p.Goroutines
		o.Missed += p.Ticks.Missed - was.Ticks.Missed
		done += p.Ticks.Done - was.Ticks.Done
		spent += p.Ticks.Spent - was.Ticks.Spent
	}
	if done > 0 {
		o.TickMs = round(1000*spent/done, 3)
	}
	return o
}

func (s *soak) report(before []Process, samples []Sample, after []Process) *SoakReport {
	s.sum.Lock()
	defer s.sum.Unlock()
	c := s.cfg
	r := &SoakReport{
		Legs: c.Legs, Speakers: c.Speakers, Talk: c.Talk, StayS: c.Stay.Seconds(), Seconds: c.Seconds, EveryS: c.Every.Seconds(), Transports: c.Transports,
		Joined: s.joined, Left: s.left, Failed: s.failed, Unheard: s.unheard, Dropped: s.dropped.Load(), Skipped: s.skipped.Load(),
		JoinMs: spread(s.joins), SoundMs: spread(s.sounds), Processes: []Held{}, Samples: samples,
	}
	if s.why != nil {
		r.Failure = s.why.Error()
	}
	s.line.mu.Lock()
	at := 0
	for i, b := range s.line.bins {
		r.Frames += b.due
		r.Late += b.late
		// The sample that ends with this part, or the next one that there is.
		for at < len(samples)-1 && samples[at].At < float64(i+1)*c.Every.Seconds()-1 {
			at++
		}
		if at < len(samples) && samples[at].At >= float64(i+1)*c.Every.Seconds()-1 {
			samples[at].Due += b.due
			samples[at].Late += b.late
		}
	}
	for _, x := range samples {
		r.WorstPct = math.Max(r.WorstPct, x.LatePct())
	}
	s.line.mu.Unlock()
	r.LatePct, r.WorstPct = round(100*float64(r.Late)/float64(max(1, r.Frames)), 4), round(r.WorstPct, 4)
	var end Sample
	if len(samples) > 0 {
		end = samples[len(samples)-1]
	}
	for _, p := range after {
		k, was := p.key(), processOf(before, p)
		r.Processes = append(r.Processes, Held{
			Name: k, RSSBefore: was.RSS, RSSEnd: end.RSS[k], RSSAfter: p.RSS,
			RSSGrowth:        growth(samples, 0, func(s Sample) float64 { return float64(s.RSS[k]) }),
			GoroutinesBefore: was.Goroutines, GoroutinesEnd: end.Goroutines[k], GoroutinesAfter: p.Goroutines,
			GoroutinesGrowth: growth(samples, 1, func(s Sample) float64 { return float64(s.Goroutines[k]) }),
		})
	}
	return r
}

// LatePct is the share of the sample's frames that came late or never, in per cent.
func (s Sample) LatePct() float64 { return 100 * float64(s.Late) / float64(max(1, s.Due)) }

func spread(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	v = slices.Sorted(slices.Values(v))
	return Spread{P50: round(v[len(v)/2], 2), P99: round(v[len(v)*99/100], 2), Max: round(v[len(v)-1], 2), Of: len(v)}
}

// MinGrowth is the length of a run from which on its growth is told: in less the room still fills.
const MinGrowth = 150 * time.Second

// growth is the slope of samples that go on for long enough, to so many decimals.
func growth(samples []Sample, decimals int, of func(Sample) float64) *float64 {
	if len(samples) == 0 || samples[len(samples)-1].At < MinGrowth.Seconds() {
		return nil
	}
	v := round(slope(samples, of), decimals)
	return &v
}

// slope is how much a figure grows in an hour: the line of the least squares through
// the samples after the first quarter.
func slope(samples []Sample, of func(Sample) float64) float64 {
	samples = samples[len(samples)/4:]
	n := float64(len(samples))
	var sx, sy, sxx, sxy float64
	for _, s := range samples {
		x, y := s.At/3600, of(s)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	d := n*sxx - sx*sx
	if n < 2 || d == 0 {
		return 0
	}
	return (n*sxy - sx*sy) / d
}
