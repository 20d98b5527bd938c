//go:build interop

package interop

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// lines follows a command that prints JSON lines, until the test ends.
func (n *rigNode) lines(args ...string) *lockedBuffer {
	n.r.t.Helper()
	return n.runs(args...).out
}

// running is a command that goes on.
type running struct {
	out    *lockedBuffer
	signal func(os.Signal) error
}

// runs starts a command, which ends with the test at last.
func (n *rigNode) runs(args ...string) *running {
	n.r.t.Helper()
	cmd := n.r.sut(append(append([]string{parleyBinary(n.r.t)}, args...), "--data", n.data, "--json")...)
	out := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		n.r.t.Fatal(err)
	}
	n.r.t.Cleanup(func() {
		cmd.Process.Kill() // an error: it has ended
		cmd.Wait()
		if n.r.t.Failed() {
			n.r.t.Logf("%v said:\n%s", args, out)
		}
	})
	return &running{out: out, signal: cmd.Process.Signal}
}

// heard is one line of a command that follows.
type heard struct {
	Contact *struct {
		ID        string
		Confirmed bool
	}
	Message  *struct{ ID, From, Type, Body string }
	State    *struct{ ID, State string }
	Presence *struct {
		ID     string
		Online bool
	}
}

func await(t *testing.T, out *lockedBuffer, what string, limit time.Duration, is func(heard) bool) {
	t.Helper()
	began := time.Now()
	for end := began.Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for s := bufio.NewScanner(strings.NewReader(out.String())); s.Scan(); {
			var h heard
			if json.Unmarshal(s.Bytes(), &h) == nil && is(h) {
				t.Logf("%s after %s", what, time.Since(began).Round(10*time.Millisecond))
				return
			}
		}
	}
	t.Fatalf("%s: not within %s", what, limit)
}

// TestMessagesOverOpenDHT: a stock daemon and our node, which are contacts and have no
// connection, see each other online and write to one another through the overlay alone.
func TestMessagesOverOpenDHT(t *testing.T) {
	r := startRig(t, 1)
	p := r.peer(1)
	alice, aliceID := p.account("alice", nil)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	var own struct{ ID string }
	n.ask(&own, "account", "show")
	n.logged(time.Minute, "device announced") // a daemon confirms to the devices that it finds, and looks once
	contacts := n.lines("account", "contacts", "--follow")
	inbox := n.lines("message", "follow")

	from := p.mark()
	n.ask(nil, "account", "contact", "add", aliceID)
	p.wait(from, 90*time.Second, "incomingTrustRequest", alice)
	await(t, contacts, "alice is online", time.Minute, func(h heard) bool { return h.Presence != nil && h.Presence.ID == aliceID && h.Presence.Online })
	p.call(nil, "configuration.acceptTrustRequest", alice, own.ID)
	await(t, contacts, "alice has accepted", time.Minute, func(h heard) bool { return h.Contact != nil && h.Contact.ID == aliceID && h.Contact.Confirmed })

	// We write to the daemon.
	from = p.mark()
	var st struct{ ID, State string }
	began := time.Now()
	n.ask(&st, "message", "send", aliceID, "Grüße", "--direct", "--wait", "40s")
	t.Logf("our message is %s after %s", st.State, time.Since(began).Round(10*time.Millisecond))
	args := p.wait(from, time.Minute, "incomingAccountMessage", alice)
	var payloads map[string]string
	if err := json.Unmarshal(args[len(args)-1], &payloads); err != nil || payloads["text/plain"] != "Grüße" ||
		!slices.ContainsFunc(args, func(a json.RawMessage) bool { return string(a) == `"`+own.ID+`"` }) {
		t.Errorf("the daemon reads %s, %v", args, err)
	}
	if st.State != "delivered" {
		t.Errorf("what we sent is %+v", st)
	}

	// The daemon writes to us.
	from = p.mark()
	p.call(nil, "configuration.sendTextMessage", alice, own.ID, map[string]string{"text/plain": "zurück"})
	await(t, inbox, "we read the answer", time.Minute, func(h heard) bool {
		return h.Message != nil && h.Message.From == aliceID && h.Message.Type == "text/plain" && h.Message.Body == "zurück"
	})
	// It has our confirmation: 2 is "sent" in its words.
	for end := time.Now().Add(time.Minute); !slices.ContainsFunc(p.events(from), func(e rigEvent) bool {
		return e.name == "accountMessageStatusChanged" && string(e.args[len(e.args)-1]) == "2"
	}); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the daemon has no confirmation of its message")
		}
	}

	// The example answers by itself: a bot with its rights, and no others.
	dir := shortDir(t)
	creds, bot := filepath.Join(dir, "answer.creds"), filepath.Join(dir, "answer")
	n.ask(nil, "bot", "create", "answer", "--room", "main", "--allow", "messages,presence", "--out", creds)
	if out, err := exec.Command("go", "build", "-tags", "nolibopusfile", "-o", bot, "../../examples/answer").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	running, said := r.sut(bot, "-creds", creds), new(lockedBuffer)
	running.Stderr = said
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		running.Process.Kill() // an error: it has ended
		running.Wait()
		if t.Failed() {
			t.Logf("the bot said:\n%s", said)
		}
	})
	for end := time.Now().Add(time.Minute); !strings.Contains(said.String(), aliceID+" is online: true") || !strings.Contains(said.String(), "answers what people write"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the bot said %s", said)
		}
	}
	n.ready("", 2, time.Minute) // alice has joined the conversation of the two
	from = p.mark()
	p.call(nil, "configuration.sendTextMessage", alice, own.ID, map[string]string{"text/plain": "hello bot"})
	// It answers in that conversation.
	args = p.wait(from, time.Minute, "messageReceived", alice)
	var m map[string]string
	if err := json.Unmarshal(args[len(args)-1], &m); err != nil || !strings.Contains(m["body"], `You wrote "hello bot"`) || m["author"] != own.ID {
		t.Errorf("the bot answers %s, %v", args, err)
	}
	n.stop()
}

// TestTextsOverAConnection: after a call the daemon's channel is there, on which texts go both
// ways.
func TestTextsOverAConnection(t *testing.T) {
	t.Setenv("RIG_DHT", "none")
	r := startRig(t, 1)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht")
	p := r.peer(1)
	alice, aliceID := p.account("alice", map[string]string{"Account.hostname": rigSUT + ":4224"})
	var own struct{ ID string }
	n.ask(&own, "account", "show")
	n.logged(time.Minute, "device announced")
	inbox := n.lines("message", "follow")
	var call string
	p.call(&call, "call.placeCallWithMedia", alice, own.ID, []map[string]string{
		{"MEDIA_TYPE": "MEDIA_TYPE_AUDIO", "ENABLED": "true", "MUTED": "false", "SOURCE": "", "LABEL": "audio_0"}})
	n.logged(time.Minute, `"channel accepted"`, `"sip"`)
	p.call(nil, "call.hangUp", alice, call)

	for _, text := range []string{"Grüße", "noch einmal"} {
		from, began := p.mark(), time.Now()
		var st struct{ ID, State, Device string }
		n.ask(&st, "message", "send", aliceID, text, "--wait", "20s")
		took := time.Since(began)
		n.logged(time.Second, `"message sent on a connection"`, st.ID, `"confirmed":true`)
		if st.State != "delivered" || st.Device == "" {
			t.Errorf("what we sent is %+v", st)
		}
		args := p.wait(from, 20*time.Second, "incomingAccountMessage", alice)
		var payloads map[string]string
		if err := json.Unmarshal(args[len(args)-1], &payloads); err != nil || payloads["text/plain"] != text {
			t.Errorf("the daemon reads %s, %v", args, err)
		}
		t.Logf("texts: a message over the channel is delivered after %v, the command's start included", took)
	}

	from, began := p.mark(), time.Now()
	p.call(nil, "configuration.sendTextMessage", alice, own.ID, map[string]string{"text/plain": "zurück"})
	await(t, inbox, "we read the answer", 20*time.Second, func(h heard) bool {
		return h.Message != nil && h.Message.From == aliceID && h.Message.Body == "zurück"
	})
	for end := time.Now().Add(20 * time.Second); !slices.ContainsFunc(p.events(from), func(e rigEvent) bool {
		return e.name == "accountMessageStatusChanged" && string(e.args[len(e.args)-1]) == "2"
	}); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the daemon has no confirmation of its message")
		}
	}
	t.Logf("texts: the daemon's message is confirmed after %v", time.Since(began))
	n.stop()
}
