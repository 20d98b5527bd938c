// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// A bot without a lease that is killed leaves; one that comes back, and one that
// outlives the bus or conference, stays.
func TestAKilledBotLeavesTheRoom(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.grace = 2 * time.Second
	w.start()
	w.ident.setBots(contract.Bot{Name: "dead", Room: "main"}, contract.Bot{Name: "echo", Room: "main"})
	g, kp := w.bus.Grant("echo", "main")
	first := w.bus.BotConn("echo", g, kp)
	dead := w.bus.Bot("dead", "main")
	// People who are played come as the command line, under names of their own.
	sim := w.bus.Raw("cli")
	for _, id := range []string{"dead", "echo", "cli"} {
		must(w, contract.RoomJoin, &contract.Join{Name: id, Kind: contract.KindBot, Transport: contract.TransportBus}, "main", id)
	}
	w.join("main", "ann")
	second := w.bus.BotConn("echo", g, kp)
	first.Close()
	dead.Close()
	w.wait(contract.EventLeft, "dead")
	w.bus.Restart()
	w.until("the bots are back", func() bool { return second.IsConnected() && sim.IsConnected() })
	w.stop()
	w.start()
	told := make(chan string, 64)
	sub, err := bus.Subscribe(w.conf.s.bus, contract.BusConnected, func(_ context.Context, _ []string, e *contract.Connected) { told <- e.Life })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	for range 4 {
		<-told
	}
	if got, want := w.roster("main"), "echo:speaker cli:speaker ann:speaker "; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	second.Close()
	if e := w.wait(contract.EventLeft, "echo"); e.Reason != contract.ReasonLost {
		t.Fatalf("it left for %q", e.Reason)
	}
}
