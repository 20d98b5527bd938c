package actor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

// bucket is a Bucket in memory that lives by a fake clock and can be cut off.
type bucket struct {
	clock *actor.FakeClock

	mu       sync.Mutex
	seq      uint64
	keys     map[string]entry
	down     bool
	writes   int
	loseAcks bool // a write has its effect, its answer is lost
	wrote    chan struct{}
}

type entry struct {
	value []byte
	seq   uint64
	until time.Time
}

func newBucket(c *actor.FakeClock) *bucket {
	return &bucket{clock: c, keys: map[string]entry{}, wrote: make(chan struct{}, 64)}
}

// again is what a restart of the bus does to a bucket in memory.
func (b *bucket) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq, b.keys, b.down = b.seq+1000, map[string]entry{}, false
}

func (b *bucket) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *bucket) Get(_ context.Context, key string) ([]byte, uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, 0, contract.ErrUnavailable
	}
	e, ok := b.keys[key]
	if !ok || !b.clock.Now().Before(e.until) {
		return nil, 0, contract.ErrNotFound
	}
	return e.value, e.seq, nil
}

func (b *bucket) Update(_ context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { b.wrote <- struct{}{} }()
	b.writes++
	if b.down {
		return 0, contract.ErrUnavailable
	}
	e := b.keys[key]
	if !b.clock.Now().Before(e.until) {
		e = entry{}
	}
	if e.seq != revision {
		return 0, contract.ErrStale
	}
	b.seq++
	b.keys[key] = entry{value, b.seq, b.clock.Now().Add(ttl)}
	if b.loseAcks {
		b.loseAcks = false
		return 0, contract.ErrTimeout
	}
	return b.seq, nil
}

// tick lets one renewal of every holder fall due and waits for n writes.
func (b *bucket) tick(t *testing.T, n, holders int) {
	t.Helper()
	for b.clock.Timers() < holders { // armed by the renewals' goroutines
		if t.Context().Err() != nil {
			t.Fatal("no renewal is armed")
		}
	}
	b.clock.Advance(2 * time.Second)
	for range n {
		select {
		case <-b.wrote:
		case <-time.After(5 * time.Second):
			t.Fatal("no renewal came")
		}
	}
}

func spec(c actor.Clock, owner, instance string, loss actor.LossPolicy) actor.LeaseSpec {
	return actor.LeaseSpec{Owner: owner, Instance: instance, TTL: 6 * time.Second, Loss: loss, Clock: c}
}

func acquire(t *testing.T, b *bucket, s actor.LeaseSpec) *actor.Lease {
	t.Helper()
	l, err := actor.Acquire(t.Context(), b, "room.main", s)
	if err != nil {
		t.Fatal(err)
	}
	<-b.wrote
	t.Cleanup(func() {
		if err := l.Release(context.Background()); err != nil && !errors.Is(err, contract.ErrUnavailable) {
			t.Error(err)
		}
	})
	return l
}

func isLost(l *actor.Lease) bool {
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

func mustLose(t *testing.T, l *actor.Lease) {
	t.Helper()
	select {
	case <-l.Lost():
	case <-time.After(5 * time.Second):
		t.Fatal("the lease is still held")
	}
}

func TestLeaseIsHeldByOne(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	one := acquire(t, b, spec(c, "a", "a1", actor.YieldOnLoss))
	if _, err := actor.Acquire(t.Context(), b, "room.main", spec(c, "b", "b1", actor.YieldOnLoss)); !errors.Is(err, contract.ErrExists) {
		t.Fatalf("a second owner: %v", err)
	}
	for range 10 { // longer than the time to live
		b.tick(t, 1, 2)
	}
	if isLost(one) {
		t.Fatal("lost while it was renewed")
	}
	if err := one.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-b.wrote
	two := acquire(t, b, spec(c, "b", "b1", actor.YieldOnLoss))
	if two.Epoch() <= one.Epoch() {
		t.Fatalf("epoch %d after %d", two.Epoch(), one.Epoch())
	}
}

func TestNewInstanceOfAnOwnerTakesOverAtOnce(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	old := acquire(t, b, spec(c, "a", "a1", actor.KeepOnLoss))
	young := acquire(t, b, spec(c, "a", "a2", actor.KeepOnLoss))
	if young.Epoch() <= old.Epoch() {
		t.Fatalf("epoch %d after %d", young.Epoch(), old.Epoch())
	}
	b.tick(t, 2, 2)
	mustLose(t, old)
	if isLost(young) {
		t.Fatal("the newer one lost it")
	}
}

func TestYieldStopsBeforeTheLeaseEnds(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	l := acquire(t, b, spec(c, "a", "a1", actor.YieldOnLoss))
	b.set(func() { b.down = true })
	b.tick(t, 1, 2)
	b.tick(t, 1, 2) // 4 s: one more try fails
	if isLost(l) {
		t.Fatal("given up too early")
	}
	c.Advance(600 * time.Millisecond) // 4.6 s of 6: the margin has begun
	mustLose(t, l)
	if err := l.Release(t.Context()); err != nil { // the try that was under way has ended
		t.Fatal(err)
	}
	b.set(func() { b.down = false })
	before := b.writes
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.writes != before {
		t.Fatal("a lost lease was written to")
	}
}

func TestKeepOutlivesTheBus(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	l := acquire(t, b, spec(c, "a", "a1", actor.KeepOnLoss))
	first := l.Epoch()
	b.set(func() { b.down = true })
	for range 10 {
		b.tick(t, 1, 1)
	}
	if isLost(l) {
		t.Fatal("lost with the bus")
	}
	b.again()
	b.tick(t, 2, 1) // refused by the new bucket, then taken again
	for l.Epoch() == first && t.Context().Err() == nil {
		if isLost(l) {
			t.Fatal("lost when the bus came back")
		}
	}
	if l.Epoch() < first {
		t.Fatalf("epoch fell from %d to %d", first, l.Epoch())
	}
}

func TestKeepYieldsToWhoHoldsIt(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	l := acquire(t, b, spec(c, "a", "a1", actor.KeepOnLoss))
	b.again()
	other := acquire(t, b, spec(c, "b", "b1", actor.KeepOnLoss))
	b.tick(t, 2, 2)
	mustLose(t, l)
	if isLost(other) {
		t.Fatal("both lost it")
	}
}

func TestLostAnswerIsNoLostLease(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	l := acquire(t, b, spec(c, "a", "a1", actor.YieldOnLoss))
	b.set(func() { b.loseAcks = true })
	b.tick(t, 1, 2)
	b.tick(t, 2, 2) // stale, read, written anew
	for range 5 {
		b.tick(t, 1, 2)
	}
	if isLost(l) {
		t.Fatal("lost")
	}
}

func TestLeaseOnTheRealBus(t *testing.T) {
	s := bustest.Start(t)
	conn := s.Conn("conference")
	kv := conn.KV(contract.BucketLeases)
	take := func(owner, instance string) (*actor.Lease, error) {
		return actor.Acquire(t.Context(), kv, "conference.room.main",
			actor.LeaseSpec{Owner: owner, Instance: instance, TTL: 2 * time.Second, Loss: actor.KeepOnLoss})
	}
	one, err := take("a", "a1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take("b", "b1"); !errors.Is(err, contract.ErrExists) {
		t.Fatalf("a second owner: %v", err)
	}
	first := one.Epoch()
	s.Restart() // the bucket is in memory: it comes back empty
	deadline, poll := time.After(10*time.Second), time.NewTicker(10*time.Millisecond)
	defer poll.Stop()
	for one.Epoch() <= first {
		select {
		case <-one.Lost():
			t.Fatal("lost when the bus came back")
		case <-deadline:
			t.Fatal("not taken again after the bus came back")
		case <-poll.C:
		}
	}
	if err := one.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	two, err := take("b", "b1")
	if err != nil {
		t.Fatal(err)
	}
	if two.Epoch() <= one.Epoch() {
		t.Fatalf("epoch %d after %d", two.Epoch(), one.Epoch())
	}
	if err := two.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestActorRunsUnderItsLease(t *testing.T) {
	c := actor.NewFakeClock(time.Unix(1000, 0))
	b := newBucket(c)
	ended := make(chan error, 1)
	r := registry(t, actor.Spec[*counter]{
		Clock: c,
		Lease: func(ctx context.Context, addr string) (*actor.Lease, error) {
			return actor.Acquire(ctx, b, addr, spec(c, "a", "a1", actor.YieldOnLoss))
		},
		Stop: func(ctx context.Context, _ string, _ *counter) {
			if ctx.Err() == nil {
				t.Error("stopped as if the lease were held")
			}
		},
		Ended: func(_ string, err error) { ended <- err },
	})
	epoch, err := actor.Ask(t.Context(), r, "main", func(ctx context.Context, _ *counter) (uint64, error) { return actor.Epoch(ctx), nil })
	if err != nil || epoch == 0 {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	if _, err := actor.Acquire(t.Context(), b, "main", spec(c, "b", "b1", actor.YieldOnLoss)); !errors.Is(err, contract.ErrExists) {
		t.Fatalf("the lease is free: %v", err)
	}
	b.set(func() { b.down = true })
	c.Advance(5 * time.Second)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v", err)
	}
	if _, err := actor.Ask(t.Context(), r, "main", add); !errors.Is(err, contract.ErrUnavailable) {
		t.Fatalf("an actor without a lease answered: %v", err)
	}
}
