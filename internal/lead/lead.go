// Package lead runs something on exactly one of several replicas, by a lease that
// somebody else keeps.
package lead

import (
	"context"
	"errors"
	"time"
)

// Ask takes or renews the lease, or gives it back, and says whether the asker holds
// it and in which epoch. It has to return soon after its context ends.
type Ask func(ctx context.Context, release bool) (held bool, epoch uint64, err error)

// Run waits until the lease is held, then runs fn, whose context ends before the
// lease does. When fn returns by itself, the lease is given back and Run returns
// its error; when the lease was lost, Run waits for it again. An error of ask is
// final while nothing runs and when fatal says so.
//
// The lease is renewed by this goroutine alone, each quarter of ttl, whatever fn
// does; fn is stopped when half of ttl passed without a renewal, which leaves it the
// other half to end. After a renewal that failed the lease is not given back: it may
// be another's.
func Run(ctx context.Context, ttl time.Duration, ask Ask, fatal func(error) bool, fn func(ctx context.Context, epoch uint64) error) error {
	tick := time.NewTicker(ttl / 4)
	defer tick.Stop()
	for {
		asked := time.Now()
		held, epoch, err := within(ctx, ttl/4, ask, false)
		if err != nil && fatal(err) {
			return err
		}
		if err == nil && held {
			if lost, err := serve(ctx, ttl, asked, epoch, ask, tick, fn); !lost {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// serve runs fn while the lease is renewed and waits for its end.
func serve(ctx context.Context, ttl time.Duration, renewed time.Time, epoch uint64, ask Ask, tick *time.Ticker,
	fn func(context.Context, uint64) error) (lost bool, err error) {
	work, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- fn(work, epoch) }()
	for {
		select {
		case err := <-done:
			if lost {
				return true, nil
			}
			_, _, e := within(context.WithoutCancel(ctx), ttl/4, ask, true)
			return false, errors.Join(err, e)
		case <-tick.C:
		}
		if lost {
			continue // fn was stopped; its end is waited for
		}
		asked := time.Now()
		held, now, err := within(ctx, ttl/4, ask, false)
		switch {
		case err == nil && held && now == epoch:
			renewed = asked
		case ctx.Err() != nil: // fn sees it too
		case err == nil, time.Since(renewed) > ttl/2:
			lost = true
			stop()
		}
	}
}

func within(ctx context.Context, d time.Duration, ask Ask, release bool) (bool, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return ask(ctx, release)
}
