package web

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/turn"
)

func withRelays(c *Config) {
	c.Relays = &turn.List{Life: time.Hour, Known: []turn.Known{
		{URLs: []string{"turn:a:3478?transport=udp", "turns:a:443"}, Secret: "a secret for tests"},
		{URLs: []string{"turn:b"}, Username: "u", Password: "p"},
		{URLs: []string{"stun:c"}},
	}}
}

// Who is in the room gets credentials, made for him; others get none.
func TestRelaysAreForParticipants(t *testing.T) {
	r := start(t, withRelays)
	c := r.dial(t)
	if got := c.ask("relays", nil, "error"); got["code"] != "forbidden" {
		t.Errorf("before joining: %v", got)
	}
	bad := joinData()
	bad.PIN = "9"
	if text, _ := json.Marshal(r.dial(t).ask("join", bad, "error")); strings.Contains(string(text), "turn:") {
		t.Errorf("with a wrong PIN: %s", text)
	}
	joined := c.ask("join", joinData(), "joined")
	id := joined["participant"].(map[string]any)["id"].(string)
	for name, got := range map[string]any{"join": joined["relays"], "relays": c.ask("relays", nil, "relays"), "get": c.ask("get", nil, "joined")["relays"]} {
		var list relays
		text, err := json.Marshal(got)
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		if err != nil || len(list.Servers) != 3 || list.Seconds != 3600 {
			t.Fatalf("%s: %s, %v", name, text, err)
		}
		own := list.Servers[0]
		who, _, err := turn.Open(own.Username, time.Now())
		if err != nil || who != id || own.Credential != turn.Password([]byte("a secret for tests"), own.Username) || len(own.URLs) != 2 {
			t.Errorf("%s: %+v for %q, %v; the participant is %s", name, own, who, err, id)
		}
		if v := list.Servers[1]; v.Username != "u" || v.Credential != "p" {
			t.Errorf("%s: %+v", name, v)
		}
		if strings.Contains(string(text), "a secret for tests") {
			t.Errorf("%s tells the secret", name)
		}
	}
}

func TestNoRelays(t *testing.T) {
	r := start(t)
	c, _, _ := r.joined(t)
	if _, there := c.ask("get", nil, "joined")["relays"]; there {
		t.Error("there are none to tell of")
	}
	if got := c.ask("relays", nil, "relays"); len(got["servers"].([]any)) != 0 {
		t.Error(got)
	}
}

// RFC 9725 §4.6.
func TestWHIPLinksRelays(t *testing.T) {
	r := start(t, withRelays)
	post := func(pin string) (int, []string) {
		res, _ := r.request(t, "POST", "/whip/main", offer, "Content-Type", "application/sdp", "Authorization", "Bearer "+pin)
		return res.StatusCode, res.Header.Values("Link")
	}
	code, links := post("1234")
	if code != 201 || len(links) != 4 {
		t.Fatal(code, links)
	}
	for i, want := range []string{`<turn:a:3478?transport=udp>; rel="ice-server"; username="`, `<turns:a:443>; rel="ice-server"; username="`,
		`<turn:b>; rel="ice-server"; username="u"; credential="p"; credential-type="password"`, `<stun:c>; rel="ice-server"`} {
		if !strings.HasPrefix(links[i], want) || i == 3 && links[i] != want {
			t.Errorf("%s, want %s", links[i], want)
		}
	}
	if code, links := post("9"); code != 401 || len(links) != 0 {
		t.Error(code, links)
	}
}
