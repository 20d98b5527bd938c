//go:build interop

package interop

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestNodeCallsStock: the node calls stock daemons into its room. They take the call and hear
// each other; each side hangs up; one refuses; a call that rings is given up; nobody is there.
func TestNodeCallsStock(t *testing.T) {
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	a, b := r.peer(1), r.peer(2)
	accA, idA := a.account("ann", nil)
	accB, idB := b.account("bob", nil)

	callA, saidA := n.rings(a, accA, idA)
	a.takes(accA, callA)
	n.told(saidA, "taken")
	callB, saidB := n.rings(b, accB, idB)
	b.takes(accB, callB)
	n.told(saidB, "taken")
	in := n.room("main").Participants
	if len(in) != 2 || in[0].JamiID != idA || in[1].JamiID != idB || in[0].Kind != contract.KindJami || len(in[0].JamiDevice) != 64 {
		t.Fatalf("in the room: %+v", in)
	}
	var shown struct {
		Connections []contract.Connection `json:"connections"`
	}
	n.ask(&shown, "room", "show", "main", "--connections")
	for _, c := range shown.Connections {
		if s := c.Signalled; s == nil || s.Over != "channel" || s.TLS == "" || !strings.HasPrefix(s.Remote, "10.77.0.") {
			t.Errorf("signalled by %+v", s)
		}
	}
	r.speaks(a, 440, 60)
	r.speaks(b, 880, 60)
	hears := func(what string, p *rigPeer, hz float64) {
		t.Helper()
		level, ok := r.comesToHear(p, hz, true)
		if !ok {
			t.Fatalf("%s: %.0f Hz at %.1f dBFS", what, hz, level)
		}
		t.Logf("called: %s: %.1f dBFS", what, level)
	}
	hears("ann hears bob", a, 880)
	hears("bob hears ann", b, 440)
	a.sees(callA, "who is there", func(all []map[string]string) bool {
		return len(all) == 3 && strings.HasPrefix(all[1]["uri"]+all[2]["uri"], idA) || len(all) == 3 && strings.HasPrefix(all[2]["uri"], idA)
	})
	from := b.mark()
	a.call(nil, "call.sendTextMessage", accA, callA, map[string]string{"text/plain": "hello, bob"}, false)
	b.hasSignal(from, 15*time.Second, "the text", func(e rigEvent) bool { return e.name == "incomingMessage" })
	from = a.mark()
	a.call(nil, "call.hold", accA, callA)
	a.hasSignal(from, 20*time.Second, "hold", func(e rigEvent) bool { return onHold(e, callA, "true") })
	from = a.mark()
	a.call(nil, "call.unhold", accA, callA)
	a.hasSignal(from, 20*time.Second, "resume", func(e rigEvent) bool { return onHold(e, callA, "false") })
	time.Sleep(3 * time.Second) // what is measured now was heard after that
	hears("ann hears bob after a hold", a, 880)
	hears("bob hears ann after her hold", b, 440)

	from = b.mark()
	n.ask(nil, "call", "--hangup", in[1].ID, "--room", "main")
	b.isOver(from, callB)
	a.call(nil, "call.hangUp", accA, callA)
	for end := time.Now().Add(10 * time.Second); len(n.room("main").Participants) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still in the room: %+v", n.room("main").Participants)
		}
	}

	callA, saidA = n.rings(a, accA, idA)
	a.call(nil, "call.refuse", accA, callA)
	n.told(saidA, "refused")

	from = b.mark()
	callB, saidB = n.rings(b, accB, idB)
	if err := saidB.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	b.isOver(from, callB)
	n.told(saidB, "hung_up")

	_, err := n.try("call", strings.Repeat("0123456789", 4), "--room", "main")
	if err == nil || !strings.Contains(err.Error(), "nobody of "+strings.Repeat("0123456789", 4)+" can be reached") {
		t.Errorf("a call to nobody: %v", err)
	}
	n.stop()
}

// rings has the node call an account and waits until its daemon rings; it returns the daemon's
// call and what the command says.
func (n *rigNode) rings(p *rigPeer, acc, id string) (call string, said *running) {
	n.r.t.Helper()
	from, began := p.mark(), time.Now()
	said = n.runs("call", id, "--room", "main")
	p.hasSignal(from, 40*time.Second, "it rings", func(e rigEvent) bool {
		if !strings.HasPrefix(e.name, "incomingCall") || !has(e.args, acc) {
			return false
		}
		return json.Unmarshal(e.args[1], &call) == nil
	})
	p.t.Logf("called: peer %d rings after %v", p.i, time.Since(began))
	n.told(said, "ringing")
	return call, said
}

// told waits until a command that calls says a word.
func (n *rigNode) told(said *running, word string) {
	n.r.t.Helper()
	began := time.Now()
	for !strings.Contains(said.out.String(), `"`+word+`"`) {
		if time.Since(began) > 20*time.Second {
			n.r.t.Fatalf("the call is not %s:\n%s", word, said.out)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.r.t.Logf("called: %s after %v", word, time.Since(began))
}

// takes takes a call and waits until they talk.
func (p *rigPeer) takes(acc, call string) {
	p.t.Helper()
	from, began := p.mark(), time.Now()
	p.call(nil, "call.accept", acc, call)
	p.hasSignal(from, 40*time.Second, "they talk", func(e rigEvent) bool {
		return e.name == "callStateChanged" && has(e.args, call) && has(e.args, "CURRENT")
	})
	p.t.Logf("called: peer %d talks after %v", p.i, time.Since(began))
}

func (p *rigPeer) isOver(from int, call string) {
	p.t.Helper()
	p.hasSignal(from, 20*time.Second, "its call ends", func(e rigEvent) bool {
		return e.name == "callStateChanged" && has(e.args, call) && (has(e.args, "OVER") || has(e.args, "HUNGUP"))
	})
}

// TestNodeCallsAllDevices: all devices of an account ring, and the first that takes the call has
// it; one that declines declines for all.
func TestNodeCallsAllDevices(t *testing.T) {
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	a, b := r.peer(1), r.peer(2)
	acc, id := a.account("ann", nil)
	from := a.mark()
	a.call(nil, "configuration.exportOnRing", acc, "")
	var pin string
	if args := a.wait(from, time.Minute, "exportOnRingEnded", acc); len(args) < 3 || json.Unmarshal(args[2], &pin) != nil || pin == "" {
		t.Fatalf("no PIN: %s", args)
	}
	acc2, id2 := b.account("ann", map[string]string{"Account.archivePIN": pin, "Account.archivePassword": ""})
	if id2 != id {
		t.Fatalf("the second device is of %s, not of %s", id2, id)
	}
	devices := func() int {
		var d map[string]string
		a.call(&d, "configuration.getKnownRingDevices", acc)
		return len(d)
	}
	for end := time.Now().Add(30 * time.Second); devices() < 2 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
	}
	both := func() (callA, callB string, said *running) {
		t.Helper()
		fromB := b.mark()
		callA, said = n.rings(a, acc, id)
		b.hasSignal(fromB, 30*time.Second, "the second device rings", func(e rigEvent) bool {
			return strings.HasPrefix(e.name, "incomingCall") && has(e.args, acc2) && json.Unmarshal(e.args[1], &callB) == nil
		})
		return callA, callB, said
	}
	callA, callB, said := both()
	fromA := a.mark()
	b.takes(acc2, callB)
	n.told(said, "taken")
	a.isOver(fromA, callA)
	if in := n.room("main").Participants; len(in) != 1 || in[0].JamiID != id {
		t.Fatalf("in the room: %+v", in)
	}
	b.call(nil, "call.hangUp", acc2, callB)

	callA, callB, said = both()
	fromB := b.mark()
	a.call(nil, "call.refuse", acc, callA)
	n.told(said, "refused")
	b.isOver(fromB, callB)
	n.stop()
}
