package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nuid"
)

// Rooms makes and removes rooms.
type Rooms interface {
	CreateRoom(ctx context.Context, name string) error
	RemoveRoom(ctx context.Context, name string) error
}

// IdleConfig says what is there while nobody speaks.
type IdleConfig struct {
	Silent    int // legs that send encoded silence all the time
	Idle      int // legs that listen and send a packet each 4 s
	Rooms     int // without anybody
	Seconds   int // of each measurement
	Transport string
	// Progress is called now and then with what is being done; nil: never.
	Progress func(what string, done, of int)
}

// MaxRooms bounds [IdleConfig].
const MaxRooms = 20000

// IdleReport is what silence costs. Scripts rely on the names.
type IdleReport struct {
	Seconds   int     `json:"seconds"`
	Transport string  `json:"transport"`
	Phases    []Phase `json:"phases"` // the first one is the node with nobody
}

// Phase is a time with something there. More is against the first phase.
type Phase struct {
	What    string             `json:"what"`
	Count   int                `json:"count"`
	CPUPerS map[string]float64 `json:"cpu_per_s"` // by process
	RSS     map[string]int64   `json:"rss"`       // bytes, at the end
	Cores   float64            `json:"cores"`     // of all processes
	More    float64            `json:"more_cores"`
	MoreRSS int64              `json:"more_rss"`         // bytes, since before the phase
	RestS   float64            `json:"rest_s,omitempty"` // until the node had done what making the rooms began; -1: it had not after [RestTime]
}

// Names of phases.
const (
	PhaseNothing = "nothing"
	PhaseSilent  = "legs that send encoded silence"
	PhaseIdle    = "legs that listen while nobody speaks"
	PhaseRooms   = "rooms without anybody"
)

// RunIdle measures a node with nobody, then each of what cfg asks for, alone.
func RunIdle(ctx context.Context, cfg IdleConfig, node Node, rooms Rooms) (*IdleReport, error) {
	legs := Config{Seconds: cfg.Seconds, Transport: cfg.Transport, Progress: cfg.Progress, Listeners: 1}
	if err := legs.check(); err != nil {
		return nil, err
	}
	if min(cfg.Idle, cfg.Silent, cfg.Rooms) < 0 || max(cfg.Idle, cfg.Silent) > MaxLegs || cfg.Rooms > MaxRooms {
		return nil, fmt.Errorf("%w: legs must be 0 to %d and rooms 0 to %d", ErrConfig, MaxLegs, MaxRooms)
	}
	cfg.Progress = legs.Progress
	r := &IdleReport{Seconds: cfg.Seconds, Transport: cfg.Transport}
	for _, what := range []string{PhaseNothing, PhaseSilent, PhaseIdle, PhaseRooms} {
		var rest float64
		var cpu map[string]float64
		var rss map[string]int64
		count := map[string]int{PhaseSilent: cfg.Silent, PhaseIdle: cfg.Idle, PhaseRooms: cfg.Rooms}[what]
		before, err := node.Processes(ctx)
		if err != nil {
			return nil, fmt.Errorf("the node's processes: %w", err)
		}
		switch {
		case what == PhaseNothing:
			cpu, rss, err = still(ctx, cfg, node)
		case count == 0:
			continue
		case what == PhaseRooms:
			err = withRooms(ctx, cfg, rooms, func() (err error) {
				if rest, err = atRest(ctx, cfg, node, r.Phases[0].Cores); err == nil {
					cpu, rss, err = still(ctx, cfg, node)
				}
				return err
			})
		default:
			c := legs
			c.Listeners, c.Silent = count, 0
			if what == PhaseSilent {
				c.Listeners, c.Silent = 0, count
			}
			var run *Report
			if run, err = Run(ctx, c, node); err == nil {
				cpu, rss = run.CPUPerS, run.RSS
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		p := Phase{What: what, Count: count, CPUPerS: cpu, RSS: rss, RestS: round(rest, 1)}
		for _, v := range cpu {
			p.Cores = round(p.Cores+v, 5)
		}
		for _, v := range rss {
			p.MoreRSS += v
		}
		for _, b := range before {
			p.MoreRSS -= b.RSS
		}
		r.Phases = append(r.Phases, p)
		last := &r.Phases[len(r.Phases)-1]
		last.More = round(last.Cores-r.Phases[0].Cores, 5)
	}
	return r, nil
}

// still measures for the time of a run while nothing is done.
func still(ctx context.Context, cfg IdleConfig, node Node) (cpu map[string]float64, rss map[string]int64, err error) {
	cfg.Progress("waiting until all is quiet", 0, cfg.Seconds)
	pause(ctx, warmUp)
	first, err := node.Processes(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the node's processes: %w", err)
	}
	began := time.Now()
	for n := range cfg.Seconds {
		cfg.Progress("measuring", n, cfg.Seconds)
		pause(ctx, time.Until(began.Add(time.Duration(n+1)*time.Second)))
	}
	last, err := node.Processes(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the node's processes: %w", err)
	}
	cpu, rss = sums(first, last, time.Since(began).Seconds())
	return cpu, rss, nil
}

// RestTime is how long the node is waited for to come to rest, that is to use less than restCores
// beyond what it does with nobody, for restStep.
const (
	RestTime  = 10 * time.Minute
	restStep  = 5 * time.Second
	restCores = 0.03
)

// atRest waits until the node has done what making rooms began, and returns how long that took
// in seconds, -1 when it has not.
func atRest(ctx context.Context, cfg IdleConfig, node Node, idle float64) (float64, error) {
	began := time.Now()
	last, err := node.Processes(ctx)
	for at := began; err == nil && time.Since(began) < RestTime; {
		cfg.Progress("waiting until the node is at rest", int(time.Since(began).Seconds()), int(RestTime.Seconds()))
		pause(ctx, restStep)
		var now []Process
		if now, err = node.Processes(ctx); err != nil {
			break
		}
		cpu, _ := sums(last, now, time.Since(at).Seconds())
		cores := 0.0
		for _, v := range cpu {
			cores += v
		}
		if cores < idle+restCores {
			return at.Sub(began).Seconds(), nil
		}
		last, at = now, time.Now()
	}
	if err != nil {
		return 0, fmt.Errorf("the node's processes: %w", err)
	}
	return -1, nil
}

// withRooms calls fn while the rooms are there.
func withRooms(ctx context.Context, cfg IdleConfig, rooms Rooms, fn func() error) error {
	run := nuid.Next()[14:]
	made := make([]bool, cfg.Rooms)
	each := func(ctx context.Context, what string, of func(ctx context.Context, i int) error) error {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var first error
		next, done := 0, 0
		for range joinsAtOnce {
			wg.Go(func() {
				for {
					mu.Lock()
					i := next
					next++
					end := first != nil || i >= cfg.Rooms
					mu.Unlock()
					if end {
						return
					}
					err := of(ctx, i)
					mu.Lock()
					if err != nil && first == nil {
						first = err
					}
					done++
					cfg.Progress(what, done, cfg.Rooms)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return first
	}
	name := func(i int) string { return fmt.Sprintf("bench-%s-%d", strings.ToLower(run), i) }
	err := each(ctx, "making rooms", func(ctx context.Context, i int) error {
		made[i] = true // also one whose answer is not waited for any more
		return rooms.CreateRoom(ctx, name(i))
	})
	if err == nil {
		err = fn()
	}
	gone, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*leaveTime)
	defer cancel()
	return errors.Join(err, each(gone, "removing rooms", func(ctx context.Context, i int) error {
		if !made[i] {
			return nil
		}
		return rooms.RemoveRoom(ctx, name(i))
	}))
}

// HTML writes a page with the phases. It needs nothing from elsewhere.
func (r *IdleReport) HTML(w io.Writer, node string) error {
	names := map[string]bool{}
	for _, p := range r.Phases {
		for k := range p.CPUPerS {
			names[k] = true
		}
	}
	if err := idlePage.Execute(w, map[string]any{"Node": node, "R": r, "Names": slices.Sorted(maps.Keys(names))}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// MiB is a size for people.
func (Phase) MiB(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }

var idlePage = pageOf("idle", `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Parley: what silence costs</title>
<style>{{template "style"}}</style></head><body>
<h1>What silence costs</h1>
<p>{{.R.Transport}}, {{.R.Seconds}} s each; {{.Node}}. CPU in cores; more is against the node with nobody.</p>
<table><thead><tr><th></th><th>how many</th><th>CPU</th><th>more</th><th>memory, more MiB</th>{{range .Names}}<th>{{.}}</th>{{end}}</tr></thead><tbody>
{{$names := .Names}}{{range $p := .R.Phases}}<tr><td>{{.What}}</td><td>{{.Count}}</td><td>{{printf "%.4f" .Cores}}</td><td>{{printf "%+.4f" .More}}</td><td>{{.MiB .MoreRSS}}</td>{{range $names}}<td>{{printf "%.4f" (index $p.CPUPerS .)}}</td>{{end}}</tr>
{{end}}</tbody></table></body></html>
`)
