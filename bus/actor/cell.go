package actor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
)

// releaseTimeout bounds giving a lease back at the end of an actor.
const releaseTimeout = time.Second

// cell is one actor: its mailbox and the goroutine that empties it.
type cell[S any] struct {
	r    *Registry[S] // fixed
	addr string       // fixed
	wake chan struct{}
	done chan struct{} // closed when the goroutine has ended
	ctx  context.Context
	end  context.CancelFunc

	// of the goroutine alone
	state    S
	started  bool
	restarts []time.Time
	lease    *Lease

	mu     sync.Mutex
	queue  []message[S] // waiting, oldest first from head on
	head   int
	closed bool // nothing is taken any more
	used   time.Time
	timer  Timer
}

func newCell[S any](r *Registry[S], addr string) *cell[S] {
	c := &cell[S]{r: r, addr: addr, wake: make(chan struct{}, 1), done: make(chan struct{}), used: r.spec.Clock.Now()}
	c.ctx, c.end = context.WithCancel(context.WithValue(r.ctx, leaseKey{}, &c.lease))
	if r.spec.Idle > 0 {
		c.timer = r.spec.Clock.AfterFunc(r.spec.Idle, c.idle)
	}
	return c
}

// push takes a message: errEnded when the actor ends, ErrBusy when it is full.
func (c *cell[S]) push(m message[S]) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errEnded
	}
	if len(c.queue)-c.head >= c.r.spec.Mailbox {
		c.mu.Unlock()
		return contract.ErrBusy.With("%s %s has too much to do; try again", c.r.spec.Name, c.addr)
	}
	c.queue = append(c.queue, m)
	c.mu.Unlock()
	c.signal()
	return nil
}

func (c *cell[S]) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// pop returns the oldest message; ok is false when there is none, last when there
// will be none either.
func (c *cell[S]) pop() (m message[S], ok, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head == len(c.queue) {
		if c.r.spec.Idle > 0 {
			c.used = c.r.spec.Clock.Now()
		}
		return m, false, c.closed
	}
	m, c.queue[c.head] = c.queue[c.head], message[S]{}
	if c.head++; c.head == len(c.queue) {
		c.queue, c.head = c.queue[:0], 0
	} else if c.head >= 64 && c.head*2 >= len(c.queue) {
		n := copy(c.queue, c.queue[c.head:]) // keep the array bounded by the mailbox
		clear(c.queue[n:])
		c.queue, c.head = c.queue[:n], 0
	}
	return m, true, false
}

// unpop puts back what pop returned last.
func (c *cell[S]) unpop(m message[S]) {
	c.mu.Lock()
	c.queue = slices.Insert(c.queue, c.head, m)
	c.mu.Unlock()
}

// close lets the actor end after what waits.
func (c *cell[S]) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
}

// idle is the passivation timer: it closes an actor that has done nothing for
// Spec.Idle, else it arms itself for what is left of it.
func (c *cell[S]) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	left := c.r.spec.Idle - c.r.spec.Clock.Now().Sub(c.used)
	if c.head != len(c.queue) {
		left = c.r.spec.Idle
	}
	if left > 0 {
		c.timer = c.r.spec.Clock.AfterFunc(left, c.idle)
		return
	}
	c.closed = true
	c.signal()
}

// loop is the actor's goroutine. after, when not nil, is the end of the one that
// had the address before.
func (c *cell[S]) loop(after <-chan struct{}) {
	defer c.r.wg.Done()
	defer close(c.done)
	defer c.end()
	if after != nil {
		<-after
	}
	err := c.serve()
	c.mu.Lock()
	c.closed = true
	rest := c.queue[c.head:]
	c.queue, c.head = nil, 0
	timer := c.timer
	c.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	// Stopped before it leaves: its successor, which waits for done, must find
	// what Stop wrote.
	if c.started && c.r.spec.Stop != nil && !errors.Is(err, errIntensity) {
		if perr := guard(func() { c.r.spec.Stop(c.ctx, c.addr, c.state) }); perr != nil {
			c.log("actor's stop panicked", perr)
		}
	}
	c.giveBack()
	// Out of the registry before the answers: who tries again must find either
	// a new actor or the refusal, not this one.
	c.r.leave(c, err)
	refusal := err
	if _, ok := errors.AsType[*contract.Error](err); !ok {
		refusal = contract.ErrUnavailable
	}
	for _, m := range rest {
		m.fail(refusal)
	}
	if c.r.spec.Ended != nil {
		if perr := guard(func() { c.r.spec.Ended(c.addr, err) }); perr != nil {
			c.log("actor's end panicked", perr)
		}
	}
}

func (c *cell[S]) log(what string, err error) {
	c.r.spec.Log.Error(what, zap.String("actor", c.r.spec.Name+"/"+c.addr), zap.Error(err))
}

// serve runs messages until the actor is closed (nil) or has failed.
func (c *cell[S]) serve() error {
	for {
		m, ok, last := c.pop()
		switch {
		case ok && c.ctx.Err() != nil:
			m.fail(contract.ErrUnavailable)
			continue
		case ok:
		case last:
			return nil
		default:
			select {
			case <-c.wake:
			case <-c.ctx.Done():
				return c.ctx.Err()
			}
			continue
		}
		if err := c.ensure(); err != nil {
			c.unpop(m) // it is answered like those behind it, once the actor has left
			return err
		}
		if perr := guard(func() { m.run(c.ctx, c.state) }); perr != nil {
			c.log("actor panicked", perr)
			m.fail(contract.ErrInternal)
			if err := c.restart(); err != nil {
				return err
			}
		}
	}
}

// ensure starts the actor when it has no state.
func (c *cell[S]) ensure() error {
	if c.started {
		return nil
	}
	err := c.claim()
	if err != nil {
		return err
	}
	perr := guard(func() { c.state, err = c.r.spec.Start(c.ctx, c.addr) })
	if perr != nil {
		c.log("actor's start panicked", perr)
		err = contract.ErrInternal
	}
	c.started = err == nil
	return err
}

// claim takes the lease, if there is to be one and it is not held yet, and ends
// the actor's context when it is lost.
func (c *cell[S]) claim() (err error) {
	if c.r.spec.Lease == nil || c.lease != nil {
		return nil
	}
	perr := guard(func() { c.lease, err = c.r.spec.Lease(c.ctx, c.addr) })
	if perr != nil {
		c.log("taking the lease panicked", perr)
		return contract.ErrInternal
	}
	if err != nil {
		return err
	}
	go func() { // ends with the actor: giveBack closes Lost
		<-c.lease.Lost()
		c.end()
	}()
	return nil
}

// giveBack releases the lease.
func (c *cell[S]) giveBack() {
	if c.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), releaseTimeout)
	defer cancel()
	if err := c.lease.Release(ctx); err != nil {
		c.r.spec.Log.Info("lease not given back; it ends by itself", zap.String("actor", c.r.spec.Name+"/"+c.addr), zap.Error(err))
	}
}

// restart forgets the state; the next message loads it anew.
func (c *cell[S]) restart() error {
	var zero S
	c.state, c.started = zero, false
	now := c.r.spec.Clock.Now()
	keep := c.restarts[:0]
	for _, t := range c.restarts {
		if now.Sub(t) < c.r.spec.Window {
			keep = append(keep, t)
		}
	}
	c.restarts = append(keep, now)
	if len(c.restarts) > max(c.r.spec.Restarts, 0) {
		return errIntensity
	}
	return nil
}
