package lead_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/lead"
)

const ttl = 400 * time.Millisecond

// keeper keeps one lease, as conference does.
type keeper struct {
	mu     sync.Mutex
	holder string
	epoch  uint64
	until  time.Time
	cut    map[string]bool // replicas that do not reach it
	asked  chan bool       // each that does not, with whether it gives back
}

func newKeeper() *keeper {
	return &keeper{cut: map[string]bool{}, asked: make(chan bool, 1000)}
}

func (k *keeper) ask(me string) lead.Ask {
	return func(_ context.Context, release bool) (*contract.Leased, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.cut[me] {
			k.asked <- release
			return nil, contract.ErrUnavailable
		}
		if time.Now().After(k.until) {
			k.holder = ""
		}
		if release {
			if k.holder == me {
				k.holder = ""
			}
			return &contract.Leased{Epoch: k.epoch}, nil
		}
		if k.holder == "" {
			k.holder = me
			k.epoch++
		}
		if k.holder == me {
			k.until = time.Now().Add(ttl)
		}
		return &contract.Leased{Held: k.holder == me, Holder: k.holder, Epoch: k.epoch}, nil
	}
}

func (k *keeper) isolate(me string, cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut[me] = cut
}

// TestTakeOver: of two replicas one serves; when it loses the keeper, it ends before
// the other begins.
func TestTakeOver(t *testing.T) {
	k := newKeeper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var mu sync.Mutex
	serving, order := 0, []string{}
	first := make(chan string, 2)
	var wg sync.WaitGroup
	for _, me := range []string{"a", "b"} {
		wg.Go(func() {
			err := lead.Run(ctx, ttl, k.ask(me), func(ctx context.Context, _ *contract.Leased) error {
				mu.Lock()
				serving++
				order = append(order, me)
				if serving > 1 {
					t.Error("two at once")
				}
				mu.Unlock()
				first <- me
				<-ctx.Done()
				mu.Lock()
				serving--
				mu.Unlock()
				return nil
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", me, err)
			}
		})
	}
	one := <-first
	k.isolate(one, true)
	if two := <-first; two == one {
		t.Errorf("%s again", two)
	}
	stop()
	wg.Wait()
	if len(order) != 2 {
		t.Errorf("served: %v", order)
	}
}

func TestEndGivesTheLeaseBack(t *testing.T) {
	k := newKeeper()
	mine := errors.New("mine")
	if err := lead.Run(t.Context(), ttl, k.ask("a"), func(context.Context, *contract.Leased) error { return mine }); !errors.Is(err, mine) {
		t.Fatal(err)
	}
	if l, _ := k.ask("b")(t.Context(), false); !l.Held || l.Epoch != 2 {
		t.Fatalf("%+v", l)
	}
}

// After a renewal that failed nobody knows whose the lease is.
func TestADoubtfulLeaseIsNotGivenBack(t *testing.T) {
	k := newKeeper()
	mine := errors.New("mine")
	err := lead.Run(t.Context(), ttl, k.ask("a"), func(context.Context, *contract.Leased) error {
		k.isolate("a", true)
		<-k.asked
		k.isolate("a", false)
		return mine
	})
	if !errors.Is(err, mine) {
		t.Fatal(err)
	}
	if k.holder != "a" {
		t.Errorf("the lease is of %q", k.holder)
	}
}

func TestTheLeaseIsRenewedWhileItsHolderEnds(t *testing.T) {
	k := newKeeper()
	ctx, stop := context.WithCancel(t.Context())
	err := lead.Run(ctx, ttl, k.ask("a"), func(ctx context.Context, _ *contract.Leased) error {
		stop()
		<-ctx.Done()
		time.Sleep(2 * ttl)
		if l, _ := k.ask("b")(t.Context(), false); l.Held {
			t.Error("another holds it already")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if l, _ := k.ask("b")(t.Context(), false); !l.Held {
		t.Error("it was not given back")
	}
}

func TestARefusalIsFinal(t *testing.T) {
	err := lead.Run(t.Context(), ttl, func(context.Context, bool) (*contract.Leased, error) { return nil, contract.ErrForbidden },
		func(context.Context, *contract.Leased) error { t.Error("ran"); return nil })
	if !errors.Is(err, contract.ErrForbidden) {
		t.Fatal(err)
	}
}
