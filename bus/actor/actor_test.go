package actor_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/contract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type counter struct{ n int }

// registry makes one whose states are counters that start at 0; it is closed at
// the end of the test.
func registry(t testing.TB, spec actor.Spec[*counter]) *actor.Registry[*counter] {
	t.Helper()
	if spec.Start == nil {
		spec.Start = func(context.Context, string) (*counter, error) { return &counter{}, nil }
	}
	spec.Name = "counter"
	r := actor.NewRegistry(spec)
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return r
}

func add(ctx context.Context, c *counter) (int, error) { c.n++; return c.n, nil }

func TestMessagesRunInOrder(t *testing.T) {
	r := registry(t, actor.Spec[*counter]{Mailbox: 1000})
	var got []int
	for i := range 1000 {
		if err := r.Tell("a", func(context.Context, *counter) { got = append(got, i) }); err != nil {
			t.Fatal(err)
		}
	}
	n, err := actor.Ask(t.Context(), r, "b", add) // another address has its own state
	if err != nil || n != 1 {
		t.Fatalf("ask b: %d, %v", n, err)
	}
	if err := r.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1000 {
		t.Fatalf("%d of 1000 messages ran", len(got))
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("message %d ran at place %d", v, i)
		}
	}
}

func TestFullMailboxIsBusy(t *testing.T) {
	r := registry(t, actor.Spec[*counter]{Mailbox: 4})
	hold, begun := make(chan struct{}), make(chan struct{})
	if err := r.Tell("a", func(context.Context, *counter) { close(begun); <-hold }); err != nil {
		t.Fatal(err)
	}
	<-begun
	for range 4 {
		if err := r.Tell("a", func(context.Context, *counter) {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Tell("a", func(context.Context, *counter) {}); !errors.Is(err, contract.ErrBusy) {
		t.Fatalf("tell to a full mailbox: %v", err)
	}
	if _, err := actor.Ask(t.Context(), r, "a", add); !errors.Is(err, contract.ErrBusy) {
		t.Fatalf("ask to a full mailbox: %v", err)
	}
	close(hold)
}

func TestAskEndsWithItsContext(t *testing.T) {
	r := registry(t, actor.Spec[*counter]{})
	hold := make(chan struct{})
	if err := r.Tell("a", func(context.Context, *counter) { <-hold }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := actor.Ask(ctx, r, "a", add); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(hold)
	if n, err := actor.Ask(t.Context(), r, "a", add); err != nil || n != 1 {
		t.Fatalf("the abandoned message ran: n=%d, %v", n, err)
	}
}

func TestPanicLoadsAnewAndTooManyEnd(t *testing.T) {
	clock := actor.NewFakeClock(time.Unix(0, 0))
	starts, ended := 0, make(chan error, 4)
	r := registry(t, actor.Spec[*counter]{
		Restarts: 2, Window: time.Minute, Clock: clock,
		Start: func(context.Context, string) (*counter, error) { starts++; return &counter{n: 100}, nil },
		Ended: func(_ string, err error) { ended <- err },
	})
	boom := func(context.Context, *counter) (int, error) { panic("boom") }
	for i := range 2 {
		if _, err := actor.Ask(t.Context(), r, "a", boom); !errors.Is(err, contract.ErrInternal) {
			t.Fatalf("panic %d: %v", i, err)
		}
		if n, err := actor.Ask(t.Context(), r, "a", add); err != nil || n != 101 {
			t.Fatalf("after panic %d: n=%d, %v", i, n, err)
		}
	}
	if _, err := actor.Ask(t.Context(), r, "a", boom); !errors.Is(err, contract.ErrInternal) {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Fatal("the actor ended without a reason")
	}
	if _, err := actor.Ask(t.Context(), r, "a", add); !errors.Is(err, contract.ErrUnavailable) {
		t.Fatalf("a failed actor answered: %v", err)
	}
	if _, err := actor.Ask(t.Context(), r, "b", add); err != nil {
		t.Fatalf("its neighbour: %v", err)
	}
	clock.Advance(time.Minute)
	if n, err := actor.Ask(t.Context(), r, "a", add); err != nil || n != 101 {
		t.Fatalf("after the window: n=%d, %v", n, err)
	}
	if starts != 5 { // a: first, two restarts, after the window; b: one
		t.Fatalf("%d starts", starts)
	}
}

func TestStartErrorAnswersAndIsTriedAgain(t *testing.T) {
	var fail atomic.Bool
	fail.Store(true)
	r := registry(t, actor.Spec[*counter]{Start: func(_ context.Context, addr string) (*counter, error) {
		if fail.Load() {
			return nil, contract.ErrNotFound.With("no room %s", addr)
		}
		return &counter{}, nil
	}})
	if _, err := actor.Ask(t.Context(), r, "a", add); !errors.Is(err, contract.ErrNotFound) {
		t.Fatal(err)
	}
	fail.Store(false)
	if _, err := actor.Ask(t.Context(), r, "a", add); err != nil {
		t.Fatal(err)
	}
}

func TestPassivationSavesAndLoads(t *testing.T) {
	clock := actor.NewFakeClock(time.Unix(0, 0))
	saved, ended := 0, make(chan struct{}, 4)
	r := registry(t, actor.Spec[*counter]{
		Idle: time.Minute, Clock: clock,
		Start: func(context.Context, string) (*counter, error) { return &counter{n: saved}, nil },
		Stop:  func(_ context.Context, _ string, c *counter) { saved = c.n },
		Ended: func(string, error) { ended <- struct{}{} },
	})
	for i := range 3 {
		if n, err := actor.Ask(t.Context(), r, "a", add); err != nil || n != i+1 {
			t.Fatalf("round %d: n=%d, %v", i, n, err)
		}
		for passive := false; !passive; { // the actor notes its last use after its answer
			clock.Advance(time.Minute)
			select {
			case <-ended:
				passive = true
			case <-time.After(time.Millisecond):
			}
		}
		if left := r.Addresses(); len(left) != 0 {
			t.Fatalf("still there: %v", left)
		}
	}
}

func TestStopWaitsAndASuccessorWaitsForStop(t *testing.T) {
	var running atomic.Int32
	r := registry(t, actor.Spec[*counter]{
		Start: func(context.Context, string) (*counter, error) {
			if running.Add(1) != 1 {
				t.Error("two actors of one address")
			}
			return &counter{}, nil
		},
		Stop: func(context.Context, string, *counter) { running.Add(-1) },
	})
	for range 200 {
		if _, err := actor.Ask(t.Context(), r, "a", add); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- r.Stop(context.WithoutCancel(t.Context()), "a") }()
		if _, err := actor.Ask(t.Context(), r, "a", add); err != nil {
			t.Fatal(err)
		}
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
	}
}

func TestTimerReachesOnlyTheLiving(t *testing.T) {
	clock := actor.NewFakeClock(time.Unix(0, 0))
	r := registry(t, actor.Spec[*counter]{Clock: clock})
	ran := make(chan struct{})
	r.After("a", time.Second, func(context.Context, *counter) { t.Error("a timer woke an address") })
	clock.Advance(time.Second)
	if _, err := actor.Ask(t.Context(), r, "a", add); err != nil {
		t.Fatal(err)
	}
	r.After("a", time.Second, func(context.Context, *counter) { close(ran) })
	clock.Advance(time.Second)
	<-ran
}

func TestCloseEndsHandlersThatHang(t *testing.T) {
	r := actor.NewRegistry(actor.Spec[*counter]{Name: "c", Start: func(context.Context, string) (*counter, error) { return &counter{}, nil }})
	begun := make(chan struct{})
	if err := r.Tell("a", func(ctx context.Context, _ *counter) { close(begun); <-ctx.Done() }); err != nil {
		t.Fatal(err)
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := r.Tell("a", func(context.Context, *counter) {}); !errors.Is(err, contract.ErrUnavailable) {
		t.Fatal(err)
	}
}
