package web

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestWHIP(t *testing.T) {
	r := start(t)
	sdp := []string{"Content-Type", "application/sdp", "Authorization", "Bearer 1234"}
	for _, kind := range []string{"whip", "whep"} {
		t.Run(kind, func(t *testing.T) {
			res, body := r.request(t, "POST", "/"+kind+"/main?name=OBS", offer, sdp...)
			if res.StatusCode != 201 || body != answerSDP || res.Header.Get("Content-Type") != "application/sdp" || res.Header.Get("ETag") == "" {
				t.Fatalf("%s %q %v", res.Status, body, res.Header)
			}
			join := r.node.saw(t, "room.join").Body.(joinBody)
			if join.Name != "OBS" || join.PIN != "1234" || join.Muted != (kind == "whep") {
				t.Errorf("joined as %+v", join)
			}
			if kind == "whep" {
				if role := r.node.saw(t, "room.role").Body.(roleRequest); role.Role != "listener" {
					t.Errorf("role %+v", role)
				}
			}
			at, etag := res.Header.Get("Location"), res.Header.Get("ETag")
			const frag = "application/trickle-ice-sdpfrag"
			for _, tc := range []struct {
				typ, match string
				want       int
			}{{frag, etag, 204}, {frag, `"other"`, 412}, {frag, "*", 422}, {frag, "", 428}, {"text/plain", etag, 415}} {
				res, _ := r.request(t, "PATCH", at, "a=ice-ufrag:x\r\n", "Content-Type", tc.typ, "If-Match", tc.match)
				if res.StatusCode != tc.want {
					t.Errorf("PATCH of %s with If-Match %q: %s, want %d", tc.typ, tc.match, res.Status, tc.want)
				}
			}
			if res, _ := r.request(t, "DELETE", at, ""); res.StatusCode != 200 {
				t.Errorf("DELETE: %s", res.Status)
			}
			if cmd := r.node.saw(t, "room.leave"); !strings.Contains(at, cmd.Params[0]) {
				t.Errorf("left %v", cmd.Params)
			}
			if res, _ := r.request(t, "DELETE", at+"x", ""); res.StatusCode != 404 {
				t.Errorf("DELETE of a false session: %s", res.Status)
			}
		})
	}
}

func TestWHIPRefusals(t *testing.T) {
	r := start(t)
	for name, tc := range map[string]struct {
		path, body, typ, auth string
		want                  int
	}{
		"wrong PIN":   {"/whip/main", offer, "application/sdp", "Bearer 9", 401},
		"no PIN":      {"/whip/main", offer, "application/sdp", "", 401},
		"wrong type":  {"/whip/main", offer, "text/plain", "Bearer 1234", 415},
		"no SDP":      {"/whip/main", "hello", "application/sdp", "Bearer 1234", 400},
		"huge":        {"/whip/main", "v=0" + strings.Repeat("x", maxSDP), "application/sdp", "Bearer 1234", 413},
		"bad room":    {"/whip/a.b", offer, "application/sdp", "Bearer 1234", 400},
		"bad token":   {"/whip/main", offer, "application/sdp", "Bearer a\tb", 400},
		"other paths": {"/whip/", offer, "application/sdp", "Bearer 1234", 404},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := r.request(t, "POST", tc.path, tc.body, "Content-Type", tc.typ, "Authorization", tc.auth)
			if res.StatusCode != tc.want {
				t.Errorf("%s %s, want %d", res.Status, body, tc.want)
			}
		})
	}
	res, _ := r.request(t, "POST", "/whip/main", offer, "Content-Type", "application/sdp", "Authorization", "Bearer 1234", "Sec-Fetch-Site", "cross-site")
	if res.StatusCode != 403 {
		t.Errorf("from another site: %s, want 403", res.Status)
	}
}

func TestOperatorsAPI(t *testing.T) {
	r := start(t)
	auth := []string{"Authorization", "Bearer " + opToken}
	for _, tc := range []struct{ method, path, body, command string }{
		{"GET", "/rooms", "", "room.list"}, {"POST", "/rooms", `{"name":"a"}`, "room.create"}, {"DELETE", "/rooms/a", "", "room.remove"},
		{"POST", "/rooms/main/kick", `{"participant":"p"}`, "room.kick"}, {"POST", "/rooms/main/mute", `{"participant":"p","muted":true}`, "room.mute"},
		{"POST", "/rooms/main/lock", `{"locked":true}`, "room.lock"}, {"GET", "/bots", "", "bot.list"}, {"DELETE", "/bots/b", "", "bot.revoke"},
		{"PUT", "/account", `{"rendezvous":false}`, "account.set"}, {"GET", "/rooms/main/connections?participant=p", "", "room.connections"},
		{"POST", "/rooms/main/call", `{"to":"sip:bob@pbx.example.org"}`, "room.call"}, {"POST", "/rooms/main/hangup", `{"call":"c"}`, "room.hangup"},
	} {
		t.Run(tc.command, func(t *testing.T) {
			for _, wrong := range [][]string{nil, {"Authorization", "Bearer x"}, {"Authorization", "Basic " + opToken}} {
				res, _ := r.request(t, tc.method, "/api/v1"+tc.path, tc.body, wrong...)
				if res.StatusCode != 401 || r.node.count(tc.command) != 0 {
					t.Fatalf("with %v: %s", wrong, res.Status)
				}
			}
			res, body := r.request(t, tc.method, "/api/v1"+tc.path, tc.body, auth...)
			if res.StatusCode/100 != 2 {
				t.Fatalf("%s %s", res.Status, body)
			}
			cmd := r.node.saw(t, tc.command)
			if strings.HasPrefix(tc.path, "/rooms/main/") && (len(cmd.Params) != 2 || cmd.Params[1] != operator) {
				t.Errorf("asked as %v", cmd.Params)
			}
		})
	}
	r.node.set("room.kick", &Refusal{Code: "not_found", Message: "nobody of that id"})
	if res, body := r.request(t, "POST", "/api/v1/rooms/main/kick", `{}`, auth...); res.StatusCode != 404 || !strings.Contains(body, "nobody") {
		t.Errorf("refusal: %s %s", res.Status, body)
	}
	if res, _ := r.request(t, "POST", "/api/v1/rooms/main/kick", `{`, auth...); res.StatusCode != 400 {
		t.Errorf("bad JSON: %s", res.Status)
	}
}

func TestStatusSaysWhoIsMissing(t *testing.T) {
	r := start(t)
	r.node.set("bot.list", &Refusal{Code: "unavailable", Message: "down", Retry: true})
	_, body := r.request(t, "GET", "/api/v1/status", "", "Authorization", "Bearer "+opToken)
	var st state
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		t.Fatal(err)
	}
	if len(st.Missing) != 1 || st.Missing[0] != "bot.list" || !strings.Contains(string(st.Rooms), "main") {
		t.Errorf("got %s", body)
	}
}

func TestLiveStateIsStreamed(t *testing.T) {
	r := start(t, func(c *Config) { c.WriteWithin = 100 * time.Millisecond }) // which is not for streams
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.addr+"/api/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+opToken)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 6)
	if _, err := res.Body.Read(b); err != nil || string(b) != "data: " || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%q %v %v", b, err, res.Header)
	}
	for rest, states := bufio.NewReader(res.Body), 0; states < 2; states++ {
		if _, err := rest.ReadString('\n'); err != nil {
			t.Fatalf("after %d states: %v", states, err)
		}
		if _, err := rest.Discard(1); err != nil { // the empty line
			t.Fatal(err)
		}
	}
	began := time.Now()
	r.stop() // an open stream does not hold up the end
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

func TestPagesAndHeaders(t *testing.T) {
	r := start(t)
	for path, want := range map[string]int{"/": 200, "/r/main": 200, "/operator": 200, "/assets/a.js": 200, "/healthz": 200, "/readyz": 200,
		"/robots.txt": 200, "/assets/../room.html": 404, "/assets/none": 404, "/nothing": 404, "/r/main/x": 404, "/api/v1/nothing": 404, "/api/v1/rooms/main/face": 200, "/api/v1/rooms/a.b/face": 400} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = path
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want && !(want == 404 && res.StatusCode/100 == 3) {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
		csp := res.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, res.Header)
		}
	}
	if res, body := r.request(t, "GET", "/nothing", ""); res.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(body, "<!doctype html>") {
		t.Errorf("an address that is none: %v %q, want a page", res.Header, body)
	}
	res, _ := r.request(t, "GET", "/", "")
	if again, _ := r.request(t, "GET", "/", "", "If-None-Match", res.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("known page: %s, want 304", again.Status)
	}
}

func TestFaceTellsWhereItIsSecure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) { c.TLS = l })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, body := r.request(t, "GET", "/api/v1/rooms/main/face", ""); !strings.Contains(body, `"https_port":"`+port+`"`) || !strings.Contains(body, `"pin":true`) {
		t.Errorf("face %s, want the port %s", body, port)
	}
	r = start(t)
	if _, body := r.request(t, "GET", "/api/v1/rooms/main/face", ""); strings.Contains(body, "https_port") {
		t.Errorf("face %s without TLS", body)
	}
}

// Connections that never send a request must not keep others out.
func TestHalfOpenConnections(t *testing.T) {
	r := start(t)
	for i := range 2000 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := fmt.Fprint(c, "GET /ws HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	r.joined(t)
}

func TestJunkIsClosed(t *testing.T) {
	r := start(t)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	junk := []byte(strings.Repeat("\x16\x03junk", 4096))
	for range 1000 { // 24 MB, or until the node has had enough
		if _, err := c.Write(junk); err != nil {
			break
		}
	}
	r.joined(t)
}

// What is asked for and not read ends: whoever holds connections open that way
// would have all of them in time.
func TestUnreadAnswersEnd(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, func(c *Config) {
		c.WriteWithin = 200 * time.Millisecond
		c.Docs = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			big := make([]byte, 1<<20)
			for {
				if _, err := w.Write(big); err != nil {
					ended <- err
					return
				}
			}
		})
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /docs HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the answer still waits to be read")
	}
	// Sockets and the live state set their own.
	sock, _, _ := r.joined(t)
	time.Sleep(300 * time.Millisecond)
	sock.ask("ping", nil, "pong")
}
