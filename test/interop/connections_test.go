//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// The page and the command line show how a browser and a phone over TLS are connected.
func TestHowParticipantsAreConnected(t *testing.T) {
	n := startNode(t)
	in := startBrowser(t, 440)
	in.open(n.joinURL(), "Ann")
	n.call(phone{name: "desk", freq: 660, codec: "PCMU/8000/1", transport: "tls", srtp: true}, n.base+40)
	n.wait("both are there", 30*time.Second, func() bool { return n.participants() == 2 })

	var shown struct {
		Connections []contract.Connection `json:"connections"`
	}
	n.wait("round trips", 40*time.Second, func() bool {
		if err := json.Unmarshal([]byte(n.parley("room", "show", "main", "--connections", "--json")), &shown); err != nil {
			t.Fatal(err)
		}
		for _, c := range shown.Connections {
			if !c.Connected || c.Transport == "webrtc" && c.Quality.RTTMs == 0 {
				return false
			}
		}
		return len(shown.Connections) == 2
	})
	for _, c := range shown.Connections {
		switch p, s := c.Path, c.Signalled; {
		case p == nil || s == nil:
			t.Errorf("%+v", c)
		case c.Transport == "webrtc":
			if p.Protocol != "udp" || p.LocalType != "host" || p.RemoteType != "host" && p.RemoteType != "prflx" || p.DTLS != "DTLS 1.2" || !strings.HasPrefix(p.Suite, "TLS_ECDHE_ECDSA_WITH_AES_") ||
				c.Quality.Cipher == "" || s.Over != "websocket" || s.TLS != "" {
				t.Errorf("the browser: %+v, %+v, %+v", p, s, c.Quality)
			}
		case p.Remote == "" || p.RemoteType != "sdp" && p.RemoteType != "latched" || !strings.HasPrefix(c.Quality.Cipher, "AES_CM_128_HMAC_SHA1") || s.Over != "tls" || s.TLS != "TLS 1.3" || !strings.HasPrefix(s.Suite, "TLS_") || s.Local == "":
			t.Errorf("the phone: %+v, %+v, %+v", p, s, c.Quality)
		}
	}
	t.Log(n.parley("room", "show", "main", "--connections"))

	page := startBrowser(t, 440)
	eval := func(js string, into any) {
		t.Helper()
		if err := page.do(map[string]any{"do": "eval", "js": js}, into); err != nil {
			t.Fatal(err)
		}
	}
	if err := page.do(map[string]any{"do": "visit", "url": n.status().Links.Operator}, nil); err != nil {
		t.Fatal(err)
	}
	seen := func(what, js string) {
		t.Helper()
		n.wait(what, 20*time.Second, func() bool {
			var ok bool
			eval("Boolean("+js+")", &ok)
			return ok
		})
	}
	seen("two rows", `document.querySelectorAll("[data-room=main] td button[aria-expanded]").length === 2`)
	eval(`document.querySelectorAll("[data-room=main] td button[aria-expanded]").forEach((b) => b.click())`, nil)
	for _, want := range []string{"DTLS 1.2, TLS_ECDHE_ECDSA_WITH_AES", "SIP over TLS", "TLS 1.3, TLS_", "AES_CM_128_HMAC_SHA1", "WebSocket", "peer reflexive"} {
		seen(want, fmt.Sprintf(`[...document.querySelectorAll("tr.details")].some((e) => e.innerText.includes(%q))`, want))
	}
	for _, look := range []struct {
		name          string
		width, height int
		dark          bool
	}{{"light", 1280, 1000, false}, {"dark", 1280, 1000, true}, {"phone", 390, 1200, false}} {
		if err := page.do(map[string]any{"do": "look", "width": look.width, "height": look.height, "dark": look.dark}, nil); err != nil {
			t.Fatal(err)
		}
		var wide bool
		if eval(`document.documentElement.scrollWidth > innerWidth`, &wide); wide {
			t.Errorf("%s: wider than the window", look.name)
		}
		if dir := os.Getenv("PARLEY_SHOTS"); dir != "" {
			eval(`document.querySelector("[data-room=main]").scrollIntoView({ block: "center" })`, nil)
			if err := page.do(map[string]any{"do": "shot", "path": filepath.Join(dir, "connections-"+look.name+".png")}, nil); err != nil {
				t.Error(err)
			}
		}
	}
	eval(`document.querySelector("[data-room=main] td button[aria-expanded]").click()`, nil)
	seen("one is closed again", `document.querySelectorAll("tr.details:not([hidden])").length === 1`)
}
