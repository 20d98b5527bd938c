//go:build interop

package interop

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// swarmPeer is a stock daemon's account.
type swarmPeer struct {
	*rigPeer
	acc, id string
}

// said waits for a message of a conversation that says so, from a mark on.
func (p *swarmPeer) said(from int, limit time.Duration, conv string, is func(m map[string]string) bool) map[string]string {
	p.t.Helper()
	began := time.Now()
	var seen []map[string]string
	for end := began.Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, e := range p.events(from) {
			from = e.at + 1
			if e.name != "messageReceived" || len(e.args) < 3 {
				continue
			}
			var c string
			var m map[string]string
			if json.Unmarshal(e.args[1], &c) != nil || json.Unmarshal(e.args[2], &m) != nil || c != conv {
				continue
			}
			if is(m) {
				return m
			}
			seen = append(seen, m)
		}
	}
	p.t.Fatalf("peer %d: not said within %v; came %v", p.i, limit, seen)
	return nil
}

func body(text string) func(map[string]string) bool {
	return func(m map[string]string) bool { return m["body"] == text }
}

func joins(id string) func(map[string]string) bool {
	return func(m map[string]string) bool {
		return m["type"] == "member" && m["action"] == "join" && m["uri"] == id
	}
}

// write has the daemon write.
func (p *swarmPeer) write(conv, text string) {
	p.t.Helper()
	p.call(nil, "configuration.sendMessage", p.acc, conv, text, "", 0)
}

// members are the roles as the daemon has them, by Jami Id.
func (p *swarmPeer) members(conv string) map[string]string {
	p.t.Helper()
	var list []map[string]string
	p.call(&list, "configuration.getConversationMembers", p.acc, conv)
	out := map[string]string{}
	for _, m := range list {
		out[m["uri"]] = m["role"]
	}
	return out
}

// history is all commits but merges as the daemon has them. Merges are not announced: each side may have some of
// its own.
func (p *swarmPeer) history(conv string) []string {
	p.t.Helper()
	from := p.mark()
	p.call(nil, "configuration.loadConversationMessages", p.acc, conv, "", 0)
	args := p.wait(from, 20*time.Second, "conversationLoaded")
	var list []map[string]string
	if err := json.Unmarshal(args[len(args)-1], &list); err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, m := range list {
		if m["type"] != "merge" {
			out = append(out, m["id"])
		}
	}
	slices.Sort(out)
	return out
}

// nodeConversation is one as the node tells of it.
type nodeConversation struct {
	ID, State, With, From, Head, Why string
	Commits                          int
	Members                          []struct{ ID, Role string }
}

func (n *rigNode) conversations() []nodeConversation {
	n.r.t.Helper()
	var l struct{ Conversations []nodeConversation }
	n.ask(&l, "conversation", "list")
	return l.Conversations
}

// ready waits until a conversation is here with so many members that have joined.
func (n *rigNode) ready(id string, members int, limit time.Duration) nodeConversation {
	n.r.t.Helper()
	var last []nodeConversation
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		last = n.conversations()
		for _, c := range last {
			joined := 0
			for _, m := range c.Members {
				if m.Role == "admin" || m.Role == "member" {
					joined++
				}
			}
			if (id == "" || c.ID == id) && c.State == "ready" && joined == members {
				return c
			}
		}
	}
	n.r.t.Fatalf("conversation %s with %d members is not here within %v: %+v", id, members, limit, last)
	return nodeConversation{}
}

// history is all commits but merges as the node has them.
func (n *rigNode) history(id string) (out []string) {
	n.r.t.Helper()
	for before := ""; ; {
		var p struct {
			Posts []struct{ ID, Type string }
			More  bool
		}
		n.ask(&p, "conversation", "read", id, "--limit", "100", "--before", before)
		for _, x := range p.Posts {
			if before = x.ID; x.Type != "merge" {
				out = append(out, x.ID)
			}
		}
		if !p.More {
			slices.Sort(out)
			return out
		}
	}
}

func said(text string) func(heard) bool {
	return func(h heard) bool {
		return h.Message != nil && h.Message.Body == text && h.Message.Type == "text/plain"
	}
}

// swarmRig is stock daemons and a node in one network.
func swarmRig(t *testing.T, names ...string) (*rig, *rigNode, string, []*swarmPeer) {
	t.Helper()
	t.Setenv("RIG_DHT", "none")
	r := startRig(t, len(names))
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht")
	t.Cleanup(func() {
		if t.Failed() {
			for i := range names {
				r.said(i+1, "onversation", "swarm", "fetch", "clone", "git", "transfer", "ommit")
			}
		}
	})
	var own struct{ ID string }
	n.ask(&own, "account", "show")
	n.logged(time.Minute, "device announced")
	var peers []*swarmPeer
	for i, name := range names {
		p := r.peer(i + 1)
		acc, id := p.account(name, map[string]string{"Account.hostname": rigSUT + ":4224"})
		peers = append(peers, &swarmPeer{p, acc, id})
	}
	return r, n, own.ID, peers
}

// invites has a daemon make a contact of the node, which accepts; it returns the conversation.
func (p *swarmPeer) invites(n *rigNode, own string) string {
	p.t.Helper()
	var conv string
	p.call(nil, "configuration.addContact", p.acc, own)
	p.call(nil, "configuration.sendTrustRequest", p.acc, own, []int{})
	var all []string
	for end := time.Now().Add(20 * time.Second); len(all) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatal("the daemon has no conversation with its contact")
		}
		p.call(&all, "configuration.getConversations", p.acc)
	}
	conv = all[0]
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var l struct {
			Requests []struct{ ID, Conversation string }
		}
		n.ask(&l, "account", "requests")
		if len(l.Requests) > 0 {
			if l.Requests[0].ID != p.id || l.Requests[0].Conversation != conv {
				p.t.Fatalf("asks %+v, not for %s", l.Requests, conv)
			}
			break
		}
		if time.Now().After(end) {
			p.t.Fatal("no request came")
		}
	}
	return conv
}

// killed kills a process of the node, and waits until another one is in its place.
func (n *rigNode) killed(name string) {
	n.r.t.Helper()
	type status struct {
		Processes []struct {
			Name  string
			Ready bool
			PID   int
		}
	}
	before := 0
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var st status
		if out, err := n.try("status"); err == nil { // it is incomplete while a process is down
			if err := json.Unmarshal(out, &st); err != nil {
				n.r.t.Fatalf("%v in %s", err, out)
			}
		}
		for _, p := range st.Processes {
			switch {
			case p.Name != name || p.PID == 0:
			case before == 0:
				if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
					n.r.t.Fatal(err)
				}
				before = p.PID
			case p.PID != before && p.Ready:
				return
			}
		}
		if time.Now().After(end) {
			n.r.t.Fatalf("%s was not started again: %+v", name, st)
		}
	}
}

// TestConversationWithStock: a stock daemon makes a contact of our node, and both write in the conversation
// that comes of it.
func TestConversationWithStock(t *testing.T) {
	_, n, own, peers := swarmRig(t, "alice")
	alice := peers[0]
	inbox := n.lines("message", "follow")
	conv := alice.invites(n, own)
	alice.write(conv, "before you came")
	from, began := alice.mark(), time.Now()
	n.ask(nil, "account", "request", "accept", alice.id)
	c := n.ready(conv, 2, time.Minute)
	t.Logf("conversation: here and joined %v after it was accepted", time.Since(began).Round(10*time.Millisecond))
	alice.said(from, time.Minute, conv, joins(own))
	t.Logf("conversation: the daemon sees us join after %v", time.Since(began).Round(10*time.Millisecond))
	if got, want := alice.members(conv), map[string]string{alice.id: "admin", own: "member"}; !maps.Equal(got, want) || c.With != alice.id {
		t.Errorf("the daemon has members %v, we are with %s", got, c.With)
	}
	await(t, inbox, "what was written before", 20*time.Second, said("before you came"))

	for i, text := range []string{"Grüße", "noch einmal", "drei"} {
		from, began := alice.mark(), time.Now()
		var st struct{ ID, State string }
		n.ask(&st, "message", "send", alice.id, text, "--wait", "30s")
		m := alice.said(from, 30*time.Second, conv, body(text))
		t.Logf("conversation: our text %d is %s after %v", i, st.State, time.Since(began).Round(10*time.Millisecond))
		if st.State != "delivered" || m["author"] != own || !strings.HasPrefix(m["id"], st.ID) {
			t.Errorf("%+v, the daemon has %v", st, m)
		}
		alice.write(conv, "answer to "+text)
		await(t, inbox, "the daemon's text", 30*time.Second, said("answer to "+text))
	}
	// Both at once: one of the two merges.
	from = alice.mark()
	alice.write(conv, "at once")
	n.ask(nil, "message", "send", alice.id, "at the same time", "--wait", "30s")
	alice.said(from, 30*time.Second, conv, body("at the same time"))
	await(t, inbox, "at once", 30*time.Second, said("at once"))
	sameHistory(t, n, conv, peers)
	// swarm dies; the other side's text comes all the same.
	n.killed("swarm")
	alice.write(conv, "after it died")
	await(t, inbox, "after it died", time.Minute, said("after it died"))
	sameHistory(t, n, conv, peers)
	n.stop()
}

// sameHistory waits until daemons and node have the same commits.
func sameHistory(t *testing.T, n *rigNode, conv string, peers []*swarmPeer) {
	t.Helper()
	for _, p := range peers {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			ours, theirs := n.history(conv), p.history(conv)
			if slices.Equal(ours, theirs) {
				t.Logf("conversation: the same %d commits here and there, but for merges", len(ours))
				break
			}
			if time.Now().After(end) {
				t.Fatalf("we have\n%v\nthe daemon\n%v", ours, theirs)
			}
		}
	}
}

// TestNodeStartsAConversation: our node makes a contact of a stock daemon, which accepts.
func TestNodeStartsAConversation(t *testing.T) {
	_, n, own, peers := swarmRig(t, "alice")
	alice := peers[0]
	inbox := n.lines("message", "follow")
	from := alice.mark()
	n.ask(nil, "account", "contact", "add", alice.id)
	alice.wait(from, time.Minute, "incomingTrustRequest", alice.acc)
	began := time.Now()
	alice.call(nil, "configuration.acceptTrustRequest", alice.acc, own)
	c := n.ready("", 2, time.Minute)
	t.Logf("conversation: the daemon has joined ours after %v", time.Since(began).Round(10*time.Millisecond))
	if got, want := alice.members(c.ID), map[string]string{own: "admin", alice.id: "member"}; !maps.Equal(got, want) {
		t.Errorf("the daemon has members %v", got)
	}
	from = alice.mark()
	n.ask(nil, "message", "send", alice.id, "welcome", "--wait", "30s")
	alice.said(from, 30*time.Second, c.ID, body("welcome"))
	alice.write(c.ID, "thanks")
	await(t, inbox, "the answer", 30*time.Second, said("thanks"))
	sameHistory(t, n, c.ID, peers)
	n.stop()
}

// TestGroupWithStock: a stock daemon invites another one and our node into a conversation of three.
func TestGroupWithStock(t *testing.T) {
	_, n, own, peers := swarmRig(t, "alice", "bob")
	alice, bob := peers[0], peers[1]
	inbox := n.lines("message", "follow")
	var conv string
	alice.call(&conv, "configuration.startConversation", alice.acc)
	from, fromBob := alice.mark(), bob.mark()
	alice.call(nil, "configuration.addConversationMember", alice.acc, conv, own)
	alice.call(nil, "configuration.addConversationMember", alice.acc, conv, bob.id)
	for end := time.Now().Add(time.Minute); !slices.ContainsFunc(n.conversations(), func(c nodeConversation) bool { return c.ID == conv && c.State == "invited" && c.From == alice.id }); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no invitation came: %+v", n.conversations())
		}
	}
	began := time.Now()
	n.ask(nil, "conversation", "accept", conv)
	alice.said(from, time.Minute, conv, joins(own))
	t.Logf("conversation: we have joined the group after %v", time.Since(began).Round(10*time.Millisecond))
	bob.wait(fromBob, time.Minute, "conversationRequestReceived", bob.acc, conv)
	bob.call(nil, "configuration.acceptConversationRequest", bob.acc, conv)
	bob.wait(fromBob, time.Minute, "conversationReady", bob.acc, conv)
	n.ready(conv, 3, time.Minute)

	bob.write(conv, "of bob")
	await(t, inbox, "bob's text", time.Minute, said("of bob"))
	alice.write(conv, "of alice")
	await(t, inbox, "alice's text", time.Minute, said("of alice"))
	n.stop()
}
