//go:build interop

package interop

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDevicesMeetOverOpenDHT: in the overlay of the stock daemons our node becomes a
// device of their account by their PIN, and a stock daemon one of ours by our PIN; each
// then knows the other's device by what that announces: certificate and announcement. A
// revocation by ours reaches the daemon.
func TestDevicesMeetOverOpenDHT(t *testing.T) {
	r := startRig(t, 2)
	p1, p2 := r.peer(1), r.peer(2)
	alice, aliceID := p1.account("alice", nil)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")

	from := p1.mark()
	p1.call(nil, "configuration.exportOnRing", alice, "")
	var pin string
	if err := json.Unmarshal(p1.wait(from, time.Minute, "exportOnRingEnded", alice)[2], &pin); err != nil {
		t.Fatal(err)
	}
	var joined struct{ ID, Device string }
	n.ask(&joined, "account", "join", pin)
	if joined.ID != aliceID {
		t.Errorf("joined %s by the PIN of %s", joined.ID, aliceID)
	}
	p1.awaitDevice(alice, joined.Device)

	var own struct{ ID, Device string }
	n.ask(&own, "account", "show")
	var link struct{ PIN string }
	n.ask(&link, "account", "link")
	bob, bobID := p2.account("bob", map[string]string{"Account.archivePIN": link.PIN, "Account.archivePassword": ""})
	if bobID != own.ID {
		t.Errorf("the stock daemon joined %s by the PIN of %s", bobID, own.ID)
	}
	p2.awaitDevice(bob, own.Device)
	theirs := p2.device(bob)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		var list struct{ Devices []struct{ ID string } }
		n.ask(&list, "account", "devices")
		if slices.ContainsFunc(list.Devices, func(d struct{ ID string }) bool { return d.ID == theirs }) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("our node knows %v, not %s", list.Devices, theirs)
		}
	}

	// A revocation reaches the daemon, which keeps it as a file.
	n.ask(nil, "account", "device", "revoke", theirs)
	lists := filepath.Join(r.state, "p2", "home", ".local", "share", "jami", "crls", own.ID, "*")
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		found, err := filepath.Glob(lists)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the stock daemon has %d revocation lists", len(found))
		}
	}
	n.stop()
}

// awaitDevice waits until the daemon knows a device of an account.
func (p *rigPeer) awaitDevice(acc, device string) {
	p.t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		var known map[string]string
		p.call(&known, "configuration.getKnownRingDevices", acc)
		if _, ok := known[device]; ok {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("peer %d: knows %v, not %s", p.i, keysOf(known), device)
		}
	}
}

// TestRequestsOverOpenDHT: who asks whom to be a contact, and is accepted, between a
// stock daemon and our node.
func TestRequestsOverOpenDHT(t *testing.T) {
	r := startRig(t, 2)
	p1, p2 := r.peer(1), r.peer(2)
	alice, aliceID := p1.account("alice", nil)
	bob, bobID := p2.account("bob", nil)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	var own struct{ ID string }
	n.ask(&own, "account", "show")

	for end := time.Now().Add(time.Minute); !strings.Contains(n.out.String(), "device announced"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) { // a daemon asks the devices that it finds, and looks once
			t.Fatal("our device is not announced")
		}
	}

	// A daemon asks us.
	p1.call(nil, "configuration.sendTrustRequest", alice, own.ID, []int{})
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		out, err := n.try("account", "requests")
		if err == nil && strings.Contains(string(out), aliceID) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no request of %s: %s, %v", aliceID, out, err)
		}
	}

	// We ask a daemon.
	from := p2.mark()
	n.ask(nil, "account", "contact", "add", bobID)
	args := p2.wait(from, 90*time.Second, "incomingTrustRequest", bob)
	var who string
	for _, a := range args[1:] {
		if json.Unmarshal(a, &who) == nil && who == own.ID {
			n.stop()
			return
		}
	}
	t.Errorf("the daemon is asked with %s, not by %s", args, own.ID)
}
