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
	"syscall"
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

// homes are two networks, each behind a NAT of its own that lets nothing in which was not asked for; what is
// between them, 10.79.0.254, has the bootstrap node of the DHT and a STUN server.
func homes(t *testing.T) (a, b *rig) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root")
	}
	space := func(name string) *rig {
		r := &rig{t: t, ns: fmt.Sprintf("ph%d%s", os.Getpid(), name)}
		run(t, "ip", "netns", "add", r.ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", r.ns) })
		run(t, "ip", "-n", r.ns, "link", "set", "lo", "up")
		return r
	}
	hub := space("h")
	run(t, "ip", "-n", hub.ns, "link", "add", "br0", "type", "bridge")
	run(t, "ip", "-n", hub.ns, "addr", "add", "10.79.0.254/24", "dev", "br0")
	run(t, "ip", "-n", hub.ns, "link", "set", "br0", "up")
	var all [2]*rig
	for i := range all {
		router, home := space(fmt.Sprintf("r%d", i)), space(fmt.Sprintf("n%d", i))
		port, lan := fmt.Sprintf("p%d", i), fmt.Sprintf("192.168.%d.", i+1)
		run(t, "ip", "-n", hub.ns, "link", "add", port, "type", "veth", "peer", "name", "wan", "netns", router.ns)
		run(t, "ip", "-n", hub.ns, "link", "set", port, "master", "br0", "up")
		run(t, "ip", "-n", router.ns, "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", home.ns)
		for _, x := range []struct{ ns, dev, addr string }{{router.ns, "wan", fmt.Sprintf("10.79.0.%d/24", i+1)}, {router.ns, "lan", lan + "1/24"}, {home.ns, "eth0", lan + "2/24"}} {
			run(t, "ip", "-n", x.ns, "addr", "add", x.addr, "dev", x.dev)
			run(t, "ip", "-n", x.ns, "link", "set", x.dev, "up")
		}
		run(t, "ip", "-n", home.ns, "route", "add", "default", "via", lan+"1")
		run(t, "ip", "netns", "exec", router.ns, "sysctl", "-qw", "net.ipv4.ip_forward=1")
		run(t, "ip", "netns", "exec", router.ns, "nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; add rule ip nat out oifname wan masquerade; "+
			"add chain ip nat through { type filter hook forward priority 0; policy accept; }; add rule ip nat through iifname wan ct state new drop; "+
			"add chain ip nat in { type filter hook input priority 0; policy accept; }; add rule ip nat in iifname wan ct state new drop")
		all[i] = home
	}
	data := shortDir(t)
	users := filepath.Join(data, "users")
	if err := os.WriteFile(users, []byte("ring:ring\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"run", "dht", "--bootstrap", "--data", filepath.Join(data, "dht"), "--dht.opendht_listen", ":4222", "--admin.listen", ""},
		{"run", "turn", "--data", filepath.Join(data, "turn"), "--turn.listen", "10.79.0.254:3478", "--turn.users_file", users, "--turn.realm", "ring", "--admin.listen", ""},
	} {
		out := new(lockedBuffer)
		cmd := hub.sut(append([]string{parleyBinary(t)}, args...)...)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		})
	}
	return all[0], all[1]
}

// TestNodesBehindNATs: no TCP gets from one home to the other. By UDP each finds the other one at the address
// under which a STUN server sees it, whichever of them asks.
func TestNodesBehindNATs(t *testing.T) {
	ra, rb := homes(t)
	flags := []string{"--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.79.0.254:4222", "--media.stun", "10.79.0.254:3478"}
	nodes := []*rigNode{ra.startNode(shortDir(t), flags...), rb.startNode(shortDir(t), flags...)}
	var ids [2]struct{ ID string }
	for i, n := range nodes {
		n.ask(&ids[i], "account", "show")
	}
	for i, n := range nodes {
		began := time.Now()
		p := n.reaches(ids[1-i].ID)
		if p.Over != "udp" || p.TLS != "DTLS 1.2" || !strings.HasPrefix(p.Address, fmt.Sprintf("10.79.0.%d:", 2-i)) {
			t.Errorf("reached as %+v", p)
		}
		t.Logf("nodes: behind NATs, %s at %s, %d ms (%v with waiting for the DHT)", p.Over, p.Address, p.TookMs, time.Since(began))
		if i == 0 { // the other one shall ask for a connection of its own
			nodes[1].stop()
			nodes[1] = rb.startNode(nodes[1].data, flags...)
		}
	}
	for _, n := range nodes {
		n.stop()
	}
}
