package actor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
)

// Defaults of a Spec.
const (
	DefaultMailbox  = 256
	DefaultRestarts = 5
	DefaultWindow   = 30 * time.Second
)

// Spec says what the actors of one kind are. S is usually a pointer.
type Spec[S any] struct {
	Name string // kind, for the log: "room"
	// Start makes the state of an address: at its first message, and again
	// after a panic or passivation. Its error answers every message that waits.
	// ctx lives as long as the actor.
	Start func(ctx context.Context, addr string) (S, error)
	// Stop is called when the actor ends: passivation, Stop or Close. Not
	// after a panic: the state is then not to be trusted. May be nil.
	Stop func(ctx context.Context, addr string, s S)
	// Ended is told when an actor has left memory; err is why when it was not
	// asked to. It is called on the actor's goroutine. May be nil.
	Ended func(addr string, err error)

	// Lease, when not nil, is taken before Start, for as long as the actor is in
	// memory; see [Epoch]. When it is lost the context of handlers ends, what
	// waits is refused with contract.ErrUnavailable, and Stop is called with the
	// context that has ended: it must not write then.
	Lease func(ctx context.Context, addr string) (*Lease, error)

	Mailbox  int           // messages that may wait; DefaultMailbox
	Idle     time.Duration // passivate after this long without a message; 0: never
	Restarts int           // panics allowed within Window; DefaultRestarts; below 0: none
	Window   time.Duration // DefaultWindow
	Clock    Clock         // SystemClock
	Log      *zap.Logger
}

// Registry holds the actors of one kind. It is safe for concurrent use.
type Registry[S any] struct {
	spec Spec[S] // fixed
	ctx  context.Context
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	live   map[string]*cell[S]
	failed map[string]time.Time // until when an address refuses
}

// NewRegistry makes an empty registry; end it with [Registry.Close].
func NewRegistry[S any](spec Spec[S]) *Registry[S] {
	if spec.Mailbox <= 0 {
		spec.Mailbox = DefaultMailbox
	}
	if spec.Restarts == 0 {
		spec.Restarts = DefaultRestarts
	}
	if spec.Window <= 0 {
		spec.Window = DefaultWindow
	}
	if spec.Clock == nil {
		spec.Clock = SystemClock
	}
	if spec.Log == nil {
		spec.Log = zap.NewNop()
	}
	ctx, end := context.WithCancel(context.Background())
	return &Registry[S]{spec: spec, ctx: ctx, end: end, live: map[string]*cell[S]{}, failed: map[string]time.Time{}}
}

// message is one entry of a mailbox. fail answers it when it will not run.
type message[S any] struct {
	run  func(ctx context.Context, s S)
	fail func(err error)
}

// Ask runs fn on the actor's goroutine and returns its answer. It ends early with
// the context's error; fn is then skipped unless it has begun.
func Ask[S, A any](ctx context.Context, r *Registry[S], addr string, fn func(ctx context.Context, s S) (A, error)) (A, error) {
	type answer struct {
		a   A
		err error
	}
	ch := make(chan answer, 1)
	err := r.send(addr, message[S]{
		run: func(own context.Context, s S) {
			if err := ctx.Err(); err != nil {
				return // nobody waits any more
			}
			a, err := fn(own, s)
			ch <- answer{a, err}
		},
		fail: func(err error) { ch <- answer{err: err} },
	})
	var zero A
	if err != nil {
		return zero, err
	}
	select {
	case a := <-ch:
		return a.a, a.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// Tell runs fn on the actor's goroutine some time later. An error says that it
// will not run: contract.ErrBusy for a full mailbox. A message that was taken is
// lost only when Start fails, the actor fails, or the registry closes.
func (r *Registry[S]) Tell(addr string, fn func(ctx context.Context, s S)) error {
	return r.send(addr, message[S]{run: fn, fail: func(err error) {
		r.spec.Log.Warn("message lost", zap.String("actor", r.spec.Name+"/"+addr), zap.Error(err))
	}})
}

// After tells fn to the actor after d, if the address is alive then: a timer
// never wakes a passivated actor.
func (r *Registry[S]) After(addr string, d time.Duration, fn func(ctx context.Context, s S)) Timer {
	return r.spec.Clock.AfterFunc(d, func() {
		r.mu.Lock()
		c := r.live[addr]
		r.mu.Unlock()
		if c == nil {
			return
		}
		if err := c.push(message[S]{run: fn, fail: func(error) {}}); err != nil && !errors.Is(err, errEnded) {
			r.spec.Log.Warn("timer refused", zap.String("actor", r.spec.Name+"/"+addr), zap.Error(err))
		}
	})
}

// Addresses returns the addresses that are in memory, in no order.
func (r *Registry[S]) Addresses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, 0, len(r.live))
	for a := range r.live {
		out = append(out, a)
	}
	return out
}

// Stop ends the actor after the messages that wait and returns when it has left
// memory, or with the context's error. An address that is not alive is no error.
// A later message begins it again.
func (r *Registry[S]) Stop(ctx context.Context, addr string) error {
	r.mu.Lock()
	c := r.live[addr]
	r.mu.Unlock()
	if c == nil {
		return nil
	}
	c.close()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s/%s: %w", r.spec.Name, addr, ctx.Err())
	}
}

// Close refuses new messages with contract.ErrUnavailable, lets the actors work off
// what waits and stops them. When ctx ends first, the contexts of the handlers
// end, what still waits is refused, and Close returns once they have returned.
func (r *Registry[S]) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	for _, c := range r.live {
		c.close()
	}
	r.mu.Unlock()
	idle := make(chan struct{})
	go func() { r.wg.Wait(); close(idle) }()
	defer r.end()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		r.end()
		<-idle
		return fmt.Errorf("%s: %w", r.spec.Name, ctx.Err())
	}
}

// send puts m into the mailbox of addr and begins the actor when it is not alive.
func (r *Registry[S]) send(addr string, m message[S]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return contract.ErrUnavailable
	}
	if until, ok := r.failed[addr]; ok {
		if r.spec.Clock.Now().Before(until) {
			return contract.ErrUnavailable.With("%s %s failed too often and rests until %s", r.spec.Name, addr, until.Format(time.RFC3339))
		}
		delete(r.failed, addr)
	}
	c := r.live[addr]
	var after <-chan struct{}
	if c != nil {
		err := c.push(m)
		if !errors.Is(err, errEnded) {
			return err
		}
		after = c.done // begin again when the one that ends has ended
	}
	c = newCell(r, addr)
	if err := c.push(m); err != nil {
		return err
	}
	r.live[addr] = c
	r.wg.Add(1)
	go c.loop(after)
	return nil
}

type leaseKey struct{}

// Epoch returns the epoch of the lease under which a handler runs, 0 without one.
func Epoch(ctx context.Context) uint64 {
	if l, ok := ctx.Value(leaseKey{}).(**Lease); ok && *l != nil {
		return (*l).Epoch()
	}
	return 0
}

// leave takes c out of the registry, unless its successor is there already.
func (r *Registry[S]) leave(c *cell[S], err error) {
	r.mu.Lock()
	if r.live[c.addr] == c {
		delete(r.live, c.addr)
	}
	if errors.Is(err, errIntensity) {
		r.failed[c.addr] = r.spec.Clock.Now().Add(r.spec.Window)
	}
	r.mu.Unlock()
}

var (
	errEnded     = errors.New("actor has ended")
	errIntensity = errors.New("too many restarts")
)

// guard runs fn and turns a panic into an error that says where it was.
func guard(fn func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	fn()
	return nil
}
