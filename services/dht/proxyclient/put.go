package proxyclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Times of puts. A proxy keeps a permanent value for 24 h (§5.1).
const (
	renewEvery = 22 * time.Hour
	renewEarly = 30 * time.Minute // at most, so that not all come at once
	againFirst = 5 * time.Second  // after a failure, doubling
	againLast  = 10 * time.Minute
	seqTime    = 2 * time.Second // for what a value replaces
)

// freshSeqs is from how many sequences the first of a value is drawn when nobody says in
// time which one was the last.
const freshSeqs = 1024

// putFlight is how many values are put anew at once.
const putFlight = 8

// Put stores a value at the proxy's network.
func (n *Node) Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	leave, err := n.enter()
	if err != nil {
		return overlay.Stored{}, err
	}
	defer leave()
	ctx, cancel := n.during(ctx, putTime)
	defer cancel()
	x, before, err := n.keep(v, permanent, time.Time{})
	if err != nil {
		return overlay.Stored{}, err
	}
	peers, err := n.send(ctx, x)
	switch {
	case err == nil:
	case n.ctx.Err() != nil:
		return overlay.Stored{}, overlay.ErrClosed
	case errors.Is(err, overlay.ErrRefused), errors.Is(err, overlay.ErrTooLarge), errors.Is(err, context.Canceled):
		n.undo(x, before)
		return overlay.Stored{}, fmt.Errorf("put: %w", err)
	}
	return overlay.Stored{Value: x.Value, Peers: peers}, nil
}

// Restore takes in permanent values of a process before this one.
func (n *Node) Restore(vs []overlay.Value) error {
	leave, err := n.enter()
	if err != nil {
		return err
	}
	defer leave()
	var errs []error
	for _, v := range vs {
		if _, _, err := n.keep(v, true, time.Now()); err != nil {
			errs = append(errs, fmt.Errorf("value %d: %w", v.ID, err))
		}
	}
	signal(n.kick)
	return errors.Join(errs...)
}

func (n *Node) keep(v overlay.Value, permanent bool, due time.Time) (x, before *owned, err error) {
	if len(v.Data) > overlay.MaxValue {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", overlay.ErrTooLarge, len(v.Data), overlay.MaxValue)
	}
	v.Data = slices.Clone(v.Data)
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.purgeLocked(now)
	if x, before, err = n.own.keep(v, permanent, n.id.ID.String(), now); err != nil {
		return nil, nil, err
	}
	x.due = due
	n.notifyLocked(x.Key)
	return x, before, nil
}

// undo takes a keep back, unless something else was kept since.
func (n *Node) undo(x, before *owned) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.own.get(x.Key, x.ID) != x {
		return
	}
	n.own.remove(x.Key, x.ID)
	if before != nil {
		n.own.set(before)
	}
	n.notifyLocked(x.Key)
}

// purgeLocked forgets own values that have ended.
func (n *Node) purgeLocked(now time.Time) {
	n.own.all(func(x *owned) {
		if !x.permanent && !x.Expires.After(now) {
			n.own.remove(x.Key, x.ID)
			n.notifyLocked(x.Key)
		}
	})
}

// Cancel removes a value.
func (n *Node) Cancel(ctx context.Context, key overlay.Key, id uint64) bool {
	leave, err := n.enter()
	if err != nil {
		return false
	}
	defer leave()
	ctx, cancel := n.during(ctx, putTime)
	defer cancel()
	n.mu.Lock()
	now := time.Now()
	n.purgeLocked(now)
	x, had := n.own.cancel(key, id, now)
	n.notifyLocked(key)
	n.mu.Unlock()
	if x == nil {
		return had
	}
	if _, err := n.send(ctx, x); err != nil && n.ctx.Err() == nil {
		n.log.Warn("cancelled value stays with others until it expires", zap.Error(err))
	}
	return true
}

// send puts a value at a proxy, unless another is in its place. It returns 1 when one
// took it. What fails is due again later, unless it is refused.
func (n *Node) send(ctx context.Context, x *owned) (peers int, err error) {
	select {
	case x.track.turn <- struct{}{}:
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		x.due = time.Now().Add(againFirst)
		signal(n.kick)
		return 0, ctx.Err()
	}
	defer func() { <-x.track.turn }()
	n.mu.Lock()
	mine, sent := n.own.get(x.Key, x.ID) == x, x.sent
	n.mu.Unlock()
	if !mine {
		return 0, nil
	}
	if sent && x.gone && x.wire != nil {
		err = n.release(ctx, x)
	} else {
		err = n.sendOne(ctx, x)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		x.sent, x.fails, x.due = true, 0, time.Time{}
		switch {
		case x.permanent:
			x.due = now.Add(renewEvery - rand.N(renewEarly))
		case x.gone && len(x.track.keepers) > 0:
			x.due = now
		}
		signal(n.kick)
		return 1, nil
	case errors.Is(err, overlay.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		n.log.Debug("value not put; trying again", zap.Error(err))
		err = nil
	}
	x.due = now.Add(backoff(x.fails, againFirst, againLast))
	x.fails++
	signal(n.kick)
	return 0, err
}

// sendOne puts a value, whose turn it is, at the first proxy that takes it.
func (n *Node) sendOne(ctx context.Context, x *owned) error {
	return n.try(ctx, func(ctx context.Context, base string) error {
		if x.wire == nil {
			if !x.track.seen {
				if err := n.lastSeq(ctx, base, x); err != nil {
					return err
				}
			}
			v, err := n.id.Sign(&x.Value, x.track.next, x.gone)
			if err != nil {
				return &finalError{err}
			}
			x.wire = v
			x.track.next++
		}
		if x.permanent {
			x.track.asked(base)
		}
		err := n.post(ctx, base, x.Key, x.wire, x.permanent)
		if err == nil && x.gone {
			x.track.released(base)
		}
		return err
	})
}

// release tells the other proxies that may keep what is gone.
func (n *Node) release(ctx context.Context, x *owned) error {
	var errs []error
	keepers := slices.Clone(x.track.keepers)
	for i, base := range keepers {
		err := n.post(withShare(ctx, len(keepers)-i), base, x.Key, x.wire, false)
		var f *finalError
		if err == nil || errors.As(err, &f) { // it would never take it
			x.track.released(base)
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", base, err))
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", overlay.ErrUnreachable, errors.Join(errs...))
	}
	return nil
}

// lastSeq finds the sequence that follows the last one of a value (§1.7). A network that
// takes its time is not waited for: a sequence that is too low is found out later.
func (n *Node) lastSeq(ctx context.Context, base string, x *owned) error {
	short, cancel := context.WithTimeout(ctx, seqTime)
	defer cancel()
	next := uint16(0)
	_, err := n.fetch(short, base, x.Key, func(f mapping.Found) {
		if f.Writer == x.Writer && f.ID == x.ID {
			next = max(next, f.Seq+1)
		}
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		next, err = rand.N[uint16](freshSeqs), nil
	}
	if err != nil {
		return err
	}
	x.track.next, x.track.seen = next, true
	return nil
}

// staleLocked has an own value signed and put again when the network has another with a
// sequence that is not lower, from a process before this one. It reports whether f is an
// own value.
func (n *Node) staleLocked(f *mapping.Found) bool {
	if f.Writer != n.id.ID.String() {
		return false
	}
	x := n.own.get(f.Key, f.ID)
	if x == nil || x.form != mapping.Signed {
		return false
	}
	select {
	case x.track.turn <- struct{}{}:
	default: // it is being sent
		return true
	}
	defer func() { <-x.track.turn }()
	same := f.Gone == x.gone && f.Type == x.Type && bytes.Equal(f.Data, x.Data)
	if x.wire != nil && f.Seq >= x.wire.Seq && !same && f.Seq < math.MaxUint16 {
		x.track.next = max(x.track.next, f.Seq+1)
		x.wire, x.due = nil, time.Now()
		signal(n.kick)
	}
	return true
}

// keeper puts what is due, and forgets what has ended, until the node does.
func (n *Node) keeper() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		now := time.Now()
		var due []*owned
		next := now.Add(time.Hour)
		n.mu.Lock()
		n.purgeLocked(now)
		n.own.all(func(x *owned) {
			if !x.due.IsZero() && !x.due.After(now) {
				x.due = time.Time{} // send sets the next
				due = append(due, x)
			} else if !x.due.IsZero() && x.due.Before(next) {
				next = x.due
			}
			if !x.permanent && x.Expires.Before(next) {
				next = x.Expires
			}
		})
		n.mu.Unlock()
		n.putAll(due)
		t.Reset(max(time.Until(next), 0))
		select {
		case <-n.ctx.Done():
			return
		case <-n.kick:
		case <-t.C:
		}
	}
}

// putAll puts values and waits for that.
func (n *Node) putAll(due []*owned) {
	var wg sync.WaitGroup
	flight := make(chan struct{}, putFlight)
	for _, x := range due {
		flight <- struct{}{}
		wg.Go(func() {
			defer func() { <-flight }()
			ctx, cancel := n.during(context.Background(), putTime)
			defer cancel()
			if _, err := n.send(ctx, x); err != nil && n.ctx.Err() == nil {
				n.log.Warn("value not put", zap.Error(err))
			}
		})
	}
	wg.Wait()
}
