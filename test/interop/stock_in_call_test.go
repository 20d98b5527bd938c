//go:build interop

package interop

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestStockInCall: what a stock daemon does during its call: text, mute, hold and resume, which
// begins its transport anew; and a call with video, whose sound is taken.
func TestStockInCall(t *testing.T) {
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	var ours contract.Account
	n.ask(&ours, "account", "show")
	a, b := r.peer(1), r.peer(2)
	accA, idA := a.account("ann", nil)
	accB, _ := b.account("bob", nil)
	callA := a.talkTo(accA, ours.ID, "")
	callB := b.talkTo(accB, ours.ID, "camera://none") // there is no camera: the line is offered all the same
	r.speaks(a, 440, 120)
	r.speaks(b, 880, 120)
	hears := func(what string, p *rigPeer, hz float64, loud bool) {
		t.Helper()
		level, ok := r.comesToHear(p, hz, loud)
		if !ok {
			t.Errorf("%s: %.0f Hz at %.1f dBFS", what, hz, level)
			return
		}
		t.Logf("in call: %s: %.1f dBFS", what, level)
	}
	hears("ann hears bob, who offers video too", a, 880, true)
	hears("bob hears ann", b, 440, true)

	from := b.mark()
	a.call(nil, "call.sendTextMessage", accA, callA, map[string]string{"text/plain": "hello, all"}, false)
	b.hasSignal(from, 15*time.Second, "the text", func(e rigEvent) bool {
		return e.name == "incomingMessage" && strings.Contains(string(slices.Concat(e.args...)), "ann: hello, all")
	})

	muted := func(want bool) {
		t.Helper()
		var ps []contract.Participant
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			ps = n.room("main").Participants
			if slices.ContainsFunc(ps, func(p contract.Participant) bool { return p.JamiID == idA && p.Muted == want && p.MutedBy == "" }) {
				return
			}
		}
		t.Errorf("ann should be muted: %t; in the room: %+v", want, ps)
	}
	a.call(nil, "call.muteLocalMedia", accA, callA, "MEDIA_TYPE_AUDIO", true)
	muted(true)
	hears("bob hears ann, who muted herself", b, 440, false)
	b.sees(callB, "her mute", func(all []map[string]string) bool {
		return slices.ContainsFunc(all, func(p map[string]string) bool {
			return strings.HasPrefix(p["uri"], idA) && p["audioLocalMuted"] == "true"
		})
	})
	a.call(nil, "call.muteLocalMedia", accA, callA, "MEDIA_TYPE_AUDIO", false)
	muted(false)
	hears("bob hears ann again", b, 440, true)

	from = a.mark()
	a.call(nil, "call.hold", accA, callA)
	a.hasSignal(from, 20*time.Second, "hold", func(e rigEvent) bool {
		return onHold(e, callA, "true") // it says HOLD before the node has answered; who resumes then hears nothing
	})
	from = a.mark()
	began := time.Now()
	a.call(nil, "call.unhold", accA, callA)
	a.hasSignal(from, 20*time.Second, "resume", func(e rigEvent) bool { return onHold(e, callA, "false") })
	t.Logf("in call: resumed after %v", time.Since(began))
	time.Sleep(3 * time.Second) // what is measured now was heard after that
	hears("ann hears bob after a hold", a, 880, true)
	hears("bob hears ann after her hold", b, 440, true)

	a.call(nil, "call.hangUp", accA, callA)
	b.call(nil, "call.hangUp", accB, callB)
	n.stop()
}

// onHold reports whether a call is negotiated that is held, or not.
func onHold(e rigEvent, call, held string) bool {
	var lines []map[string]string
	return e.name == "mediaNegotiationStatus" && len(e.args) == 3 && has(e.args, call) && json.Unmarshal(e.args[2], &lines) == nil &&
		slices.ContainsFunc(lines, func(l map[string]string) bool { return l["ON_HOLD"] == held })
}
