//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// logged waits for a line of the node's log with all of these in it, and returns its fields.
func (n *rigNode) logged(limit time.Duration, words ...string) map[string]any {
	n.r.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
	lines:
		for line := range strings.Lines(n.out.String()) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			var f map[string]any
			if json.Unmarshal([]byte(line), &f) == nil {
				return f
			}
		}
	}
	n.r.t.Fatalf("not logged within %v: %q", limit, words)
	return nil
}

// said logs the lines of a daemon's log that have one of the words.
func (r *rig) said(i int, words ...string) {
	b, err := os.ReadFile(filepath.Join(r.state, fmt.Sprintf("p%d", i), "log"))
	if err != nil {
		r.t.Log(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(strings.ToLower(line), w) }) {
			out = append(out, line)
		}
	}
	r.t.Logf("daemon %d said:\n%s", i, strings.Join(out[max(0, len(out)-300):], ""))
}

// TestStockConnects: a stock daemon that calls the node's account gets a connection and its
// channel "sip", on which its INVITE comes; and the node reaches the daemon in turn.
func TestStockConnects(t *testing.T) {
	t.Setenv("RIG_DHT", "none")
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht")
	p := r.peer(1)
	t.Cleanup(func() {
		if t.Failed() {
			r.said(1, "ice", "tls", "connectionmanager", "peer_connection", "multiplexed")
		}
	})
	over := map[string]string{"Account.hostname": rigSUT + ":4224"}
	alice, aliceID := p.account("alice", over)
	_, bobID := r.peer(2).account("bob", over)
	var ours contract.Account
	n.ask(&ours, "account", "show")
	n.logged(time.Minute, "device announced") // a daemon looks for devices once for each call

	var call string
	from, began := p.mark(), time.Now()
	p.call(&call, "call.placeCallWithMedia", alice, ours.ID, []map[string]string{
		{"MEDIA_TYPE": "MEDIA_TYPE_AUDIO", "ENABLED": "true", "MUTED": "false", "SOURCE": "", "LABEL": "audio_0"}})
	up := n.logged(time.Minute, `"device connected"`)
	t.Logf("device link: called by a stock daemon, connected after %v; since its request came: %v s to a path, %v s to a session", time.Since(began), up["path"], up["session"])
	n.logged(20*time.Second, `"channel accepted"`, `"sip"`)
	t.Logf("device link: channel after %v", time.Since(began))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var states []string
		for _, e := range p.events(from) {
			if e.name == "callStateChanged" && has(e.args, call) {
				states = append(states, string(e.args[2]))
			}
		}
		if len(states) > 0 && strings.Contains(strings.Join(states, " "), "CURRENT") {
			t.Logf("device link: they talk after %v", time.Since(began))
			break
		}
		if time.Now().After(end) {
			t.Errorf("the call is not taken: %v", states)
			break
		}
	}
	p.call(nil, "call.hangUp", alice, call)

	// Who is blocked loses the connection at once, and gets no other one.
	n.ask(nil, "account", "contact", "block", aliceID)
	began = time.Now()
	n.logged(time.Second, `"connection closed"`, "is blocked")
	t.Logf("device link: the connection of who was blocked is closed within %v of the command's end", time.Since(began))
	p.call(&call, "call.placeCallWithMedia", alice, ours.ID, []map[string]string{
		{"MEDIA_TYPE": "MEDIA_TYPE_AUDIO", "ENABLED": "true", "MUTED": "false", "SOURCE": "", "LABEL": "audio_0"}})
	n.logged(20*time.Second, `"request for a connection refused"`, "blocked")
	p.call(nil, "call.hangUp", alice, call)

	var reached contract.PeerReaches
	n.ask(&reached, "account", "reach", bobID)
	if len(reached.Devices) != 1 || !reached.Devices[0].Connected {
		t.Errorf("the node reaches the daemon: %+v", reached)
	} else {
		t.Logf("device link: the node reaches a stock daemon after %d ms", reached.Devices[0].TookMs)
	}
	n.stop()
}
