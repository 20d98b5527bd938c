package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func event(typ, participant, reason string, seq int) *Event {
	raw := fmt.Sprintf(`{"seq":%d,"type":%q,"room":"main","reason":%q,"participant":{"id":%q}}`, seq, typ, reason, participant)
	return &Event{Room: "main", Type: typ, Participant: participant, Reason: reason, Raw: json.RawMessage(raw)}
}

func TestJoinTalkAndLeave(t *testing.T) {
	r := start(t)
	c, id, _ := r.joined(t)
	join := r.node.saw(t, "room.join")
	body := join.Body.(joinBody)
	if body.Source != "127.0.0.1" || body.Kind != "browser" || body.Transport != "webrtc" || body.Offer != offer || join.Params[1] != id {
		t.Errorf("join as %v with %+v", join.Params, body)
	}
	for _, step := range []struct {
		typ  string
		data any
		want string
	}{
		{"mute", muteRequest{Muted: true}, "ok"},
		{"hand", handRequest{Raised: true}, "ok"},
		{"role", roleRequest{Participant: "bob", Role: "listener"}, "ok"},
		{"kick", kickRequest{Participant: "bob"}, "ok"},
		{"lock", lockRequest{Locked: true}, "ok"},
		{"chat", chatRequest{Body: "hello", Key: "k1"}, "ok"},
		{"history", historyRequest{Limit: 20}, "ok"},
		{"negotiate", negotiateRequest{SDP: offer}, "negotiated"},
		{"get", nil, "joined"},
		{"ping", nil, "pong"},
	} {
		c.ask(step.typ, step.data, step.want)
		if step.typ == "ping" {
			continue
		}
		if cmd := r.node.saw(t, "room."+step.typ); cmd.Params[0] != "main" || cmd.Params[1] != id {
			t.Errorf("%s was sent as %v, want the socket's own seat", step.typ, cmd.Params)
		}
	}
	if k := r.node.saw(t, "room.chat").Key; k != "k1" {
		t.Errorf("chat has the key %q, want k1", k)
	}
	c.ask("leave", nil, "ok")
	if code := c.closed(); code != websocket.StatusNormalClosure {
		t.Errorf("closed with %d", code)
	}
}

func TestRefusalsLeaveTheSocketUsable(t *testing.T) {
	r := start(t)
	c := r.dial(t)
	for name, tc := range map[string]struct {
		typ  string
		data any
		code string
	}{
		"not joined":    {"mute", muteRequest{Muted: true}, "forbidden"},
		"wrong PIN":     {"join", joinRequest{Room: "main", Name: "Ada", PIN: "1", Offer: offer}, "pin_wrong"},
		"bad room":      {"join", joinRequest{Room: "a.b.>", Name: "Ada", Offer: offer}, "bad_request"},
		"no name":       {"join", joinRequest{Room: "main", Name: "\u202e \t", Offer: offer}, "bad_request"},
		"no offer":      {"join", joinRequest{Room: "main", Name: "Ada"}, "bad_request"},
		"unknown type":  {"shout", nil, "bad_request"},
		"wrong field":   {"join", map[string]any{"room": 7}, "bad_request"},
		"false session": {"resume", resumeRequest{Session: "x.y"}, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.ask(tc.typ, tc.data, "error"); got["code"] != tc.code || got["message"] == "" {
				t.Errorf("refused with %v, want %s", got, tc.code)
			}
		})
	}
	if n := r.s.refused.Load(); n != 5 { // not what the node refuses
		t.Errorf("%d messages counted as not understood", n)
	}
	c.ask("join", joinData(), "joined")
	if got := c.ask("join", joinData(), "error"); got["code"] != "exists" {
		t.Errorf("second join: %v", got)
	}
}

// The log and the metrics tell of strangers who don't speak the protocol, not of
// connections that end.
func TestMalformedFramesAreCounted(t *testing.T) {
	r := start(t)
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.EOF, false}, {fmt.Errorf("read: %w", net.ErrClosed), false}, {context.DeadlineExceeded, false}, {&net.OpError{Err: syscall.ECONNRESET}, false},
		{websocket.CloseError{Code: websocket.StatusGoingAway}, false}, {errors.New("received reserved opcode"), true},
	} {
		if got := malformed(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
	gone := r.dial(t)
	gone.conn.CloseNow()
	c := r.dial(t)
	if err := c.conn.Write(t.Context(), websocket.MessageText, make([]byte, maxMessage+1)); err != nil {
		t.Fatal(err)
	}
	c.closed()
	for deadline := time.Now().Add(5 * time.Second); r.s.refused.Load() == 0 && time.Now().Before(deadline); { // counted after the close
		time.Sleep(time.Millisecond)
	}
	if n := r.s.refused.Load(); n != 1 {
		t.Errorf("%d counted, want 1", n)
	}
}

func TestEventsComeAfterJoinedAndNoneIsMissed(t *testing.T) {
	r := start(t)
	hold := make(chan struct{})
	r.node.block["room.join"] = hold
	c := r.dial(t)
	c.send("join", joinData())
	for deadline := time.Now().Add(5 * time.Second); r.s.hub.size("main") == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the socket never took its place in the room")
		}
		time.Sleep(time.Millisecond)
	}
	r.s.Publish(event("joined", "bob", "", 8)) // while conference still answers
	close(hold)
	if m := c.read(); m.Type != "joined" {
		t.Fatalf("first came %s", m.Type)
	}
	m := c.read()
	if m.Type != "events" || !strings.Contains(string(m.Data), `"seq":8`) {
		t.Fatalf("then came %s %s", m.Type, m.Data)
	}
	other := *event("joined", "x", "", 9)
	other.Room = "elsewhere"
	r.s.Publish(&other)
	r.s.Publish(event("voice", "bob", "", 10))
	if m := c.push(); strings.Contains(string(m.Data), "elsewhere") || !strings.Contains(string(m.Data), `"seq":10`) {
		t.Fatalf("got %s", m.Data)
	}
	r.s.Resync()
	if m := c.push(); m.Type != "resync" {
		t.Fatalf("got %s, want resync", m.Type)
	}
}

func TestEndsAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		typ, reason, want string
		retry             bool
		code              websocket.StatusCode
	}{
		"kicked":   {"left", "kicked", "kicked", false, websocket.StatusNormalClosure},
		"lost":     {"left", "lost", "lost", true, websocket.StatusNormalClosure},
		"removed":  {"closed", "removed", "removed", false, websocket.StatusNormalClosure},
		"shutdown": {"closed", "shutdown", "shutdown", true, websocket.StatusGoingAway},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			c, id, _ := r.joined(t)
			r.s.Publish(event(tc.typ, id, tc.reason, 8))
			if m := c.push(); m.Type != "events" {
				t.Fatalf("got %s, want the event first", m.Type)
			}
			m := c.push()
			var f farewell
			if err := json.Unmarshal(m.Data, &f); err != nil || m.Type != "bye" || f.Reason != tc.want || f.Retry != tc.retry {
				t.Fatalf("got %s %s (%v)", m.Type, m.Data, err)
			}
			if code := c.closed(); code != tc.code {
				t.Errorf("closed with %d, want %d", code, tc.code)
			}
		})
	}
}

func TestResumeAfterTheProcessDied(t *testing.T) {
	first := start(t)
	_, id, token := first.joined(t)
	first.stop()
	second := start(t)
	second.node.people[id] = "Ada" // conference kept the seat
	c := second.dial(t)
	got := c.ask("resume", resumeRequest{Session: token}, "joined")
	if got["participant"].(map[string]any)["id"] != id {
		t.Fatalf("resumed as %v, want %s", got["participant"], id)
	}
	if second.node.count("room.join") != 0 || second.node.count("room.negotiate") != 0 {
		t.Error("resuming touched the seat or its audio")
	}
	second.s.Publish(event("voice", id, "", 9))
	if m := c.push(); m.Type != "events" {
		t.Fatalf("got %s, want events again", m.Type)
	}
}

func TestResumeOfASeatThatIsGone(t *testing.T) {
	r := start(t)
	c, id, token := r.joined(t)
	c.conn.CloseNow()
	r.node.mu.Lock()
	delete(r.node.people, id)
	r.node.mu.Unlock()
	d := r.dial(t)
	if got := d.ask("resume", resumeRequest{Session: token}, "error"); got["code"] != "gone" {
		t.Fatalf("got %v, want gone", got)
	}
	d.ask("join", joinData(), "joined")
}

func TestResumeElsewhereReplacesTheOldSocket(t *testing.T) {
	r := start(t)
	c, _, token := r.joined(t)
	r.dial(t).ask("resume", resumeRequest{Session: token}, "joined")
	if m := c.push(); m.Type != "bye" || !strings.Contains(string(m.Data), "replaced") {
		t.Fatalf("the old socket got %s %s", m.Type, m.Data)
	}
}

func TestStopTellsEveryPageInTime(t *testing.T) {
	r := start(t)
	var pages []*client
	for range 20 {
		c, _, _ := r.joined(t)
		pages = append(pages, c)
	}
	silent := r.dial(t) // reads nothing, answers no close frame
	_ = silent
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("stopped after %s, want under a second or so", took)
	}
	for _, c := range pages {
		if m := c.push(); m.Type != "bye" || !strings.Contains(string(m.Data), "shutdown") {
			t.Fatalf("got %s %s", m.Type, m.Data)
		}
		if code := c.closed(); code != websocket.StatusGoingAway {
			t.Errorf("closed with %d, want 1001", code)
		}
	}
}

func TestSlowReaderIsClosedAndSlowsNobody(t *testing.T) {
	r := start(t)
	r.joined(t) // and never reads
	quick, id, _ := r.joined(t)
	body := strings.Repeat("x", 64<<10)
	// 64 MiB: far more than what the kernel's buffers and the queue hold. The quick
	// one reads each before the next is published.
	for range 1000 {
		r.s.Publish(event("chat", "bob", body, 8))
		if m := quick.push(); m.Type != "events" {
			t.Fatalf("the quick reader got %s %.80s", m.Type, m.Data)
		}
	}
	r.s.hub.mu.Lock()
	defer r.s.hub.mu.Unlock()
	for k := range r.s.hub.rooms["main"] {
		if k.seat().participant != id && !k.ending() {
			t.Error("who reads nothing is still waited for")
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	r := start(t)
	k := &socket{s: r.s, wake: make(chan struct{}, 1)}
	k.sit(session{"main", "ada"})
	for range queueEvents + 10 {
		k.event(json.RawMessage(`{}`))
	}
	if k.end == nil || k.end.Reason != "slow" || len(k.events) > queueEvents {
		t.Fatalf("end %v with %d events queued", k.end, len(k.events))
	}
}

func TestQualityIsCutInACrowd(t *testing.T) {
	r := start(t)
	c, id, _ := r.joined(t)
	e := event("quality", "", "", 0)
	e.Qualities = map[string]json.RawMessage{id: json.RawMessage(`{"rtt_ms":5}`)}
	for i := range crowd {
		e.Qualities[fmt.Sprintf("p%d", i)] = json.RawMessage(`{}`)
	}
	r.s.Publish(e)
	m := c.push()
	var got []struct {
		Type      string
		Qualities map[string]struct {
			RTT float64 `json:"rtt_ms"`
		}
	}
	if err := json.Unmarshal(m.Data, &got); err != nil || len(got) != 1 || got[0].Type != "quality" {
		t.Fatalf("%s: %v", m.Data, err)
	}
	if len(got[0].Qualities) != 1 || got[0].Qualities[id].RTT != 5 {
		t.Errorf("got %v, want one's own alone", got[0].Qualities)
	}
}

func TestSeatWithoutAPageAndWithoutAudioIsGivenUp(t *testing.T) {
	r := start(t, func(c *Config) { c.OrphanAfter = time.Millisecond })
	c, id, _ := r.joined(t)
	c.conn.CloseNow()
	if cmd := r.node.saw(t, "room.leave"); cmd.Params[1] != id {
		t.Errorf("left %v, want %s", cmd.Params, id)
	}
}

func TestSeatWithAudioOutlivesItsPage(t *testing.T) {
	r := start(t, func(c *Config) { c.OrphanAfter = time.Millisecond })
	c, id, _ := r.joined(t)
	r.node.mu.Lock()
	r.node.audio[id] = true
	r.node.mu.Unlock()
	c.conn.CloseNow()
	r.node.saw(t, "room.get")
	r.stop()
	if n := r.node.count("room.leave"); n != 0 {
		t.Error("a seat with audio was given up")
	}
}

func TestFloodAndOtherSitesAreRefused(t *testing.T) {
	r := start(t)
	c := r.dial(t)
	for range msgsBurst + 20 {
		if c.conn.Write(t.Context(), websocket.MessageText, []byte(`{"id":1,"type":"ping"}`)) != nil {
			break
		}
	}
	if code := c.closed(); code != websocket.StatusPolicyViolation {
		t.Errorf("a flood was closed with %d", code)
	}
	huge := r.dial(t)
	if err := huge.conn.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat(" ", maxMessage+1))); err != nil {
		t.Fatal(err)
	}
	if code := huge.closed(); code != websocket.StatusMessageTooBig {
		t.Errorf("a huge message was closed with %d", code)
	}
	res, _ := r.request(t, "GET", "/ws", "", "Origin", "https://evil.example", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg==")
	if res.StatusCode != 403 {
		t.Errorf("another site's page got %d, want 403", res.StatusCode)
	}
}
