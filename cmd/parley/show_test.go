package main

import (
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

// Who is not connected yet is told so, and no cipher is said to be missing before it could be there.
func TestBeforeTheConnectionStands(t *testing.T) {
	var out strings.Builder
	showParticipants(&out, []contract.Participant{{ID: "a", Name: "Ann", Muted: true}, {ID: "b", Name: "Bob", Connected: true}}, 2)
	if lines := strings.Split(out.String(), "\n"); !strings.Contains(lines[1], "connecting,muted") || strings.Contains(lines[2], "connecting") {
		t.Errorf("%s", out.String())
	}
	for _, c := range []struct {
		transport string
		connected bool
		want      string
	}{{"webrtc", false, "not agreed yet"}, {"srtp", false, "not agreed yet"}, {"rtp", false, "none: in clear"}, {"jami", true, "none: in clear"}} {
		out.Reset()
		showConnections(&out, []contract.Connection{{Transport: c.transport, Connected: c.connected, Path: &contract.LegPath{Protocol: "udp"}}})
		if !strings.Contains(out.String(), "cipher\t"+c.want+"\n") {
			t.Errorf("%s, connected: %t: %s", c.transport, c.connected, out.String())
		}
	}
}
