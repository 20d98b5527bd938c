//go:build interop

package interop

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// Every child process is killed in turn while four peers of different kinds
// hear each other.
func TestDeathOfEachProcess(t *testing.T) {
	n := startNode(t)
	p := n.party()
	n.wait("everybody hears everybody", 30*time.Second, func() bool { return good(p.matrix(1500)) == "" })
	goal := map[string]int{"identity": 0, "dht": 0, "swarm": 0, "conference": 0, "bus": 0, "connect": 0, "media": 3000}
	for _, name := range []string{"identity", "dht", "swarm", "conference", "bus", "connect", "media"} {
		var acked string
		if name == "swarm" || name == "bus" || name == "conference" {
			m, err := p.bot.room.Chat(context.Background(), "before the death of "+name)
			if err != nil {
				t.Fatal(err)
			}
			acked = m.ID
		}
		before := n.pid(name)
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		const watch = 6 * time.Second
		n.wait(name+" is back", watch, func() bool {
			out, err := n.try("status", "--json")
			return err == nil && processReady(out, name, before)
		})
		back := time.Since(killed)
		time.Sleep(time.Until(killed.Add(watch))) // the window in which gaps are measured
		ms := int(time.Since(killed).Milliseconds()) + 500
		gaps := make([]int, 3)
		for i := range gaps {
			// What each peer misses: the longest stretch without any of the other phones' tones.
			gaps[i] = longestGap(p.hear[i](ms), p.freqs[(i+1)%3], -50)
		}
		busGap := p.bot.gapSince(killed)
		fmt.Printf("death: %-10s back after %4d ms; longest gap: chromium %d ms, baresip udp %d ms, baresip tcp %d ms, bot %d ms\n",
			name, back.Milliseconds(), gaps[0], gaps[1], gaps[2], busGap.Milliseconds())
		for i, g := range gaps {
			if g > goal[name]+60 { // two windows of measurement and one of concealment
				t.Errorf("%s died: %s missed %d ms, the goal is %d", name, p.names[i], g, goal[name])
			}
		}
		if got := n.participants(); got != 4 {
			t.Errorf("%s died: %d of 4 are in the room", name, got)
		}
		if acked != "" && !n.hasMessage(p, acked) {
			t.Errorf("%s died: an acknowledged message is lost", name)
		}
	}
	n.wait("everybody hears everybody", 15*time.Second, func() bool { return good(p.matrix(1500)) == "" })
	p.print("after seven deaths", p.matrix(1500))
}
