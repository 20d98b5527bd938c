package bench

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	opus "gopkg.in/hraban/opus.v2"
)

// onTimeUs is how far from its listener's clock a frame may come: 20 ms.
const onTimeUs = 20000

func (g *generator) report(before, first, last []Process, elapsed float64) (*Report, error) {
	r := &Report{Listeners: g.cfg.Listeners, Speakers: g.cfg.Speakers, Silent: g.cfg.Silent, Seconds: g.cfg.Seconds, Transport: g.cfg.Transport, Workers: map[string]float64{}}
	r.CPUPerS, r.RSS = sums(first, last, elapsed)
	var grown int64
	for _, p := range last {
		if p.Worker != "" {
			r.Workers[p.Worker] = round(used(processOf(first, p), p, elapsed), 5)
			grown += p.RSS - processOf(before, p).RSS
		}
	}
	for _, used := range r.Workers {
		r.MsPerSecondPerListen += 1000 * used / float64(max(1, g.cfg.Listeners+g.cfg.Silent))
		r.MsPerSecondPerLeg += 1000 * used / float64(len(g.legs))
	}
	r.MsPerSecondPerLeg = round(r.MsPerSecondPerLeg, 4)
	r.MsPerSecondPerListen = round(r.MsPerSecondPerListen, 4)
	r.BytesPerListener = grown / int64(len(g.legs))
	listening := g.listeners
	if len(listening) == 0 {
		listening = g.legs
	}
	onTime, absent := g.onTime(listening, elapsed)
	r.OnTime, r.Absent, r.Dropped, r.Skipped = round(onTime, 6), round(absent, 6), g.dropped.Load(), g.skipped.Load()
	r.Mixer, r.Load = mixer(first, last), load()
	if g.cfg.apart {
		return r, g.each(r, first, last, elapsed)
	}
	delays, err := g.delays(g.legs)
	if err != nil {
		return nil, err
	}
	r.DelayMs = delayOf(delays)
	return r, nil
}

func round(v float64, digits int) float64 {
	p := math.Pow(10, float64(digits))
	return math.Round(v*p) / p
}

// load is the machine's load over the last minute, 0 when the system does not tell.
func load() (l float64) {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), " ")
	l, err = strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return l
}

// each reports on the legs of each address that serves some.
func (g *generator) each(r *Report, first, last []Process, elapsed float64) error {
	r.served = g.apart()
	var all []float64
	for _, s := range r.served {
		a := At{Address: s.address, Legs: len(s.legs), Speaks: s.speaks}
		var listen []*leg
		for _, l := range s.legs {
			if !l.speaks {
				listen = append(listen, l)
			}
		}
		onTime, _ := g.onTime(listen, elapsed)
		var err error
		if s.delays, err = g.delays(s.legs); err != nil {
			return err
		}
		a.OnTime, a.DelayMs = round(onTime, 6), delayOf(s.delays)
		for _, p := range last {
			if p.Worker == "" || p.Host != s.address {
				continue
			}
			was := processOf(first, p)
			a.Worker, a.Cores = p.Worker, round(used(was, p, elapsed), 5)
			a.TrunkOut = round((p.Ticks.TrunkOut-was.Ticks.TrunkOut)/elapsed, 1)
			a.TrunkIn = round((p.Ticks.TrunkIn-was.Ticks.TrunkIn)/elapsed, 1)
		}
		r.at = append(r.at, a)
		all = append(all, s.delays...)
	}
	r.DelayMs = delayOf(all)
	return nil
}

// delayOf sums marks up.
func delayOf(ms []float64) Delay {
	if len(ms) == 0 {
		return Delay{}
	}
	ms = slices.Sorted(slices.Values(ms))
	return Delay{P50: round(ms[len(ms)/2], 2), P99: round(ms[len(ms)*99/100], 2), Found: len(ms)}
}

// sums are CPU in cores and memory at the end, by the names of the processes.
func sums(first, last []Process, elapsed float64) (cpu map[string]float64, rss map[string]int64) {
	cpu, rss = map[string]float64{}, map[string]int64{}
	for _, p := range last {
		cpu[p.Name] = round(cpu[p.Name]+used(processOf(first, p), p, elapsed), 5)
		rss[p.Name] += p.RSS
	}
	return cpu, rss
}

// mixer is what the workers did between two looks.
func mixer(first, last []Process) (m Mixer) {
	var spent, before float64
	for _, p := range last {
		if p.Worker != "" && !p.Told {
			m.Untold = append(m.Untold, p.Worker)
			continue
		}
		was := processOf(first, p).Ticks
		m.Ticks += p.Ticks.Done - was.Done
		m.Missed += p.Ticks.Missed - was.Missed
		m.Refused += p.Ticks.Refused - was.Refused
		spent += p.Ticks.Spent - was.Spent
		m.Shedding += p.Ticks.Shedding
		before += was.Shedding
	}
	m.Shedding = max(m.Shedding, before)
	m.TickMs = round(1000*spent/max(1, m.Ticks), 3)
	return m
}

// onTime is the share of all frames of the run that came on their listener's time, and
// of those that never came.
func (g *generator) onTime(listening []*leg, elapsed float64) (good, absent float64) {
	if g.cfg.Speakers == 0 {
		return 1, 0 // nothing is due
	}
	var due, in, came float64
	for _, l := range listening {
		// The run begins and ends somewhere within a frame.
		want := int(elapsed*50) - 1
		due += float64(want)
		lags := slices.Clone(l.got.lags)
		if len(lags) == 0 {
			continue
		}
		came += float64(min(len(lags), want))
		slices.Sort(lags)
		mid := lags[len(lags)/2]
		n := 0
		for _, v := range lags {
			if v >= mid-onTimeUs && v <= mid+onTimeUs {
				n++
			}
		}
		in += float64(min(n, want))
	}
	due = max(due, 1)
	return in / due, 1 - came/due
}

// searchTime is how long after it was sent a mark is looked for.
const searchTime = 400 * time.Millisecond

// delays decodes the sampled listeners and finds the marks, in ms.
func (g *generator) delays(legs []*leg) ([]float64, error) {
	var out []float64
	for _, l := range legs {
		if !l.got.keep || len(l.got.packets) == 0 {
			continue
		}
		frames, err := l.decode()
		if err != nil {
			return nil, err
		}
		for _, m := range g.marks {
			if at, ok := find(frames, m.at); ok {
				out = append(out, float64(at-m.at-2*int64(LookAhead))/1e6)
			}
		}
	}
	return out, nil
}

// heard is a decoded packet.
type heard struct {
	at  int64
	pcm [frameSamples]float32
}

// decode turns what a listener got into sound; lost packets are concealed.
func (l *leg) decode() ([]heard, error) {
	dec, err := opus.NewDecoder(rate, 1)
	if err != nil {
		return nil, fmt.Errorf("opus decoder: %w", err)
	}
	// On the way some may have passed others.
	slices.SortStableFunc(l.got.packets, func(a, b packet) int { return int(int32(a.ts - b.ts)) })
	var out []heard
	in := l.way.Load().in
	for _, p := range l.got.packets {
		raw := p.raw
		if in != nil {
			if raw, err = in.DecryptRTP(nil, raw, nil); err != nil {
				return nil, fmt.Errorf("what %s got: %w", l.id, err)
			}
		}
		payload := raw[12:]
		h := heard{at: p.at}
		if _, err := dec.DecodeFloat32(payload, h.pcm[:]); err != nil {
			return nil, fmt.Errorf("what %s got: %w", l.id, err)
		}
		out = append(out, h)
	}
	return out, nil
}

// find looks for the chirp in what came since sent, and returns when its first
// sample did. The match must be as clear as an undisturbed chirp's.
func find(frames []heard, sent int64) (int64, bool) {
	from := 0
	for from < len(frames) && frames[from].at < sent {
		from++
	}
	var pcm []float32
	first := from
	for ; from < len(frames) && frames[from].at < sent+int64(searchTime); from++ {
		pcm = append(pcm, frames[from].pcm[:]...)
	}
	best, place := 0.0, -1
	var own float64
	for _, v := range chirp {
		own += float64(v) * float64(v)
	}
	for i := 0; i+chirpLength <= len(pcm); i++ {
		var xy, yy float64 = 0, 1e-9
		for k, v := range chirp {
			y := float64(pcm[i+k])
			xy += float64(v) * y
			yy += y * y
		}
		if c := xy / math.Sqrt(own*yy); c > best {
			best, place = c, i
		}
	}
	if best < 0.5 {
		return 0, false
	}
	return frames[first+place/frameSamples].at + int64(place%frameSamples)*1e9/rate, true
}
