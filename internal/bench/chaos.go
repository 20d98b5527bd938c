package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Ruin is a node whose processes can be killed.
type Ruin interface {
	Movable
	// Kill ends a process as a crash does, and returns when another is ready in its place.
	Kill(ctx context.Context, process string) error
	// Say writes to the room's chat for a participant, and returns the message's id when it is acknowledged.
	Say(ctx context.Context, participant, body string) (id string, err error)
	// Said returns the ids of the chat's last messages, at least so many.
	Said(ctx context.Context, participant string, last int) (map[string]bool, error)
	// People counts who is in the room.
	People(ctx context.Context) (int, error)
}

// Lab is a node on several machines, whose networks can be cut.
type Lab interface {
	Ruin
	// Net is the /16 in which the legs are, Groups how many parts of it are near to a worker each.
	Net() [2]byte
	Groups() int
	// Cut cuts a machine off by itself ([Machine]), or from the other machines alone ([Split]). heal ends that, and
	// returns when all machines work together again.
	Cut(ctx context.Context, what string) (heal func(context.Context) error, err error)
}

// Steps that are no process.
const (
	Machine = "machine" // a machine with a worker and a server of the bus is cut off from everybody
	Split   = "split"   // it is cut off from the other machines, and the legs reach both
	Leader  = "leader"  // the server of the bus is killed that leads the others
	Bad     = "weather" // nobody is killed: datagrams of the legs are lost and come late
)

// ofLab reports whether a step is one that a [Lab] can do, and no other node.
func ofLab(step string) bool { return step == Machine || step == Split || step == Leader }

// IsProcess reports whether a step is to kill the node's process of that name.
func IsProcess(step string) bool { return !ofLab(step) && step != Bad }

// NeedsLab reports whether one of the steps is of several machines.
func NeedsLab(steps []string) bool { return slices.ContainsFunc(steps, ofLab) }

// Chaos says what to do to the node.
type Chaos struct {
	Legs      int // the speakers among them
	Speakers  int
	Transport string
	Steps     []string // processes to kill, and [Machine] to [Bad], one after the other
	Times     int      // how often each
	Weather   Weather  // of [Bad]
	// Progress is as in [Config].
	Progress func(what string, done, of int)

	warm  time.Duration // before the first; 3 s when 0
	watch time.Duration // from a death on; 6 s when 0
}

// Bounds of [Chaos].
const (
	MaxTimes  = 1000
	MaxKills  = 16
	MaxJitter = time.Second
)

// ChaosReport is the result. Scripts rely on the names.
type ChaosReport struct {
	Legs      int         `json:"legs"`
	Speakers  int         `json:"speakers"`
	Transport string      `json:"transport"`
	Steps     []ChaosStep `json:"steps"`
}

// ChaosStep is what became of everybody when one thing was done Times times. The first step
// does nothing: what is missing then, the machine costs.
type ChaosStep struct {
	Process  string  `json:"process"` // or [Machine] to [Bad]; "nobody" for the first
	Times    int     `json:"times"`
	BackMs   Spread  `json:"back_ms"`           // until another was ready in its place; of a cut, from its end until all work together again
	GapMs    Spread  `json:"gap_ms"`            // the longest gap in the sound of any leg, beyond the 20 ms between frames
	Lost     int     `json:"legs_lost"`         // legs that got nothing at the end, and participants that were gone
	Said     int     `json:"messages"`          // acknowledged by the chat
	Refused  int     `json:"messages_refused"`  // not acknowledged: their senders know
	SaidLost int     `json:"messages_lost"`     // acknowledged and not there
	Legs     Spread  `json:"legs_gap_ms"`       // over all legs and times: the longest gap of each
	Moved    int     `json:"legs_moved"`        // went to another worker
	Stuck    int     `json:"moves_failed"`      // were told to, and could not
	StuckBy  string  `json:"move_failure"`      // why the first could not
	TwoMs    Spread  `json:"two_mixers_ms"`     // over all legs and times: for how long two mixers sent at a time
	Two      int     `json:"legs_two_mixers"`   // legs to which they did for more than a second
	Frames   *Frames `json:"frames,omitempty"`  // where nobody is killed
	Load     float64 `json:"load"`              // as in [Report]
	Noise    bool    `json:"nobody,omitempty"`  // the step that does nothing
	Failed   string  `json:"failure,omitempty"` // why the step ended early
}

// Frames is what became of the frames that were due to the listeners.
type Frames struct {
	Due     int     `json:"due"`
	Heard   float64 `json:"heard"`    // share that came within 100 ms of their listener's clock
	Whole   float64 `json:"whole"`    // or else the next one did, which has their redundancy
	DelayMs Delay   `json:"delay_ms"` // from a speaker's packet to the listener, the weather's included
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
	case len(c.Steps) < 1 || len(c.Steps) > MaxKills:
		return fmt.Errorf("%w: there can be 1 to %d steps", ErrConfig, MaxKills)
	case c.Weather.Loss < 0 || c.Weather.Loss >= 1 || c.Weather.Jitter < 0 || c.Weather.Jitter > MaxJitter:
		return fmt.Errorf("%w: a share of 0 to less than 1 is lost, and jitter is 0 to %s", ErrConfig, MaxJitter)
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
	was := g.last.Load()
	if at <= was {
		return
	}
	if g.last.Store(at); was != 0 && at-was > g.longest.Load() {
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

// Wreck joins, does all steps, watches and leaves. What each costs is in the report; an error is what
// keeps it from being measured.
func Wreck(ctx context.Context, c Chaos, node Ruin) (*ChaosReport, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cfg := Config{Listeners: c.Legs - c.Speakers, Speakers: c.Speakers, Seconds: 1 + int(c.watch/time.Second), Transport: c.Transport, Progress: c.Progress, warm: c.warm, frames: true}
	if lab, ok := node.(Lab); ok {
		if cfg.net, cfg.spread = lab.Net(), lab.Groups(); transports[c.Transport].dtls {
			return nil, fmt.Errorf("%w: legs with ICE try only the first of a machine's addresses: with several machines take %s or %s", ErrConfig, RTP, SRTP)
		}
	} else if NeedsLab(c.Steps) {
		return nil, fmt.Errorf("%w: %s, %s and %s need several machines", ErrConfig, Machine, Split, Leader)
	}
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
	unfollow, err := g.follow(run, node)
	if err != nil {
		return nil, err
	}
	defer unfollow()
	wg.Go(func() { errs <- g.send(run) })
	if err := g.wait(ctx, cfg.warm, "warming up", errs); err != nil {
		return nil, err
	}
	out := &ChaosReport{Legs: c.Legs, Speakers: c.Speakers, Transport: c.Transport}
	for i, what := range append([]string{""}, c.Steps...) {
		s := &ChaosStep{Process: cmp.Or(what, "nobody"), Noise: i == 0}
		g.step(ctx, &c, node, what, s, errs)
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
			id, err := node.Say(ask, c.who, fmt.Sprintf("%s, time %d: %d", process, try+1, n))
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
