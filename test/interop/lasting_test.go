//go:build interop

package interop

import (
	"os"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestCallsLast: a stock daemon that called and one that was called talk for
// PARLEY_CALL_TIME (8s) and hear each other at each look. Then one of them vanishes without
// a word, and is gone from the roster within 20 s; the other talks on.
func TestCallsLast(t *testing.T) {
	lasts := 8 * time.Second
	if text := os.Getenv("PARLEY_CALL_TIME"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	var ours contract.Account
	n.ask(&ours, "account", "show")
	a, b := r.peer(1), r.peer(2)
	accA, idA := a.account("ann", nil)
	accB, _ := b.account("bob", nil)
	callB := b.talkTo(accB, ours.ID, "")
	callA, said := n.rings(a, accA, idA)
	a.takes(accA, callA)
	n.told(said, "taken")
	r.speaks(a, 440, lasts.Seconds()+60)
	r.speaks(b, 880, lasts.Seconds()+60)
	for began := time.Now(); r.hears(a, 880) < -45 || r.hears(b, 440) < -45; time.Sleep(again(began)) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the tones do not begin: %.1f and %.1f dBFS", r.hears(a, 880), r.hears(b, 440))
		}
	}
	began := time.Now()
	looks, silent := 0, 0
	for ; time.Since(began) < lasts; time.Sleep(2 * time.Second) {
		looks++
		if l, m := r.hears(a, 880), r.hears(b, 440); l < -45 || m < -45 {
			silent++
			shown, err := n.try("room", "show", "main", "--connections")
			t.Errorf("after %v: %.1f and %.1f dBFS; %s %v", time.Since(began), l, m, shown, err)
		}
		for p, call := range map[*rigPeer]string{a: callA, b: callB} {
			var d map[string]string
			p.call(&d, "call.getCallDetails", map[*rigPeer]string{a: accA, b: accB}[p], call)
			if d["CALL_STATE"] != "CURRENT" {
				t.Fatalf("after %v a call is %q", time.Since(began), d["CALL_STATE"])
			}
		}
	}
	t.Logf("lasting: %d looks in %v, %d without the other's tone", looks, time.Since(began).Round(time.Second), silent)

	run(t, "ip", "-n", "rp2", "link", "set", "eth0", "down")
	gone := time.Now()
	for len(n.room("main").Participants) > 1 {
		if time.Since(gone) > 20*time.Second {
			t.Fatalf("still in the room after 20 s: %+v", n.room("main").Participants)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("lasting: a daemon whose cable was cut is gone from the roster after %v", time.Since(gone).Round(100*time.Millisecond))
	if in := n.room("main").Participants; len(in) != 1 || in[0].JamiID != idA {
		t.Errorf("in the room: %+v", in)
	}
	a.call(nil, "call.hangUp", accA, callA)
	n.stop()
}
