// Package lead runs something on exactly one of several replicas, by a lease that
// somebody else keeps.
package lead

import (
	"context"
	"errors"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// Ask takes or renews the lease, or gives it back, and says who holds it. It has to
// return soon after its context ends.
type Ask func(ctx context.Context, release bool) (*contract.Leased, error)

// Run waits until the lease is held, then runs fn, whose context ends before the
// lease does. When fn returns by itself, the lease is given back and Run returns
// its error; when the lease was lost, Run waits for it again. While nothing runs,
// an answer that cannot change ends Run.
//
// The lease is renewed by this goroutine alone, each quarter of ttl, whatever fn
// does; fn is stopped when half of ttl passed without a renewal, which leaves it the
// other half to end. After a renewal that failed the lease is not given back: it may
// be another's.
func Run(ctx context.Context, ttl time.Duration, ask Ask, fn func(ctx context.Context, l *contract.Leased) error) error {
	tick := time.NewTicker(ttl / 4)
	defer tick.Stop()
	for {
		asked := time.Now()
		l, err := within(ctx, ttl/4, ask, false)
		if e, ok := errors.AsType[*contract.Error](err); ok && !e.Retry {
			return err
		}
		if err == nil && l.Held {
			if lost, err := serve(ctx, ttl, asked, l, ask, tick, fn); !lost {
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

// serve runs fn while the lease is renewed, also after the end of ctx, and waits for
// its end.
func serve(ctx context.Context, ttl time.Duration, renewed time.Time, l *contract.Leased, ask Ask, tick *time.Ticker,
	fn func(context.Context, *contract.Leased) error) (lost bool, err error) {
	work, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- fn(work, l) }()
	ctx = context.WithoutCancel(ctx)
	for sure := true; ; {
		select {
		case err := <-done:
			if lost || !sure {
				return lost, err
			}
			_, e := within(ctx, ttl/4, ask, true)
			return false, errors.Join(err, e)
		case <-tick.C:
		}
		if lost {
			continue // fn was stopped; its end is waited for
		}
		asked := time.Now()
		now, err := within(ctx, ttl/4, ask, false)
		sure = err == nil && now.Held && now.Epoch == l.Epoch
		switch {
		case sure:
			renewed = asked
		case err == nil, time.Since(renewed) > ttl/2:
			lost = true
			stop()
		}
	}
}

func within(ctx context.Context, d time.Duration, ask Ask, release bool) (*contract.Leased, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return ask(ctx, release)
}
