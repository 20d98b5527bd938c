//go:build interop

package interop

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEverybodyMoves: a stock daemon, Chromium, two phones and a bot hear each other while datagrams are lost and late. Then they are at a worker that is drained, and go to
// another one without a gap; then the machine of that one is gone at once, and they are back at the
// first within seconds. Nobody leaves the room, and everybody hears everybody.
func TestEverybodyMoves(t *testing.T) {
	r, inside := startRigInside(t, 1)
	if !inside {
		return
	}
	n := r.startNodeInside()
	p := n.party()
	heard := p.daemon(r, n, 1, "jamid", 1570)
	n.wait("five in the room", 15*time.Second, func() bool { return n.participants() == 5 })
	everybody := func(when string) {
		t.Helper()
		var m [][]float64
		for limit := time.Now().Add(40 * time.Second); ; {
			if m = p.matrix(1500); unheard(m) == "" || time.Now().After(limit) {
				break
			}
		}
		p.print(when, m)
		if wrong := unheard(m); wrong != "" {
			t.Errorf("%s: %s", when, wrong)
		}
	}
	everybody("before")
	people := n.roster()

	// One of twenty datagrams that come is lost, the phones' signalling among them, and each is up to 50 ms late.
	fair := startLate(t, 50*time.Millisecond, "eth0", rigSUT, "10.77.0.0/24")
	run(t, "nft", "add table inet bad; add chain inet bad in { type filter hook input priority 0; policy accept; }; "+
		"add rule inet bad in meta l4proto udp numgen random mod 100 < 5 counter drop")
	gaps := p.gaps(t, heard, 10*time.Second, func() {})
	t.Log(strings.TrimSpace(run(t, "nft", "list", "table", "inet", "bad")))
	fmt.Printf("moves: 5 %% of all datagrams are lost, and each is up to 50 ms late: longest gaps: %s\n", gaps)
	if worst := gaps.worst(); worst > 3*time.Second {
		t.Errorf("5 %% lost: somebody heard nothing for %v: %s", worst, gaps)
	}
	everybody("while 5 % are lost and all are late")
	if got := n.roster(); !slices.Equal(got, people) {
		t.Errorf("5 %% lost: %v were in the room, now %v", people, got)
	}
	run(t, "nft", "delete", "table", "inet", "bad")
	if n := fair(); n < 1500 {
		t.Errorf("%d datagrams were late: they went another way", n)
	} else {
		fmt.Printf("moves: %d datagrams were late\n", n)
	}

	hall2 := n.joinWorker("hall2", "--media.loudest", "8")
	at := func(worker string) bool {
		w := n.workers()
		for name, x := range w {
			if name != worker && x.Alive && x.Legs != 0 {
				return false
			}
		}
		return w[worker].Legs == 5
	}

	gaps = p.gaps(t, heard, 8*time.Second, func() {
		n.parley("worker", "drain", "m1")
		n.wait("all are at hall2", 8*time.Second, func() bool { return at("hall2") })
	})
	fmt.Printf("moves: drained: longest gaps: %s\n", gaps)
	if worst := gaps.worst(); worst > 400*time.Millisecond {
		t.Errorf("drained: somebody heard nothing for %v: %s", worst, gaps)
	}
	everybody("after the drain")

	n.parley("worker", "drain", "m1", "--undo")
	gaps = p.gaps(t, heard, 15*time.Second, func() {
		hall2.kill(t)
		n.wait("all are at m1", 15*time.Second, func() bool { return at("m1") })
	})
	fmt.Printf("moves: the machine is gone: longest gaps: %s\n", gaps)
	if worst := gaps.worst(); worst > 5*time.Second {
		t.Errorf("the machine is gone: somebody heard nothing for %v: %s", worst, gaps)
	}
	everybody("after the machine was gone")
	if got := n.roster(); !slices.Equal(got, people) {
		t.Errorf("%v were in the room, now %v", people, got)
	}
}

// unheard says who does not hear whom.
func unheard(m [][]float64) string {
	var wrong []string
	for i, row := range m {
		for j, v := range row {
			if i != j && v < -40 {
				wrong = append(wrong, fmt.Sprintf("%d hears %d at %.1f dBFS", i, j, v))
			}
		}
	}
	return strings.Join(wrong, "; ")
}

// gaps are the longest times in which somebody heard nothing.
type gaps map[string]time.Duration

func (g gaps) worst() time.Duration { return slices.Max(slices.Collect(maps.Values(g))) }

func (g gaps) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(g)) {
		out = append(out, fmt.Sprintf("%s %d ms", name, g[name].Milliseconds()))
	}
	return strings.Join(out, ", ")
}

// watchPackets notes in the page the longest time in which none of its connections got a packet.
const watchPackets = `(() => {
  window.__gap = 0;
  let last = performance.now(), seen = new Map();
  clearInterval(window.__gapTimer);
  window.__gapTimer = setInterval(async () => {
    let came = false;
    for (const pc of window.__pcs) {
      if (pc.connectionState === 'closed') continue;
      for (const s of (await pc.getStats()).values()) {
        if (s.type !== 'inbound-rtp') continue;
        if ((seen.get(s.id + s.trackIdentifier) ?? 0) < s.packetsReceived) came = true;
        seen.set(s.id + s.trackIdentifier, s.packetsReceived);
      }
    }
    const now = performance.now();
    if (!came) return;
    window.__gap = Math.max(window.__gap, now - last);
    last = now;
  }, 20);
})()`

// gaps does something and returns how long each of the party, and a stock daemon, heard nothing at most
// in the time from then on. All the time somebody spoke.
func (p *party) gaps(t *testing.T, daemon speaker, watched time.Duration, do func()) gaps {
	t.Helper()
	if err := p.b.do(map[string]any{"do": "eval", "js": watchPackets}, nil); err != nil {
		t.Fatal(err)
	}
	recorded := []recording{p.phone[0], p.phone[1], daemon}
	from := make([]int, len(recorded))
	for i, r := range recorded {
		var err error
		if from[i], err = r.length(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	do()
	time.Sleep(time.Until(began.Add(watched)))
	g := gaps{"bot": p.bot.gapSince(began)}
	var ms float64
	if err := p.b.do(map[string]any{"do": "eval", "js": "window.__gap"}, &ms); err != nil {
		t.Fatal(err)
	}
	g["chromium"] = time.Duration(ms) * time.Millisecond
	for i, name := range []string{"baresip udp", "baresip tcp", "jamid"} {
		s, err := recorded[i].from(from[i])
		if err != nil {
			t.Fatal(err)
		}
		// What a program did not record is missing as well; what it records later is not there yet.
		run, longest := 0, 0
		for part := range slices.Chunk(s, rate/50) {
			if run++; power(part) > 1e-6 {
				run = 0
			}
			longest = max(longest, run)
		}
		g[name] = max(time.Duration(longest)*20*time.Millisecond, time.Since(began)-time.Duration(len(s))*time.Second/rate-time.Second)
	}
	return g
}

// power is the mean square of samples, 1 at full scale.
func power(s []int16) float64 {
	var sum float64
	for _, v := range s {
		sum += float64(v) * float64(v)
	}
	return sum / float64(max(1, len(s))) / (32768 * 32768)
}
