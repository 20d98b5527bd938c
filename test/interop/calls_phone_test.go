//go:build interop

package interop

import (
	"fmt"
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
	if out, err := n.try("call", "sip:x@127.0.0.2", "--room", "main"); err == nil || !strings.Contains(out, "sip.call_hosts") {
		t.Errorf("a host that is not named: %v, %s", err, out)
	}
}
