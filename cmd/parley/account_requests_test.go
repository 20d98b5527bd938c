package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/dht/libp2p"
)

// address makes the key of a node's place in the overlay and returns where others find it.
func (tr *trial) address(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(tr.data, "dht")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := libp2p.NodeKey(filepath.Join(dir, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(tr.cfg.DHT.Listen)
	if err != nil {
		t.Fatal(err)
	}
	return "/ip4/" + host + "/tcp/" + port + "/p2p/" + id.String()
}

// answer has a command line print JSON, if the node is there already.
func (n *node) answer(t *testing.T, v any, args ...string) bool {
	t.Helper()
	r := parley(n.env, "", append(args, "--json")...)
	if r.code != exitOK {
		return false
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		t.Fatalf("%v: %v in %s", args, err, r.out)
	}
	return true
}

func (n *node) account(t *testing.T) (acc contract.Account) {
	t.Helper()
	eventually(t, "an account", func() bool { return n.answer(t, &acc, "account", "show") })
	return acc
}

func (n *node) contact(t *testing.T, id string) contract.Contact {
	t.Helper()
	var l contract.Contacts
	n.answer(t, &l, "account", "contacts")
	for _, c := range l.Contacts {
		if c.ID == id {
			return c
		}
	}
	return contract.Contact{}
}

// syncBuffer is written by a command that goes on.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Three nodes in one overlay: two people, one of them with two devices. One asks the
// other, who accepts; both devices of the first know.
func TestContactsBetweenNodes(t *testing.T) {
	t.Parallel()
	alice, bob := newTrial(t).settled(t), newTrial(t).settled(t)
	boot := alice.address(t)
	a := alice.up(t)
	b := bob.up(t, "--dht.bootstrap", boot)
	aliceID, bobID := a.account(t).ID, b.account(t).ID
	ends(t, a.env, "", exitOK, "Alice", "account", "set", "--alias", "Alice")

	file := filepath.Join(t.TempDir(), "alice.gz")
	ends(t, a.env, "", exitOK, "", "account", "export", file)
	third := newTrial(t)
	ends(t, third.env, "", exitOK, aliceID, "account", "import", file)
	second := third.up(t, "--dht.bootstrap", boot)
	if acc := second.account(t); acc.ID != aliceID || acc.DeviceID == a.account(t).DeviceID {
		t.Fatalf("%+v", acc)
	}

	// Bob's operator looks at what comes.
	ctx, stop := context.WithCancel(t.Context())
	seen := new(syncBuffer)
	follow := &app{in: strings.NewReader(""), out: seen, err: new(bytes.Buffer), env: b.env}
	ended := make(chan int)
	go func() { ended <- follow.main(ctx, []string{"account", "requests", "--follow"}) }()

	began := time.Now()
	ends(t, a.env, "", exitOK, bobID, "account", "contact", "add", bobID)
	var asks contract.ContactRequests
	eventually(t, "bob is asked", func() bool {
		return b.answer(t, &asks, "account", "requests") && len(asks.Requests) > 0
	})
	t.Logf("bob is asked after %s", time.Since(began))
	if r := asks.Requests[0]; len(asks.Requests) != 1 || r.ID != aliceID || r.Name != "Alice" {
		t.Errorf("%+v", asks)
	}
	ends(t, b.env, "", exitOK, "Alice", "account", "requests")
	ends(t, b.env, "", exitNotFound, "account requests", "account", "request", "accept", bobID)

	began = time.Now()
	ends(t, b.env, "", exitOK, "active", "account", "request", "accept", "jami:"+aliceID)
	if c := b.contact(t, aliceID); !c.Active || !c.Confirmed {
		t.Errorf("%+v", c)
	}
	eventually(t, "alice's node knows that bob accepted", func() bool { return a.contact(t, bobID).Confirmed })
	t.Logf("alice knows after %s", time.Since(began))
	eventually(t, "alice's other device knows", func() bool { c := second.contact(t, bobID); return c.Active && c.Confirmed })
	t.Logf("her other device knows after %s", time.Since(began))
	ends(t, b.env, "", exitOK, "no requests", "account", "requests")
	eventually(t, "bob's operator has seen it", func() bool {
		said := seen.String()
		return strings.Contains(said, "request  "+aliceID+"  Alice") && strings.Contains(said, "contact  "+aliceID+"  confirmed")
	})
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d", code)
	}

	// What one device does the other one gets.
	began = time.Now()
	ends(t, second.env, "", exitOK, "blocked", "account", "contact", "block", bobID)
	eventually(t, "blocked on both", func() bool { return a.contact(t, bobID).Banned })
	t.Logf("blocked on both after %s", time.Since(began))
}
