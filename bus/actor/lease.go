package actor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
)

// LossPolicy says what a holder does while it cannot reach the bucket of leases.
type LossPolicy int

const (
	// KeepOnLoss holds on until somebody else is seen to hold the lease, and
	// takes it again, with a higher epoch, when it is found empty. It is for a
	// node whose bus is its own: where the bus is gone nobody else can take the
	// lease, and a room must not end because the bus restarts.
	KeepOnLoss LossPolicy = iota
	// YieldOnLoss gives up before the time to live ends, and whenever the lease
	// is found empty. It is for several machines on one bus.
	YieldOnLoss
)

// DefaultTTL of a lease.
const DefaultTTL = 6 * time.Second

// A lease is renewed every TTL/renewPart, and sooner when that failed, after TTL/retryPart; an answer is waited
// for as long as from one renewal to the next. With YieldOnLoss work ends TTL/marginPart before the time to
// live does, counted from when the last renewal that succeeded was sent.
const (
	renewPart  = 6
	retryPart  = 30
	marginPart = 4
)

// Bucket is where leases are; [bus.KV] of contract.BucketLeases is one. Errors are
// *contract.Error: "not_found", "stale_epoch" for a revision that is not the newest.
// Revisions must grow for ever, also when a bucket in memory is made anew: they
// would else tell a former holder that nothing has changed.
type Bucket interface {
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error)
}

// LeaseSpec says who takes a lease and how.
type LeaseSpec struct {
	// Owner is something of which only one lives at a time, such as a process
	// under a supervisor ("conference@host"). A new instance of the same owner
	// takes its lease over at once.
	Owner string
	// Instance is made anew at each start of the owner.
	Instance string
	TTL      time.Duration // whole seconds, at least 2; DefaultTTL
	Loss     LossPolicy
	Clock    Clock
	Log      *zap.Logger
}

// Lease is held from [Acquire] until Release or until Lost is closed. It is safe
// for concurrent use.
type Lease struct {
	bucket Bucket
	key    string
	spec   LeaseSpec

	epoch atomic.Uint64
	lost  chan struct{}
	stop  context.CancelFunc
	done  chan struct{} // the renewals have ended

	mu       sync.Mutex
	revision uint64
	until    time.Time // of the last renewal that succeeded
	isLost   bool
	yield    Timer
}

// held is the value of a key.
type held struct {
	Owner    string `json:"owner,omitempty"` // empty: released
	Instance string `json:"instance,omitempty"`
}

// Acquire takes the lease of key or fails with "exists" when another owner holds
// it. It is then renewed until Release, whatever becomes of ctx.
//
// The epoch is the revision of the write that took the lease, so it grows with each
// change of the holder.
func Acquire(ctx context.Context, b Bucket, key string, spec LeaseSpec) (*Lease, error) {
	if spec.TTL == 0 {
		spec.TTL = DefaultTTL
	}
	if spec.TTL < 2*time.Second || spec.TTL%time.Second != 0 {
		return nil, contract.ErrBadRequest.With("lease %s: a TTL of %s is not in whole seconds from 2 on", key, spec.TTL)
	}
	if spec.Owner == "" || spec.Instance == "" {
		return nil, contract.ErrBadRequest.With("lease %s: owner and instance must be named", key)
	}
	if spec.Clock == nil {
		spec.Clock = SystemClock
	}
	if spec.Log == nil {
		spec.Log = zap.NewNop()
	}
	l := &Lease{bucket: b, key: key, spec: spec, lost: make(chan struct{}), done: make(chan struct{})}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	own, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.renew(own)
	return l, nil
}

// Epoch returns the epoch, which orders carry: who takes orders refuses a lower
// one. With KeepOnLoss it grows when the lease had to be taken again.
func (l *Lease) Epoch() uint64 { return l.epoch.Load() }

// Lost is closed when the holder must have stopped its work.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Release ends the renewals and gives the lease back, so that another owner need
// not wait for its end. A lost lease is left alone: it may be somebody else's.
func (l *Lease) Release(ctx context.Context) error {
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.yield != nil {
		l.yield.Stop()
	}
	if l.isLost {
		return nil
	}
	l.isLost = true
	close(l.lost)
	_, err := l.write(ctx, held{}, l.revision, 2*time.Second)
	if errors.Is(err, contract.ErrStale) {
		return nil // it has expired, or is another's
	}
	return err
}

// take writes the lease for this holder if it is free, its owner's, or expired.
func (l *Lease) take(ctx context.Context) error {
	now, revision, err := l.read(ctx)
	if err != nil {
		return err
	}
	if now.Owner != "" && now.Owner != l.spec.Owner {
		return contract.ErrExists.With("lease %s is held by %s", l.key, now.Owner)
	}
	sent := l.spec.Clock.Now()
	revision, err = l.write(ctx, held{l.spec.Owner, l.spec.Instance}, revision, l.spec.TTL)
	if errors.Is(err, contract.ErrStale) {
		return contract.ErrExists.With("lease %s was taken by somebody else", l.key)
	}
	if err != nil {
		return err
	}
	l.epoch.Store(revision)
	l.renewed(revision, sent)
	return nil
}

func (l *Lease) read(ctx context.Context) (held, uint64, error) {
	raw, revision, err := l.bucket.Get(ctx, l.key)
	if errors.Is(err, contract.ErrNotFound) {
		return held{}, revision, nil
	}
	var h held
	if err != nil {
		return h, 0, err
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, 0, contract.ErrInternal.With("lease %s: %v", l.key, err)
	}
	return h, revision, nil
}

func (l *Lease) write(ctx context.Context, h held, revision uint64, ttl time.Duration) (uint64, error) {
	raw, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("lease %s: %w", l.key, err)
	}
	return l.bucket.Update(ctx, l.key, raw, revision, ttl)
}

// renewed notes a write that succeeded and was sent at that time, and sets the
// time at which a holder that yields must have stopped.
func (l *Lease) renewed(revision uint64, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLost {
		return
	}
	l.revision, l.until = revision, sent.Add(l.spec.TTL)
	if l.spec.Loss != YieldOnLoss {
		return
	}
	if l.yield != nil {
		l.yield.Stop()
	}
	left := l.until.Sub(l.spec.Clock.Now()) - l.spec.TTL/marginPart
	l.yield = l.spec.Clock.AfterFunc(left, func() { l.lose("it could not be renewed in time") })
}

func (l *Lease) lose(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isLost {
		return
	}
	l.isLost = true
	close(l.lost)
	l.stop()
	l.spec.Log.Warn("lease lost", zap.String("key", l.key), zap.String("why", why))
}

// renew writes the lease again and again on a goroutine of its own.
func (l *Lease) renew(ctx context.Context) {
	defer close(l.done)
	every := l.spec.TTL / renewPart
	wait := every
	for {
		due := make(chan struct{})
		t := l.spec.Clock.AfterFunc(wait, func() { close(due) })
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-due:
		}
		try, cancel := context.WithTimeout(ctx, every)
		err := l.renewOnce(try)
		cancel()
		if wait = every; err != nil {
			wait = l.spec.TTL / retryPart
		}
		if err != nil && ctx.Err() == nil {
			l.spec.Log.Info("lease not renewed", zap.String("key", l.key), zap.Error(err))
		}
	}
}

// renewOnce renews, or finds out why it may not. An error means that nothing is
// known: the next round tries again.
func (l *Lease) renewOnce(ctx context.Context) error {
	l.mu.Lock()
	revision := l.revision
	l.mu.Unlock()
	sent := l.spec.Clock.Now()
	revision, err := l.write(ctx, held{l.spec.Owner, l.spec.Instance}, revision, l.spec.TTL)
	if err == nil {
		l.renewed(revision, sent)
		return nil
	}
	if !errors.Is(err, contract.ErrStale) {
		return err
	}
	now, revision, err := l.read(ctx)
	switch {
	case err != nil:
		return err
	case now.Instance == l.spec.Instance:
		// A renewal whose answer was lost. How long it holds is only known
		// from when it was sent, so the next round counts.
		l.mu.Lock()
		l.revision = revision
		l.mu.Unlock()
		return l.again(ctx, revision)
	case now.Owner == l.spec.Owner:
		l.lose("a newer instance of its owner took it")
		return nil
	case now.Owner != "":
		l.lose("it is held by " + now.Owner)
		return nil
	case l.spec.Loss == YieldOnLoss:
		l.lose("it had expired")
		return nil
	default:
		return l.take(ctx)
	}
}

// again renews on a revision that was just read.
func (l *Lease) again(ctx context.Context, revision uint64) error {
	sent := l.spec.Clock.Now()
	revision, err := l.write(ctx, held{l.spec.Owner, l.spec.Instance}, revision, l.spec.TTL)
	if err == nil {
		l.renewed(revision, sent)
	}
	return err
}
