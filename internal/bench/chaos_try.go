package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// tries is what the times of a step add up to.
type tries struct {
	back, worst, all, two []float64
	heard, whole          float64
	delays                []float64
}

// step does something as often as is wanted, "" nothing.
func (g *generator) step(ctx context.Context, c *Chaos, node Ruin, what string, s *ChaosStep, errs <-chan error) {
	var t tries
	for try := range c.Times {
		if err := g.try(ctx, c, node, what, try, s, &t, errs); err != nil {
			s.Failed = err.Error()
			break
		}
	}
	s.BackMs, s.GapMs, s.Legs, s.TwoMs, s.Load = spread(t.back), spread(t.worst), spread(t.all), spread(t.two), load()
	if s.Frames != nil {
		s.Frames.Heard, s.Frames.Whole = round(t.heard/float64(max(1, s.Frames.Due)), 5), round(t.whole/float64(max(1, s.Frames.Due)), 5)
		s.Frames.DelayMs = delayOf(t.delays)
	}
}

// try does it once, and looks what became of everybody.
func (g *generator) try(ctx context.Context, c *Chaos, node Ruin, what string, try int, s *ChaosStep, t *tries, errs <-chan error) error {
	if err := g.settle(ctx, node); err != nil {
		return err
	}
	were, err := people(ctx, node)
	if err != nil {
		return err
	}
	for _, l := range g.legs {
		l.gaps.restart()
		l.mixers.longest.Store(0)
	}
	say := g.chatter(ctx, node, cmp.Or(what, "nobody"), try)
	defer say.end()
	lost := map[*leg]bool{}
	progress := fmt.Sprintf("%s, %d of %d", cmp.Or(what, "nobody"), try+1, c.Times)
	began := time.Now()
	watch := func() error {
		err := g.wait(ctx, max(time.Until(began.Add(c.watch)), 2*lostAfter), progress, errs)
		g.silent(lost)
		return err
	}
	switch what {
	case "", Bad:
		err = g.frames(c, what, s, t, watch)
	case Machine, Split:
		err = g.cut(ctx, node.(Lab), what, t, watch) // Wreck has looked
	default:
		kill, cancel := context.WithTimeout(ctx, killWithin)
		err = node.Kill(kill, what)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		t.back = append(t.back, ms(time.Since(began)))
		err = watch()
	}
	if err != nil {
		return err
	}
	now, most := time.Now().UnixNano(), 0.0
	for _, l := range g.legs {
		gap, _ := l.gaps.worst(now)
		two := time.Duration(l.mixers.longest.Load())
		if two > handOver {
			s.Two++
		}
		t.all, t.two, most = append(t.all, ms(gap)), append(t.two, ms(two)), max(most, ms(gap))
	}
	t.worst = append(t.worst, most)
	s.Lost += len(lost)
	say.end()
	s.Refused += say.refused
	s.Said += len(say.acked)
	gone, err := say.lost(ctx)
	if err != nil {
		return err
	}
	s.SaidLost += gone
	left, err := people(ctx, node)
	if err != nil {
		return err
	}
	s.Lost += max(0, were-left)
	done, failed, why := g.moved.take()
	s.Moved, s.Stuck = s.Moved+done, s.Stuck+failed
	if why != nil && s.StuckBy == "" {
		s.StuckBy = why.Error()
	}
	s.Times++
	return nil
}

// silent notes the legs that have got nothing for too long.
func (g *generator) silent(lost map[*leg]bool) {
	now := time.Now().UnixNano()
	for _, l := range g.legs {
		if _, is := l.gaps.worst(now); is {
			lost[l] = true
		}
	}
}

// cut cuts a network, watches, and watches again when that has ended.
func (g *generator) cut(ctx context.Context, lab Lab, what string, t *tries, watch func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*killWithin)
	defer cancel()
	heal, err := lab.Cut(ctx, what)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = watch()
	healed := time.Now()
	if herr := heal(ctx); herr != nil {
		return errors.Join(err, fmt.Errorf("%s: %w", what, herr))
	}
	if err != nil {
		return err
	}
	t.back = append(t.back, ms(time.Since(healed)))
	return watch()
}

// frames watches what becomes of each frame.
func (g *generator) frames(c *Chaos, what string, s *ChaosStep, t *tries, watch func() error) error {
	if what == Bad {
		g.change(newWeather(c.Weather))
		defer g.change(nil)
	}
	g.record.Lock()
	g.marks = nil
	for _, l := range g.listeners {
		l.got = g.room()
	}
	g.sample()
	g.record.Unlock()
	began := time.Now()
	g.measuring.Store(true)
	err := watch()
	g.measuring.Store(false)
	elapsed := time.Since(began).Seconds()
	g.record.Lock() // who notes a packet now has done so
	defer g.record.Unlock()
	if err != nil {
		return err
	}
	if s.Frames == nil {
		s.Frames = new(Frames)
	}
	for _, l := range g.listeners {
		due := int(elapsed*50) - 1
		heard, whole := l.got.heard()
		s.Frames.Due += due
		t.heard += float64(min(due, heard))
		t.whole += float64(min(due, whole))
	}
	delays, err := g.delays(g.listeners)
	t.delays = append(t.delays, delays...)
	return err
}

// inTime is how late a frame may come to who plays it some time after it was sent.
const inTime = 100 * time.Millisecond

// heard counts the frames that came in time, and those of which else the next one did.
func (r *received) heard() (own, whole int) {
	if len(r.ts) == 0 {
		return 0, 0
	}
	clock := slices.Sorted(slices.Values(r.lags))[len(r.lags)/2]
	came := make(map[uint32]bool, len(r.ts))
	for i, ts := range r.ts {
		if time.Duration(r.lags[i]-clock)*time.Microsecond <= inTime {
			came[ts] = true
		}
	}
	for ts := range came {
		if whole++; !came[ts-frameSamples] {
			whole++
		}
	}
	return len(came), whole
}

// settle has legs that have moved come in anew where they were at first, and waits until all have sound.
func (g *generator) settle(ctx context.Context, node Ruin) error {
	for _, l := range g.legs {
		if l.way.Load().to.Addr() == l.home {
			continue
		}
		home := l.home
		ask, cancel := context.WithTimeout(ctx, askTime)
		err := node.Leave(ask, l.id)
		if err == nil {
			err = g.bring(ask, node, l)
		}
		if err == nil && !l.dtls {
			err = g.keep(l, make([]byte, 0, 256))
		}
		cancel()
		if err != nil {
			return fmt.Errorf("leg %s does not come back: %w", l.id, err)
		}
		l.home = home
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	for {
		quiet := map[*leg]bool{}
		if g.silent(quiet); len(quiet) == 0 {
			g.moved.take()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d legs have no sound: %w", len(quiet), ctx.Err())
		case <-tick.C:
		}
	}
}
