package lead_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/lead"
)

const ttl = 120 * time.Millisecond

// keeper keeps one lease, as conference does.
type keeper struct {
	mu     sync.Mutex
	holder string
	epoch  uint64
	until  time.Time
	cut    map[string]bool // replicas that do not reach it
}

var errAway = errors.New("away")

func (k *keeper) ask(me string) lead.Ask {
	return func(_ context.Context, release bool) (bool, uint64, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.cut[me] {
			return false, 0, errAway
		}
		if time.Now().After(k.until) {
			k.holder = ""
		}
		if release {
			if k.holder == me {
				k.holder = ""
			}
			return false, k.epoch, nil
		}
		if k.holder == "" {
			k.holder = me
			k.epoch++
		}
		if k.holder == me {
			k.until = time.Now().Add(ttl)
		}
		return k.holder == me, k.epoch, nil
	}
}

func (k *keeper) isolate(me string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut[me] = true
}

func never(error) bool { return false }

// TestTakeOver: of two replicas one serves; when it loses the keeper, it ends before
// the other begins.
func TestTakeOver(t *testing.T) {
	k := &keeper{cut: map[string]bool{}}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var mu sync.Mutex
	serving, order := 0, []string{}
	first := make(chan string, 2)
	var wg sync.WaitGroup
	for _, me := range []string{"a", "b"} {
		wg.Go(func() {
			err := lead.Run(ctx, ttl, k.ask(me), never, func(ctx context.Context, _ uint64) error {
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
	k.isolate(one)
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
	k := &keeper{cut: map[string]bool{}}
	mine := errors.New("mine")
	if err := lead.Run(t.Context(), ttl, k.ask("a"), never, func(context.Context, uint64) error { return mine }); !errors.Is(err, mine) {
		t.Fatal(err)
	}
	if held, epoch, _ := k.ask("b")(t.Context(), false); !held || epoch != 2 {
		t.Fatalf("held %v, epoch %d", held, epoch)
	}
}

func TestFatal(t *testing.T) {
	k := &keeper{cut: map[string]bool{"a": true}}
	err := lead.Run(t.Context(), ttl, k.ask("a"), func(err error) bool { return errors.Is(err, errAway) },
		func(context.Context, uint64) error { t.Error("ran"); return nil })
	if !errors.Is(err, errAway) {
		t.Fatal(err)
	}
}
