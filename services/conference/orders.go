// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

const (
	orderHands   = 8                      // orders that are sent at once
	orderTime    = 2 * time.Second        // for one order
	orderRetry   = 200 * time.Millisecond // before the next try
	orderTries   = 25                     // then the comparison with the worker's legs has to find it
	busyLegLimit = 3 * time.Second        // a join waits so long for the orders of its leg
)

// orders sends orders to media: one at a time for each leg and in the order in
// which the room gave them, where a later one replaces what still waits. So it holds
// no more than there are legs. Order by leg is what matters: a close that is late
// must not end the leg of somebody who has come back.
type orders struct {
	send func(ctx context.Context, o order) error
	log  *zap.Logger
	m    *metrics

	mu    sync.Mutex
	next  map[string]order // waiting, by leg
	queue []string         // legs that wait and are not under way, oldest first
	busy  map[string]chan struct{}
	wake  chan struct{}
}

type order struct {
	room.Order
	room  string
	epoch uint64
	tries int
}

func newOrders(log *zap.Logger, m *metrics, send func(context.Context, order) error) *orders {
	return &orders{send: send, log: log, m: m, next: map[string]order{}, busy: map[string]chan struct{}{}, wake: make(chan struct{}, orderHands)}
}

// put adds an order; it never waits.
func (q *orders) put(name string, epoch uint64, o room.Order) {
	q.mu.Lock()
	q.putLocked(order{Order: o, room: name, epoch: epoch})
	q.mu.Unlock()
	q.signal()
}

func (q *orders) putLocked(o order) {
	_, waits := q.next[o.Leg]
	q.next[o.Leg] = o
	if _, busy := q.busy[o.Leg]; !waits && !busy {
		q.queue = append(q.queue, o.Leg)
	}
}

func (q *orders) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx ends.
func (q *orders) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range orderHands {
		wg.Go(func() { q.hand(ctx) })
	}
}

func (q *orders) hand(ctx context.Context) {
	for {
		o, ok := q.take()
		if !ok {
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		sctx, cancel := context.WithTimeout(ctx, orderTime)
		err := q.send(sctx, o)
		cancel()
		if err != nil {
			err = q.failed(ctx, &o, err)
		}
		q.done(o, err)
		if ctx.Err() != nil {
			return
		}
	}
}

// failed decides whether an order is tried again (the error) and waits before
// that.
func (q *orders) failed(ctx context.Context, o *order, err error) error {
	e, ok := errors.AsType[*contract.Error](err)
	gone := ok && (e.Code == contract.ErrNotFound.Code || e.Code == contract.ErrGone.Code || e.Code == contract.ErrStale.Code)
	if gone && o.Verb == room.LegClose {
		return nil
	}
	o.tries++
	if gone || o.tries >= orderTries || ctx.Err() != nil {
		q.log.Warn("order to media not carried out", zap.String("room", o.room), zap.String("leg", o.Leg), zap.Int("verb", int(o.Verb)), zap.Error(err))
		return nil
	}
	q.m.orderRetries.Inc()
	select {
	case <-time.After(orderRetry):
	case <-ctx.Done():
	}
	return err
}

func (q *orders) take() (order, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return order{}, false
	}
	id := q.queue[0]
	q.queue = q.queue[1:]
	o := q.next[id]
	delete(q.next, id)
	q.busy[id] = make(chan struct{})
	if len(q.queue) > 0 {
		q.signal()
	}
	return o, true
}

// done ends an order; err: it is tried again, unless a later one waits.
func (q *orders) done(o order, err error) {
	q.mu.Lock()
	close(q.busy[o.Leg])
	delete(q.busy, o.Leg)
	if later, ok := q.next[o.Leg]; ok {
		delete(q.next, o.Leg)
		q.putLocked(later)
	} else if err != nil {
		q.putLocked(o)
	}
	q.mu.Unlock()
	q.signal()
}

// quiet waits until no order of a leg is waiting or under way.
func (q *orders) quiet(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, busyLegLimit)
	defer cancel()
	for {
		q.mu.Lock()
		_, waits := q.next[id]
		under := q.busy[id]
		q.mu.Unlock()
		if !waits && under == nil {
			return nil
		}
		if under == nil { // it begins in a moment
			under = make(chan struct{})
			time.AfterFunc(time.Millisecond, func() { close(under) })
		}
		select {
		case <-under:
		case <-ctx.Done():
			return contract.ErrBusy.With("the media process has not ended the last leg of %s yet; try again", id)
		}
	}
}

// drain waits until nothing is left to send, or ctx ends.
func (q *orders) drain(ctx context.Context) {
	for {
		q.mu.Lock()
		var under chan struct{}
		for _, under = range q.busy {
			break
		}
		left := len(q.next)
		q.mu.Unlock()
		if under == nil && left == 0 {
			return
		}
		if under == nil {
			under = make(chan struct{})
			time.AfterFunc(time.Millisecond, func() { close(under) })
		}
		select {
		case <-under:
		case <-ctx.Done():
			return
		}
	}
}
