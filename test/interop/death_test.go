//go:build interop

package interop

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// taken is how much sound a peer got until a moment.
type taken struct {
	at        time.Time
	played    time.Duration // that was in packets
	concealed time.Duration // that the browser made up for lack of packets
	browser   bool
}

// missing returns how many ms of sound did not come since an earlier moment: what
// the browser concealed; for a phone, which writes what it decodes, the time for
// which nothing was written.
func (now taken) missing(was taken) int {
	if now.browser {
		return int((now.concealed - was.concealed).Milliseconds())
	}
	return max(0, int((now.at.Sub(was.at) - (now.played - was.played)).Milliseconds()))
}

// taken asks the browser and the two phones.
func (p *party) taken(t *testing.T) [3]taken {
	t.Helper()
	var s struct {
		Concealed float64 `json:"concealed"`
	}
	p.b.eval(`(async () => { let n = 0; for (const pc of window.__pcs) for (const r of (await pc.getStats()).values())
		if (r.type === 'inbound-rtp') n += r.concealedSamples - r.silentConcealedSamples; return { concealed: n } })()`, &s)
	out := [3]taken{{at: time.Now(), concealed: time.Duration(s.Concealed / rate * float64(time.Second)), browser: true}}
	for i := 1; i < 3; i++ {
		n := len(p.hear[i](1 << 30))
		out[i] = taken{at: time.Now(), played: time.Duration(n) * time.Second / rate}
	}
	return out
}

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
		was := p.taken(t)
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
		gaps := make([]int, 3)
		for i, m := range p.taken(t) {
			gaps[i] = m.missing(was[i])
		}
		busGap := p.bot.gapSince(killed)
		fmt.Printf("death: %-10s back after %4d ms; sound missing: chromium %d ms, baresip udp %d ms, baresip tcp %d ms, longest wait of the bot %d ms\n",
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
