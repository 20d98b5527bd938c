//go:build interop

package interop

import (
	"bytes"
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

// twoNetworks are two namespaces with a cable between them: 10.78.0.1 and 10.78.0.2.
func twoNetworks(t *testing.T) (a, b *rig) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root")
	}
	var all [2]*rig
	for i := range all {
		ns := fmt.Sprintf("pn%d%d", os.Getpid(), i)
		run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
		all[i] = &rig{t: t, ns: ns}
	}
	run(t, "ip", "-n", all[0].ns, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", all[1].ns)
	for i, r := range all {
		run(t, "ip", "-n", r.ns, "addr", "add", fmt.Sprintf("10.78.0.%d/24", i+1), "dev", "eth0")
		run(t, "ip", "-n", r.ns, "link", "set", "eth0", "up")
		run(t, "ip", "-n", r.ns, "link", "set", "lo", "up")
	}
	return all[0], all[1]
}

// dropTCP has a network lose what comes by TCP from outside.
func (r *rig) dropTCP() {
	r.t.Helper()
	run(r.t, "ip", "netns", "exec", r.ns, "nft",
		"add table inet no; add chain inet no in { type filter hook input priority 0; policy accept; }; add rule inet no in iifname eth0 meta l4proto tcp counter drop")
}

// TestNodesWithoutTCP: two nodes between which TCP is lost exchange a file and call each other, by UDP
// alone. For comparison the same file goes by TCP first.
func TestNodesWithoutTCP(t *testing.T) {
	ra, rb := twoNetworks(t)
	a := ra.startNode(shortDir(t), "--dht.overlay", "opendht")
	dataB := shortDir(t)
	startB := func() *rigNode {
		return rb.startNode(dataB, "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.78.0.1:4224")
	}
	b := startB()
	var alice, bob struct{ ID string }
	a.ask(&alice, "account", "show")
	b.ask(&bob, "account", "show")
	a.logged(time.Minute, "device announced")

	dir := shortDir(t)
	get := func(over, version string) {
		t.Helper()
		path := filepath.Join(dir, over+".mkv")
		data := bytes.Repeat([]byte(over+" 0123456789ab"), 4<<20)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var sent struct{ Link string }
		a.ask(&sent, "file", "send", bob.ID, path)
		began := time.Now()
		reached := b.reaches(alice.ID)
		if reached.Over != over || reached.TLS != version || reached.Suite == "" || !strings.HasPrefix(reached.Address, "10.78.0.1:") {
			t.Errorf("reached as %+v", reached)
		}
		t.Logf("nodes: %s, %s, %s after %v, of which the last attempt took %d ms", over, reached.TLS, reached.Suite, time.Since(began), reached.TookMs)
		to := filepath.Join(dir, over)
		began = time.Now()
		b.ask(nil, "file", "get", sent.Link, "--out", to)
		took := time.Since(began)
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		t.Logf("nodes: %d MiB by %s in %v, %.0f Mbit/s", len(data)>>20, over, took, float64(len(data))*8/1e6/took.Seconds())
	}
	get("tcp", "TLS 1.3")
	b.stop()
	ra.dropTCP()
	rb.dropTCP()
	b = startB()
	get("udp", "DTLS 1.2")

	// A call, signalled on a channel of that connection.
	said := b.runs("call", alice.ID, "--room", "main")
	b.told(said, "taken")
	for _, x := range []struct {
		n    *rigNode
		peer string
	}{{a, bob.ID}, {b, alice.ID}} {
		in := x.n.room("main").Participants
		if !slices.ContainsFunc(in, func(p contract.Participant) bool { return p.JamiID == x.peer }) {
			t.Errorf("in the room: %+v", in)
		}
		var shown struct {
			Connections []contract.Connection `json:"connections"`
		}
		x.n.ask(&shown, "room", "show", "main", "--connections")
		if len(shown.Connections) != 1 {
			t.Fatalf("%d connections", len(shown.Connections))
		}
		s := shown.Connections[0].Signalled
		if s == nil || s.Over != "channel/udp" || s.TLS != "DTLS 1.2" || s.Suite != "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" || !strings.HasPrefix(s.Remote, "10.78.0.") || !strings.HasPrefix(s.Local, "10.78.0.") {
			t.Errorf("signalled by %+v", s)
		}
		t.Logf("nodes: a call is signalled by %+v", s)
	}
	for _, r := range []*rig{ra, rb} {
		t.Log(strings.TrimSpace(run(t, "ip", "netns", "exec", r.ns, "nft", "list", "ruleset")))
	}
	b.ask(nil, "call", "--hangup", b.room("main").Participants[0].ID, "--room", "main")
	for end := time.Now().Add(15 * time.Second); len(a.room("main").Participants) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the call does not end")
		}
	}
	b.stop()
	a.stop()
}

// reaches waits until a node reaches an account's device, and says how.
func (n *rigNode) reaches(account string) contract.PeerReached {
	n.r.t.Helper()
	var last string
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		var l contract.PeerReaches
		out, err := n.try("account", "reach", account)
		if err == nil && json.Unmarshal(out, &l) == nil && len(l.Devices) == 1 && l.Devices[0].Connected {
			return l.Devices[0]
		}
		last = fmt.Sprintf("%s %v", out, err)
		if time.Now().After(end) {
			n.r.t.Fatalf("one node does not reach the other: %s", last)
		}
	}
}
