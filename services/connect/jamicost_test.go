package connect

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/sip"
)

// TestConfInfoCost measures what it takes to tell a room of 500 Jami participants who is
// there, while five speak in turn, each for a second: the bytes of the states, without the SIP message
// and TLS around them, and the CPU time of making them and of handing them out. It runs by hand: PARLEY_CONFINFO=1.
func TestConfInfoCost(t *testing.T) {
	if os.Getenv("PARLEY_CONFINFO") == "" {
		t.Skip("a measurement; set PARLEY_CONFINFO")
	}
	const n, speakers, lasts = 500, 5, 30 * time.Second
	ps := make([]contract.Participant, n)
	for i := range ps {
		p := ann()
		p.ID, p.JamiID, p.Role, p.Joined = fmt.Sprintf("jami-%03d", i), fmt.Sprintf("%040x", i), contract.RoleSpeaker, time.Unix(int64(i), 0)
		ps[i] = p
	}
	h := newHall(t, ps...)
	var states, bytes atomic.Int64
	h.j.say = func(_ context.Context, _ string, m sip.Message) error {
		states.Add(1)
		bytes.Add(int64(len(m.Body)))
		return nil
	}
	for i := range ps {
		h.j.Entered("main", ps[i].ID)
	}
	eventuallyJami(t, "all know who is there", func() bool { return states.Load() >= n })
	time.Sleep(5 * time.Second) // of the bound for that first state
	for _, speaking := range []bool{false, true} {
		states.Store(0)
		bytes.Store(0)
		cpu, began := cpuTime(t), time.Now()
		turn := time.NewTicker(time.Second)
		for seq, i := h.joined.Seq, 0; time.Since(began) < lasts; i++ {
			<-turn.C
			if !speaking {
				continue
			}
			begins, ends := ps[100+i%speakers], ps[100+(i+speakers-1)%speakers]
			begins.Speaking = true
			for _, p := range []contract.Participant{begins, ends} {
				seq++
				h.event(seq, contract.EventVoice, p)
			}
		}
		turn.Stop()
		took := time.Since(began).Seconds()
		t.Logf("speaking: %v; %.0f states and %.0f bytes a second, %.1f %% of a core", speaking, float64(states.Load())/took, float64(bytes.Load())/took, 100*(cpuTime(t)-cpu).Seconds()/took)
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
