//go:build interop

package interop

import (
	"strings"
	"testing"
	"time"
)

// A browser through whose network no UDP gets is told so, and put out of the room after a while. It
// comes back by itself as it was: a mute, one's own or a moderator's, is not lost.
func TestMuteOutlivesTheSeat(t *testing.T) {
	n := startNode(t)
	page := startBrowser(t, 440)
	do := func(cmd map[string]any, into any) {
		t.Helper()
		if err := page.do(cmd, into); err != nil {
			t.Fatal(err)
		}
	}
	eval := func(js string, into any) { t.Helper(); do(map[string]any{"do": "eval", "js": js}, into) }
	seen := func(what string, limit time.Duration, js string) {
		t.Helper()
		n.wait(what, limit, func() bool {
			var ok bool
			eval("Boolean("+js+")", &ok)
			return ok
		})
	}
	do(map[string]any{"do": "visit", "url": n.joinURL()}, nil)
	eval(`{
		window.blocked = true; // no address of the node, no packet to it
		const take = RTCPeerConnection.prototype.setRemoteDescription;
		RTCPeerConnection.prototype.setRemoteDescription = function (d) {
			return take.call(this, window.blocked ? { ...d, sdp: d.sdp.replace(/^a=candidate.*\r\n/gm, "") } : d);
		};
		document.querySelector("[data-testid=name]").value = "Ann";
	}`, nil)
	do(map[string]any{"do": "click", "testid": "join"}, nil)
	seen("she is in", 15*time.Second, `parley.state.phase === "room" && parley.state.self`)
	do(map[string]any{"do": "click", "testid": "mute"}, nil)
	seen("she is muted", 5*time.Second, `parley.state.self.muted`)
	if said := n.parley("room", "participants", "main"); !strings.Contains(said, "connecting") {
		t.Errorf("the list of participants says\n%s", said)
	}
	if said := n.parley("room", "show", "main", "--connections"); !strings.Contains(said, "not agreed yet") {
		t.Errorf("of the connection is said\n%s", said)
	}
	seen("that no sound gets through is said", 25*time.Second, `!document.querySelector("#nosound").hidden && document.querySelector("#connection-text").textContent === "No sound gets through"`)

	seen("she is back in a new seat", 60*time.Second, `parley.state.joins === 2 && parley.state.self`)
	seen("her mute is not lost", time.Second, `parley.state.self.muted`)
	seen("it is still said", time.Second, `!document.querySelector("#nosound").hidden`)

	do(map[string]any{"do": "click", "testid": "mute"}, nil)
	seen("she unmutes", 5*time.Second, `!parley.state.self.muted`)
	n.parley("room", "mute", "main", "Ann")
	seen("the operator mutes her", 5*time.Second, `parley.state.self.muted_by`)
	eval(`window.blocked = false`, nil) // the network lets UDP through, for the next seat
	seen("she is back in a third seat", 60*time.Second, `parley.state.joins === 3 && parley.state.self`)
	seen("the operator's mute is not lost", time.Second, `parley.state.self.muted`)
	seen("whose mute it was is said", time.Second, `document.querySelector("#toasts").textContent.includes("a moderator had muted you")`)
	seen("there is sound", 30*time.Second, `document.body.dataset.audio === "connected" && parley.state.self?.connected`)
	seen("nothing is said any more", 3*time.Second, `document.querySelector("#nosound").hidden && parley.state.self.muted`)
}
