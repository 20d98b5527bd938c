package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"
)

const (
	offer     = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n"
	answerSDP = "v=0\r\no=node 1 1 IN IP4 0.0.0.0\r\n"
	opToken   = "an operator's token"
)

// fakeNode is one room "main" with the PIN 1234, and remembers what it was asked.
type fakeNode struct {
	mu      sync.Mutex
	people  map[string]string // participant id -> name
	audio   map[string]bool   // participant id -> audio has come
	seen    []Command
	changed chan struct{} // closed and made anew at each command
	refuse  map[string]*Refusal
	replies map[string]string
	block   map[string]chan struct{}
}

func newFakeNode() *fakeNode {
	return &fakeNode{people: map[string]string{}, audio: map[string]bool{}, changed: make(chan struct{}),
		refuse: map[string]*Refusal{}, replies: map[string]string{}, block: map[string]chan struct{}{}}
}

func (f *fakeNode) Do(ctx context.Context, c Command) (json.RawMessage, error) {
	f.mu.Lock()
	block := f.block[c.Name]
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, &Refusal{Code: "timeout", Message: "no answer", Retry: true}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, c)
	close(f.changed)
	f.changed = make(chan struct{})
	if r := f.refuse[c.Name]; r != nil {
		return nil, r
	}
	if text, ok := f.replies[c.Name]; ok {
		return json.RawMessage(text), nil
	}
	raw, err := json.Marshal(c.Body)
	if err != nil {
		return nil, err
	}
	var b struct{ Name, PIN, Body string }
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, err
	}
	id := ""
	if len(c.Params) > 1 {
		id = c.Params[1]
	}
	seat := func(sdp string) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"participant":{"id":%q,"name":%q,"connected":%t},"sdp":%q,"room":{"name":"main","participants":[]},"seq":7}`,
			id, f.people[id], f.audio[id], sdp))
	}
	switch c.Name {
	case "room.join":
		if b.PIN != "1234" {
			return nil, &Refusal{Code: "pin_wrong", Message: "the PIN is wrong", Retry: true}
		}
		f.people[id] = b.Name
		return seat(answerSDP), nil
	case "room.get":
		if _, ok := f.people[id]; !ok {
			return nil, &Refusal{Code: "gone", Message: "it has ended"}
		}
		return seat(""), nil
	case "room.leave":
		delete(f.people, id)
	case "room.negotiate":
		return json.RawMessage(`{"sdp":"v=0 again"}`), nil
	case "room.list":
		return json.RawMessage(`{"rooms":[{"name":"main"}]}`), nil
	case "room.face":
		return json.RawMessage(`{"name":"main","pin":true}`), nil
	}
	return json.RawMessage(`{"done":true}`), nil
}

// saw waits for a command that is asked for, and returns it.
func (f *fakeNode) saw(t *testing.T, name string) Command {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		f.mu.Lock()
		for i := len(f.seen) - 1; i >= 0; i-- {
			if f.seen[i].Name == name {
				defer f.mu.Unlock()
				return f.seen[i]
			}
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the node was never asked for %s", name)
		}
	}
}

func (f *fakeNode) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.seen {
		if c.Name == name {
			n++
		}
	}
	return n
}

func (f *fakeNode) reply(name, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replies[name] = text
}

func (f *fakeNode) set(name string, r *Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse[name] = r
}

// rig is a running server.
type rig struct {
	s    *Server
	node *fakeNode
	addr string
	stop func() error // ends Run and returns what it returned
}

func start(t *testing.T, with ...func(*Config)) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := newFakeNode()
	page := &fstest.MapFile{Data: []byte("<!doctype html>")}
	cfg := Config{Node: node, Log: zaptest.NewLogger(t), Registry: prometheus.NewRegistry(), Name: "connect", Plain: l,
		Pages:      fstest.MapFS{"start.html": page, "room.html": page, "operator.html": page, "assets/a.js": {Data: []byte("export {}")}},
		SessionKey: []byte(strings.Repeat("k", 32)), OperatorToken: opToken, Ready: func() bool { return true },
		Endpoints: func() any { return map[string]string{"links": "here"} }}
	for _, w := range with {
		w(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r := &rig{s: s, node: node, addr: l.Addr().String()}
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { r.stop() })
	return r
}

// client is a page's side of a socket.
type client struct {
	t    *testing.T
	conn *websocket.Conn
	id   int64
	rest []message // pushed while a reply was waited for
}

func (r *rig) dial(t *testing.T) *client {
	t.Helper()
	conn, resp, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	conn.SetReadLimit(4 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return &client{t: t, conn: conn}
}

func (c *client) send(typ string, data any) int64 {
	c.t.Helper()
	c.id++
	raw, err := json.Marshal(data)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := wsjson.Write(c.t.Context(), c.conn, message{ID: c.id, Type: typ, Data: raw}); err != nil {
		c.t.Fatal(err)
	}
	return c.id
}

func (c *client) read() message {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	var m message
	if err := wsjson.Read(ctx, c.conn, &m); err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return m
}

// ask sends and returns the reply, of the wanted type.
func (c *client) ask(typ string, data any, want string) map[string]any {
	c.t.Helper()
	id := c.send(typ, data)
	for {
		m := c.read()
		if m.ID != id {
			c.rest = append(c.rest, m)
			continue
		}
		if m.Type != want {
			c.t.Fatalf("%s was answered with %s %s, want %s", typ, m.Type, m.Data, want)
		}
		var out map[string]any
		if len(m.Data) > 0 {
			if err := json.Unmarshal(m.Data, &out); err != nil {
				c.t.Fatal(err)
			}
		}
		return out
	}
}

// push returns the next message that is not a reply.
func (c *client) push() message {
	c.t.Helper()
	if len(c.rest) > 0 {
		m := c.rest[0]
		c.rest = c.rest[1:]
		return m
	}
	return c.read()
}

func (c *client) closed() websocket.StatusCode {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	for {
		if _, _, err := c.conn.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func joinData() joinRequest {
	return joinRequest{Room: "main", Name: "Ada", PIN: "1234", Offer: offer}
}

// joined is a client in the room, with its id and session.
func (r *rig) joined(t *testing.T) (c *client, id, token string) {
	t.Helper()
	c = r.dial(t)
	got := c.ask("join", joinData(), "joined")
	return c, got["participant"].(map[string]any)["id"].(string), got["session"].(string)
}

// request does one HTTP request and returns its status, headers and body.
func (r *rig) request(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}
