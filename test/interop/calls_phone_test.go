//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeCallsPhones: the node calls phones over UDP and TCP into its room, where they hear each
// other; it hangs up; a host that is not named is not called.
func TestNodeCallsPhones(t *testing.T) {
	n := startNodeWith(t, func(n *node) { n.more = append(n.more, "PARLEY_SIP_CALL_HOSTS=127.0.0.1") })
	var hears [2]recording
	for i, p := range []phone{{name: "udp", freq: 700, codec: "opus/48000/1", transport: "udp", waits: true}, {name: "tcp", freq: 1100, codec: "PCMU/8000/1", transport: "tcp", waits: true, srtp: true}} {
		port := n.base + 30 + 20*i
		b := n.call(p, port)
		n.wait("the phone is ready", 15*time.Second, func() bool { return strings.Contains(b.out.String(), "ready") })
		began := time.Now()
		said := n.parley("call", fmt.Sprintf("sip:%s@127.0.0.1:%d;transport=%s", p.name, port, p.transport), "--room", "main", "--name", p.name)
		fmt.Printf("calls: %s: taken after %v\n", p.name, time.Since(began).Round(time.Millisecond))
		if !strings.Contains(said, "taken") {
			t.Errorf("said %q", said)
		}
		n.wait("the phone records", 15*time.Second, func() (ok bool) {
			var err error
			hears[i], err = b.recording()
			return err == nil
		})
	}
	for i, hz := range []float64{1100, 700} {
		n.wait("they hear each other", 30*time.Second, func() bool {
			s, err := fresh(hears[i], 1500)
			level := levelOf(s, hz)
			fmt.Printf("calls: phone %d hears the other at %.1f dBFS\n", i+1, level)
			return err == nil && level > -40
		})
	}
	for _, p := range n.status().Rooms[0].Participants {
		fmt.Printf("calls: %-10s %-8s %-8s %s\n", p.Name, p.Kind, p.Transport, p.Codec)
		n.parley("call", "--hangup", p.ID, "--room", "main")
	}
	n.wait("nobody is left", 10*time.Second, func() bool { return n.participants() == 0 })
	n.callsFromThePage(fmt.Sprintf("sip:tcp@127.0.0.1:%d;transport=tcp", n.base+50))
	if out, err := n.try("call", "sip:x@127.0.0.2", "--room", "main"); err == nil || !strings.Contains(out, "sip.call_hosts") {
		t.Errorf("a host that is not named: %v, %s", err, out)
	}
}

// callsFromThePage calls a phone with the button of the operator's page, and one that nobody has.
func (n *node) callsFromThePage(uri string) {
	n.t.Helper()
	page := startBrowser(n.t, 440)
	eval := func(js string, into any) {
		n.t.Helper()
		if err := page.do(map[string]any{"do": "eval", "js": js}, into); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := page.do(map[string]any{"do": "visit", "url": n.status().Links.Operator}, nil); err != nil {
		n.t.Fatal(err)
	}
	seen := func(what, js string) {
		n.t.Helper()
		n.wait(what, 30*time.Second, func() (ok bool) { eval("Boolean("+js+")", &ok); return ok })
	}
	seen("the room", `document.querySelector("[data-room=main]")`)
	eval(`[...document.querySelectorAll("[data-room=main] button")].find((b) => b.innerText === "Call somebody").click()`, nil)
	call := func(to string) {
		n.t.Helper()
		eval(fmt.Sprintf(`{ const f = document.querySelector("[data-room=main] .calling form"); f.querySelector("input").value = %q; f.requestSubmit(); }`, to), nil)
	}
	call(strings.Repeat("0123456789", 4))
	seen("it says whom it looks for", `document.querySelector("[data-room=main] .calls")?.innerText.includes("01234567…: looking for their devices")`)
	n.shot(page, "call-reaching")
	eval(`document.querySelector("[data-room=main] .calls button").click()`, nil)
	seen("it was given up", `document.querySelector("[data-room=main] .calls")?.innerText.includes("given up")`)
	call(uri)
	seen("the phone is in the roster", `document.querySelector("[data-room=main] tbody")?.innerText.includes("Remove") && !document.querySelector("[data-room=main] .calls button:not([hidden])")`)
	n.shot(page, "call-taken")
	call("sip:x@127.0.0.2")
	seen("why a host is not called", `document.body.innerText.includes("sip.call_hosts")`)
	n.shot(page, "call-refused")
	n.parley("call", "--hangup", n.roster()[0], "--room", "main")
	n.wait("nobody is left", 10*time.Second, func() bool { return n.participants() == 0 })
}

// shot takes a picture of a page into PARLEY_SHOTS, where that is set.
func (n *node) shot(page *browser, name string) {
	n.t.Helper()
	if dir := os.Getenv("PARLEY_SHOTS"); dir != "" {
		if err := page.do(map[string]any{"do": "shot", "path": filepath.Join(dir, name+".png")}, nil); err != nil {
			n.t.Error(err)
		}
	}
}
