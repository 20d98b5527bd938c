package bench

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Ruin is a node whose processes can be killed.
type Ruin interface {
	Node
	// Kill ends a process as a crash does, and returns when another is ready in its place.
	Kill(ctx context.Context, process string) error
	// Say writes to the room's chat for a participant, and returns the message's id when it is acknowledged.
	Say(ctx context.Context, participant, body string) (id string, err error)
	// Said returns the ids of the chat's last messages, at least so many.
	Said(ctx context.Context, participant string, last int) (map[string]bool, error)
	// People counts who is in the room.
	People(ctx context.Context) (int, error)
}

// Chaos says what to kill.
type Chaos struct {
	Legs      int // the speakers among them
	Speakers  int
	Transport string
	Kill      []string // processes, one after the other
	Times     int      // how often each
	// Progress is as in [Config].
	Progress func(what string, done, of int)

	warm  time.Duration // before the first; 3 s when 0
	watch time.Duration // from a death on; 6 s when 0
}

// Bounds of [Chaos].
const (
	MaxTimes = 1000
	MaxKills = 16
)

// ChaosReport is the result. Scripts rely on the names.
type ChaosReport struct {
	Legs      int         `json:"legs"`
	Speakers  int         `json:"speakers"`
	Transport string      `json:"transport"`
	Steps     []ChaosStep `json:"steps"`
}

// ChaosStep is what became of everybody when one process was killed Times times. The first step
// kills nobody: what is missing then, the machine costs.
type ChaosStep struct {
	Process  string `json:"process"` // "nobody" for the first
	Times    int    `json:"times"`
	BackMs   Spread `json:"back_ms"`           // until another was ready in its place
	GapMs    Spread `json:"gap_ms"`            // the longest gap in the sound of any leg, beyond the 20 ms between frames
	Lost     int    `json:"legs_lost"`         // legs that got nothing at the end, and participants that were gone
	Said     int    `json:"messages"`          // acknowledged by the chat
	Refused  int    `json:"messages_refused"`  // not acknowledged: their senders know
	SaidLost int    `json:"messages_lost"`     // acknowledged and not there
	Legs     Spread `json:"legs_gap_ms"`       // over all legs and times: the longest gap of each
	Noise    bool   `json:"nobody,omitempty"`  // the step that kills nobody
	Failed   string `json:"failure,omitempty"` // why the step ended early
}

// Times of a step: between two messages (five a second are allowed), after which a leg without a
// packet counts as lost, for what is asked of the node, and for a message: a post that reached a
// process which died then is not answered.
const (
	sayEvery   = 250 * time.Millisecond
	lostAfter  = time.Second
	watched    = 6 * time.Second
	askTime    = 10 * time.Second
	sayTime    = 2 * time.Second
	killWithin = time.Minute
)

func (c *Chaos) check() error {
	switch {
	case c.Speakers < 1 || c.Speakers > MaxSpeakers:
		return fmt.Errorf("%w: speakers must be 1 to %d", ErrConfig, MaxSpeakers)
	case c.Legs <= c.Speakers || c.Legs > MaxLegs:
		return fmt.Errorf("%w: legs must be more than the speakers, and at most %d", ErrConfig, MaxLegs)
	case c.Times < 1 || c.Times > MaxTimes:
		return fmt.Errorf("%w: times must be 1 to %d", ErrConfig, MaxTimes)
	case len(c.Kill) < 1 || len(c.Kill) > MaxKills:
		return fmt.Errorf("%w: 1 to %d processes can be killed", ErrConfig, MaxKills)
	}
	if c.watch == 0 {
		c.watch = watched
	}
	return nil
}

// gaps watches the sound of one leg. Receiving notes, another goroutine asks.
type gaps struct {
	last    atomic.Int64 // arrival of the last packet, unix ns; 0: none yet
	longest atomic.Int64 // between two packets, ns
}

func (g *gaps) note(at int64) {
	if was := g.last.Swap(at); was != 0 && at-was > g.longest.Load() {
		g.longest.Store(at - was)
	}
}

// restart forgets the longest gap.
func (g *gaps) restart() { g.longest.Store(0) }

// worst is the longest gap since restart, the one that goes on included, beyond what lies between
// two frames; lost that it goes on for too long.
func (g *gaps) worst(now int64) (gap time.Duration, lost bool) {
	open := now - g.last.Load()
	return max(0, time.Duration(max(g.longest.Load(), open)-frameTime)), open > int64(lostAfter)
}

// Wreck joins, kills, watches and leaves. What a death costs is in the report; an error is what
// keeps it from being measured.
func Wreck(ctx context.Context, c Chaos, node Ruin) (*ChaosReport, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cfg := Config{Listeners: c.Legs - c.Speakers, Speakers: c.Speakers, Seconds: 1, Transport: c.Transport, Progress: c.Progress, warm: c.warm}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	g, err := newGenerator(cfg)
	if err != nil {
		return nil, err
	}
	defer g.close()
	defer g.leave(ctx, node)
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- g.receive() })
	defer func() { cancel(); g.stop(); wg.Wait() }()
	if err := g.join(ctx, node); err != nil {
		return nil, err
	}
	wg.Go(func() { errs <- g.send(run) })
	if err := g.wait(ctx, cfg.warm, "warming up", errs); err != nil {
		return nil, err
	}
	out := &ChaosReport{Legs: c.Legs, Speakers: c.Speakers, Transport: c.Transport}
	for i, process := range append([]string{""}, c.Kill...) {
		s := g.step(ctx, &c, node, process, errs)
		if s.Process = process; i == 0 {
			s.Process, s.Noise = "nobody", true
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out.Steps = append(out.Steps, *s)
		if s.Failed != "" {
			break
		}
	}
	return out, nil
}

// step kills a process as often as is wanted, or nobody.
func (g *generator) step(ctx context.Context, c *Chaos, node Ruin, process string, errs <-chan error) *ChaosStep {
	s := new(ChaosStep)
	var back, worst, all []float64
	for try := range c.Times {
		err := func() error {
			were, err := people(ctx, node)
			if err != nil {
				return err
			}
			for _, l := range g.legs {
				l.gaps.restart()
			}
			say := g.chatter(ctx, node, process, try)
			defer say.end()
			began := time.Now()
			if process != "" {
				kill, cancel := context.WithTimeout(ctx, killWithin)
				err := node.Kill(kill, process)
				cancel()
				if err != nil {
					return fmt.Errorf("%s: %w", process, err)
				}
				back = append(back, ms(time.Since(began)))
			}
			what := fmt.Sprintf("%s killed, %d of %d", cmp.Or(process, "nobody"), try+1, c.Times)
			if err := g.wait(ctx, max(time.Until(began.Add(c.watch)), 2*lostAfter), what, errs); err != nil {
				return err
			}
			now, most := time.Now().UnixNano(), 0.0
			for _, l := range g.legs {
				gap, lost := l.gaps.worst(now)
				if lost {
					s.Lost++
				}
				all, most = append(all, ms(gap)), max(most, ms(gap))
			}
			worst = append(worst, most)
			say.end()
			s.Refused += say.refused
			s.Said += len(say.acked)
			lost, err := say.lost(ctx)
			if err != nil {
				return err
			}
			s.SaidLost += lost
			left, err := people(ctx, node)
			if err != nil {
				return err
			}
			s.Lost += max(0, were-left)
			s.Times++
			return nil
		}()
		if err != nil {
			s.Failed = err.Error()
			break
		}
	}
	s.BackMs, s.GapMs, s.Legs = spread(back), spread(worst), spread(all)
	return s
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func people(ctx context.Context, node Ruin) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	n, err := node.People(ctx)
	if err != nil {
		return 0, fmt.Errorf("who is in the room: %w", err)
	}
	return n, nil
}

// chatter writes to the chat for the first leg until it is ended.
type chatter struct {
	node    Ruin
	who     string
	cancel  context.CancelFunc
	done    sync.WaitGroup
	acked   []string
	refused int
}

func (g *generator) chatter(ctx context.Context, node Ruin, process string, try int) *chatter {
	run, cancel := context.WithCancel(ctx)
	c := &chatter{node: node, who: g.legs[0].id, cancel: cancel}
	c.done.Go(func() {
		tick := time.NewTicker(sayEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			// One that is on its way when the time is up is waited for: it may be acknowledged.
			ask, cancel := context.WithTimeout(ctx, sayTime)
			id, err := node.Say(ask, c.who, fmt.Sprintf("%s killed, time %d: %d", process, try+1, n))
			cancel()
			if err != nil {
				c.refused++
			} else {
				c.acked = append(c.acked, id)
			}
			select {
			case <-run.Done():
				return
			case <-tick.C:
			}
		}
	})
	return c
}

// end stops writing.
func (c *chatter) end() {
	c.cancel()
	c.done.Wait()
}

// lost counts the acknowledged messages that are not there.
func (c *chatter) lost(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	said, err := c.node.Said(ctx, c.who, len(c.acked)+c.refused)
	if err != nil {
		return 0, fmt.Errorf("the chat: %w", err)
	}
	for _, id := range c.acked {
		if !said[id] {
			n++
		}
	}
	return n, nil
}
