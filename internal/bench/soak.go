package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nuid"
)

// SoakConfig says who comes and goes, and for how long.
type SoakConfig struct {
	Legs       int           // that are in the room, of whom each leaves after a while and another one comes
	Speakers   int           // who stay and speak all the time
	Talk       int           // per cent of the legs that speak as well
	Stay       time.Duration // how long a leg is there on average
	Seconds    int
	Every      time.Duration // between two samples
	Transports []string      // the legs take turns
	// Progress is called now and then with what is being done; nil: never.
	Progress func(what string, done, of int)
}

// Bounds of a [SoakConfig].
const (
	MaxSoakLegs    = 5000
	MaxSoakSeconds = 7 * 24 * 3600
	MinStay        = 2 * time.Second
)

// soakPlaces is how many addresses the legs take turns with.
const soakPlaces = 16000

func (c *SoakConfig) check() error {
	switch {
	case c.Legs < 1 || c.Legs > MaxSoakLegs:
		return fmt.Errorf("%w: legs must be 1 to %d", ErrConfig, MaxSoakLegs)
	case c.Speakers < 1 || c.Speakers > MaxSpeakers:
		return fmt.Errorf("%w: speakers must be 1 to %d, so that there is always something to hear", ErrConfig, MaxSpeakers)
	case c.Talk < 0 || c.Talk > 100:
		return fmt.Errorf("%w: talk must be 0 to 100 per cent", ErrConfig)
	case c.Stay < MinStay:
		return fmt.Errorf("%w: legs must stay for %s or more", ErrConfig, MinStay)
	case c.Seconds < 1 || c.Seconds > MaxSoakSeconds:
		return fmt.Errorf("%w: seconds must be 1 to %d", ErrConfig, MaxSoakSeconds)
	case c.Every < time.Second:
		return fmt.Errorf("%w: samples must be a second apart or more", ErrConfig)
	case len(c.Transports) == 0:
		return fmt.Errorf("%w: there is no transport", ErrConfig)
	}
	for _, t := range c.Transports {
		if err := checkTransport(t); err != nil {
			return err
		}
	}
	if c.Progress == nil {
		c.Progress = func(string, int, int) {}
	}
	return nil
}

// soak is a run.
type soak struct {
	*generator
	cfg    SoakConfig
	node   Node
	name   string
	voices [][]voiceFrame
	line   *timeline
	turns  chan struct{} // of who joins or leaves now

	sum     sync.Mutex // guards what follows
	next    int        // place of the next leg
	made    int
	now     int // legs in the room
	joined  int
	left    int
	failed  int
	why     error // the first failure
	unheard int   // legs that got no frame
	joins   []float64
	sounds  []float64
}

// RunSoak has legs come and go, and measures. When ctx ends the run early, what was measured until then is returned
// once all have left.
func RunSoak(ctx context.Context, cfg SoakConfig, node Node) (*SoakReport, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	g, err := open(soakPlaces)
	if err != nil {
		return nil, err
	}
	defer g.close()
	s := &soak{generator: g, cfg: cfg, node: node, name: nuid.Next()[14:], turns: make(chan struct{}, joinsAtOnce)}
	for k := range max(cfg.Speakers, 8) {
		v, err := voice(k, cfg.Speakers)
		if err != nil {
			return nil, err
		}
		s.voices = append(s.voices, v)
	}
	return s.run(ctx)
}

func (s *soak) run(ctx context.Context) (*SoakReport, error) {
	before, err := s.node.Processes(ctx)
	if err != nil {
		return nil, fmt.Errorf("the node's processes: %w", err)
	}
	began := time.Now()
	s.line = &timeline{start: began.UnixNano(), every: int64(s.cfg.Every)}
	s.measuring.Store(true)

	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // what was interrupted is measured to its end
	defer cancel()
	errs := make(chan error, 2)
	var io, lanes sync.WaitGroup
	io.Go(func() { errs <- s.receive() })
	io.Go(func() { errs <- s.send(run) })
	stop := func() { cancel(); lanes.Wait(); s.stop(); io.Wait() }
	defer stop()

	staying, leaveAll := context.WithCancel(run)
	defer leaveAll()
	for k := range s.cfg.Speakers {
		lanes.Go(func() { s.stay(staying, k) })
	}
	for k := range s.cfg.Legs {
		lanes.Go(func() { s.lane(staying, k) })
	}
	samples, err := s.watch(ctx, began, before, errs)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	s.cfg.Progress("leaving", 0, 0)
	leaveAll()
	lanes.Wait()
	stop()
	after, err := s.settled(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	r := s.report(before, samples, after)
	if ctx.Err() != nil {
		r.Interrupted, r.Seconds = true, int(took.Seconds())
	}
	return r, nil
}

// watch takes samples until the end of the run, or until ctx ends it.
func (s *soak) watch(ctx context.Context, began time.Time, before []Process, errs <-chan error) ([]Sample, error) {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	end := time.NewTimer(time.Duration(s.cfg.Seconds) * time.Second)
	defer end.Stop()
	var out []Sample
	last, lastAt := before, began
	for {
		s.cfg.Progress("measuring", int(time.Since(began).Seconds()), s.cfg.Seconds)
		select {
		case <-ctx.Done():
			return out, nil
		case err := <-errs:
			return nil, fmt.Errorf("the load generator stopped: %w", err)
		case <-end.C:
			return out, nil
		case <-tick.C:
		}
		now, at := []Process(nil), time.Now()
		var err error
		if now, err = s.node.Processes(ctx); ctx.Err() != nil {
			return out, nil
		} else if err != nil {
			// A node that is too busy to tell, or is being started again, is what a soak is for.
			s.fail(ctx, fmt.Errorf("no sample: the node's processes: %w", err))
			continue
		}
		out = append(out, s.sample(at.Sub(began).Seconds(), last, now, at.Sub(lastAt).Seconds()))
		last, lastAt = now, at
	}
}

// settleTime is how long the node is given to forget who left.
const settleTime = 5 * time.Second

// settled looks at the processes when all have left.
func (s *soak) settled(ctx context.Context) ([]Process, error) {
	pause(ctx, settleTime)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	p, err := s.node.Processes(ctx)
	if err != nil {
		return nil, fmt.Errorf("the node's processes: %w", err)
	}
	return p, nil
}

// stay is a speaker who is there until ctx ends.
func (s *soak) stay(ctx context.Context, k int) {
	for ctx.Err() == nil {
		l, err := s.enter(ctx, k, s.voices[k])
		if err != nil {
			s.fail(ctx, err)
			pause(ctx, time.Second)
			continue
		}
		<-ctx.Done()
		s.exit(ctx, l, time.Time{})
	}
}

// lane is one place in the room, that one leg has after another.
func (s *soak) lane(ctx context.Context, k int) {
	pause(ctx, time.Duration(rand.Int64N(int64(min(s.cfg.Stay, 20*time.Second)))))
	for n := k; ctx.Err() == nil; n++ {
		var v []voiceFrame
		if rand.IntN(100) < s.cfg.Talk {
			v = s.voices[rand.IntN(len(s.voices))]
		}
		l, err := s.enter(ctx, n, v)
		if err != nil {
			s.fail(ctx, err)
			pause(ctx, time.Second)
			continue
		}
		in := time.Now()
		pause(ctx, min(max(time.Duration(rand.ExpFloat64()*float64(s.cfg.Stay)), MinStay), 10*s.cfg.Stay))
		s.exit(ctx, l, in)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// enter brings a leg in; one without a voice only listens.
func (s *soak) enter(ctx context.Context, n int, v []voiceFrame) (*leg, error) {
	s.sum.Lock()
	for s.slots[s.next].Load() != nil {
		s.next = (s.next + 1) % soakPlaces
	}
	at := s.next
	l, err := newLeg(at, address(s.net, at), fmt.Sprintf("soak-%s-%d", s.name, s.made), v != nil, transports[s.cfg.Transports[n%len(s.cfg.Transports)]])
	if err != nil {
		s.sum.Unlock()
		return nil, err
	}
	s.next = (s.next + 1) % soakPlaces
	s.made++
	s.sum.Unlock()
	l.voice = v
	l.run.on, l.run.into = v == nil, s.line
	s.slots[at].Store(l)
	if err := s.turn(ctx); err != nil {
		s.slots[at].Store(nil)
		return nil, err
	}
	began := time.Now()
	err = s.bring(ctx, s.node, l)
	<-s.turns
	if err != nil {
		_ = s.away(ctx, l) // it may have come in, or not: that there is none is no news
		return nil, err
	}
	s.sum.Lock()
	s.now++
	s.joined++
	s.joins = append(s.joins, 1000*time.Since(began).Seconds())
	s.sum.Unlock()
	s.list(l, true)
	return l, nil
}

// turn waits for its turn.
func (s *soak) turn(ctx context.Context) error {
	select {
	case s.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exit takes a leg out that came in at a time.
func (s *soak) exit(ctx context.Context, l *leg, in time.Time) {
	s.list(l, false)
	until := time.Now()
	first := l.run.end(until.UnixNano())
	s.sum.Lock()
	s.now--
	s.left++
	if l.run.on {
		if first != 0 {
			s.sounds = append(s.sounds, float64(max(0, first-in.UnixNano()))/1e6) // the first frame may come before the answer
		} else if until.Sub(in) >= MinStay {
			s.unheard++
		}
	}
	s.sum.Unlock()
	s.turns <- struct{}{}
	err := s.away(ctx, l)
	<-s.turns
	if err != nil {
		s.fail(context.WithoutCancel(ctx), fmt.Errorf("leaving: %w", err))
	}
}

// away has the node let go of a leg, also when the run is over.
func (s *soak) away(ctx context.Context, l *leg) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	defer s.slots[l.index].Store(nil)
	return s.node.Leave(ctx, l.id)
}

// list takes a leg into the lists of those who are present, or out of them.
func (s *soak) list(l *leg, in bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := &s.listeners
	if l.speaks {
		list = &s.senders
	}
	now := make([]*leg, 0, len(*list)+1)
	for _, o := range *list {
		if o != l {
			now = append(now, o)
		}
	}
	if in {
		now = append(now, l)
	}
	*list = now
}

// fail counts what went wrong while the run went on.
func (s *soak) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // the run has ended meanwhile, and the node's client says so in words of its own
	}
	s.sum.Lock()
	defer s.sum.Unlock()
	s.failed++
	if s.why == nil {
		s.why = err
	}
}
