//go:build interop

package interop

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStockCallsOverOurNodes: stock daemons that have our node as their only bootstrap, in
// an overlay where all other nodes are ours, register, find each other and call each other.
func TestStockCallsOverOurNodes(t *testing.T) {
	t.Setenv("RIG_DHT", "none")
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht")
	p1, p2 := r.peer(1), r.peer(2)
	ours := map[string]string{"Account.hostname": rigSUT + ":4224", "Account.autoAnswer": "true"}
	began := time.Now()
	alice, aliceID := p1.account("alice", ours)
	t.Logf("the first daemon has made its account and registered after %v", time.Since(began))
	began = time.Now()
	bob, bobID := p2.account("bob", ours)
	t.Logf("the second one after %v", time.Since(began))

	took := p1.dial(alice, bobID)
	t.Logf("overlay: a stock daemon calls another over our nodes alone: %v until they talk", took)
	took = p2.dial(bob, aliceID)
	t.Logf("overlay: and back: %v", took)
	n.stop()
}

// dial calls somebody, waits until they talk, hangs up, and returns how long it took.
func (p *rigPeer) dial(acc, to string) time.Duration {
	p.t.Helper()
	from, began := p.mark(), time.Now()
	var call string
	p.call(&call, "call.placeCallWithMedia", acc, to, []map[string]string{
		{"MEDIA_TYPE": "MEDIA_TYPE_AUDIO", "ENABLED": "true", "MUTED": "false", "SOURCE": "", "LABEL": "audio_0"}})
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		events := p.events(from)
		if slices.ContainsFunc(events, func(e rigEvent) bool {
			return e.name == "callStateChanged" && has(e.args, call) && has(e.args, "CURRENT")
		}) {
			break
		}
		if time.Now().After(end) {
			p.t.Fatalf("peer %d: no call with %s: %v", p.i, to, events)
		}
	}
	took := time.Since(began)
	p.call(nil, "call.hangUp", acc, call)
	return took
}

func has(args []json.RawMessage, s string) bool {
	return slices.ContainsFunc(args, func(a json.RawMessage) bool { return strings.Trim(string(a), `"`) == s })
}
