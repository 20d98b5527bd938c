package actor_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/contract"
)

// BenchmarkAsk is the round trip of a question and its answer.
func BenchmarkAsk(b *testing.B) {
	r := registry(b, actor.Spec[*counter]{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := actor.Ask(ctx, r, "a", add); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTell sends to one actor from one goroutine; a full mailbox makes it
// wait for an answer.
func BenchmarkTell(b *testing.B) {
	r := registry(b, actor.Spec[*counter]{Mailbox: 1024})
	one := func(_ context.Context, c *counter) { c.n++ }
	b.ReportAllocs()
	for b.Loop() {
		for errors.Is(r.Tell("a", one), contract.ErrBusy) {
			runtime.Gosched()
		}
	}
	if err := r.Stop(context.Background(), "a"); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkTellMany sends to 1000 actors from two goroutines.
func BenchmarkTellMany(b *testing.B) {
	r := registry(b, actor.Spec[*counter]{Mailbox: 1024})
	one := func(_ context.Context, c *counter) { c.n++ }
	addrs := make([]string, 1000)
	for i := range addrs {
		addrs[i] = fmt.Sprint("a", i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := g; i < b.N; i += 2 {
				for errors.Is(r.Tell(addrs[i%1000], one), contract.ErrBusy) {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkMemory reports what an idle actor that has had one message holds.
func BenchmarkMemory(b *testing.B) {
	const n = 20000
	for b.Loop() {
		r := registry(b, actor.Spec[*counter]{})
		before := inUse()
		for i := range n {
			if _, err := actor.Ask(context.Background(), r, fmt.Sprint("a", i), add); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(inUse()-before)/n, "B/actor")
		if err := r.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
