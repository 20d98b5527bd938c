package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// following is a command line that goes on until the test ends, and what it printed.
type following struct {
	t    *testing.T
	seen *syncBuffer
}

func (n *node) follow(t *testing.T, args ...string) *following {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &following{t, new(syncBuffer)}
	a := &app{in: strings.NewReader(""), out: f.seen, err: new(bytes.Buffer), env: n.env}
	ended := make(chan int, 1)
	go func() { ended <- a.main(ctx, args) }()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("%v ended with %d", args, code)
		}
	})
	return f
}

// until waits for a line that is right, of a command with --json, and returns how long that took.
func (f *following) until(what string, right func(n news) bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	eventually(f.t, what, func() bool {
		for line := range strings.Lines(f.seen.String()) {
			var n news
			if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &n) == nil && right(n) {
				return true
			}
		}
		return false
	})
	return time.Since(began)
}

// Two nodes whose people are contacts: each sees the other come and go, and they write to
// one another.
func TestPresenceAndMessagesBetweenNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("whole nodes run in TestContactsBetweenNodes, too")
	}
	t.Parallel()
	alice, bob := newTrial(t).settled(t), newTrial(t).settled(t)
	boot := alice.address(t)
	a := alice.up(t)
	aliceID := a.account(t).ID
	b := bob.up(t, "--dht.bootstrap", boot)
	bobID := b.account(t).ID

	ends(t, a.env, "", exitOK, bobID, "account", "contact", "add", bobID)
	eventually(t, "bob is asked", func() bool {
		var asks contract.ContactRequests
		return b.answer(t, &asks, "account", "requests") && len(asks.Requests) > 0
	})
	ends(t, b.env, "", exitOK, "active", "account", "request", "accept", aliceID)

	contacts := a.follow(t, "account", "contacts", "--follow", "--json")
	is := func(id string, online bool) func(news) bool {
		return func(n news) bool { return n.Presence != nil && n.Presence.ID == id && n.Presence.Online == online }
	}
	t.Logf("bob is online after %s", contacts.until("bob is online", is(bobID, true)))
	eventually(t, "alice is online, in bob's list", func() bool {
		return strings.Contains(parley(b.env, "", "account", "contacts").out, aliceID+"  active  yes        yes")
	})

	inbox := b.follow(t, "message", "follow", "--json")
	back := a.follow(t, "message", "follow", "--json")
	began := time.Now()
	ends(t, a.env, "", exitOK, "delivered", "message", "send", bobID, "Grüße")
	t.Logf("delivered after %s", time.Since(began))
	inbox.until("bob reads it", func(n news) bool {
		m := n.Message
		return m != nil && m.From == aliceID && m.Contact && m.Type == "text/plain" && m.Body == "Grüße"
	})
	ends(t, b.env, "zurück\n", exitOK, "delivered", "message", "send", "jami:"+aliceID, "-")
	back.until("alice reads the answer", func(n news) bool { return n.Message != nil && n.Message.From == bobID && n.Message.Body == "zurück" })
	ends(t, a.env, "", exitUsage, "", "message", "send", bobID)
	ends(t, a.env, "", exitUsage, "40 hex digits", "message", "send", "bob", "hi")
	ends(t, a.env, "", exitUnavailable, "in another network (setting dht.overlay)", "message", "send", strings.Repeat("1", 40), "hi", "--wait", "1s")

	ends(t, a.env, "", exitOK, "127.0.0.1", "account", "addresses", bobID)
	ends(t, a.env, "", exitRefused, "no contact", "account", "addresses", strings.Repeat("1", 40))

	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	t.Logf("bob is offline after %s", contacts.until("bob is offline", is(bobID, false)))
	eventually(t, "in the list", func() bool {
		return strings.Contains(parley(a.env, "", "account", "contacts").out, bobID+"  active  yes        no")
	})
}
