package device

import (
	"context"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/connect/device/devicetest"
)

// TestIdleConnections measures what connections with a channel each cost that nobody uses; both
// ends are in this process. It runs by hand: PARLEY_IDLE=1, or PARLEY_IDLE=udp for connections by UDP.
func TestIdleConnections(t *testing.T) {
	if os.Getenv("PARLEY_IDLE") == "" {
		t.Skip("a measurement; set PARLEY_IDLE")
	}
	const n, atOnce = 500, 8
	o, _, bob := world(t)
	o.noTCP = os.Getenv("PARLEY_IDLE") == "udp"
	twins := make([]*node, n/maxLinksDevice)
	acc := devicetest.NewAccount(t)
	for i := range twins {
		twins[i] = o.node(t, acc.Device(t))
	}
	before := used(t)
	began, cpu := time.Now(), cpuTime(t)
	var wg sync.WaitGroup
	turn := make(chan struct{}, atOnce)
	for i := range n {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			from := twins[i%len(twins)]
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			d := &dial{done: make(chan struct{}), wait: againFirst}
			a := from.asAccount()
			if !from.begin(func() { from.ask(&a, linkKey{a.ID, bob.dev.Chain.DeviceID}, bob.dev.Chain, "", d) }) {
				t.Error("closed")
				return
			}
			<-d.done
			if d.err != nil {
				t.Error(d.err)
				return
			}
			if _, err := d.link.sock.Open(ctx, "sip"); err != nil {
				t.Error(err)
			}
		})
		if i%maxSetupsEach == maxSetupsEach-1 {
			wg.Wait() // the node treats no more of one account at once
		}
	}
	wg.Wait()
	t.Logf("%d connections made in %v, %v of CPU for both ends", bob.Links(), time.Since(began), cpuTime(t)-cpu)
	time.Sleep(2 * time.Second)
	after := used(t)
	t.Logf("%d connections: %.1f KiB of heap and stacks each end, %d goroutines in all", bob.Links(), float64(after-before)/float64(2*bob.Links())/1024, runtime.NumGoroutine())
	if path := os.Getenv("PARLEY_IDLE_PROFILE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := pprof.WriteHeapProfile(f); err != nil {
			t.Error(err)
		}
	}
	cpu = cpuTime(t)
	time.Sleep(30 * time.Second)
	t.Logf("idle for 30 s: %v of CPU for both ends", cpuTime(t)-cpu)
}

func used(t *testing.T) uint64 {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
