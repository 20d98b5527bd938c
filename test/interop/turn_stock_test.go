//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Stock daemons whose networks let nothing through between them call each other by our
// relay: the connection between the devices by a TCP relay (RFC 6062), the media by a UDP
// one.
func TestStockCallsByOurRelay(t *testing.T) {
	r := startRig(t, 2)
	for i, other := range []string{"10.77.0.2", "10.77.0.1"} {
		run(t, "ip", "netns", "exec", fmt.Sprintf("rp%d", i+1), "nft",
			"add table inet apart; add chain inet apart out { type filter hook output priority 0; policy accept; }; add rule inet apart out ip daddr "+other+" counter drop; "+
				"add rule inet apart out ip6 daddr fe80::/10 drop")
	}
	data := shortDir(t)
	users := filepath.Join(data, "users")
	if err := os.WriteFile(users, []byte("ring:ring\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := startRelay(t, r.sut(parleyBinary(t), "run", "turn", "--data", data, "--turn.listen", rigSUT+":3478", "--turn.users_file", users, "--turn.realm", "ring",
		"--turn.allow_peers", "10.77.0.0/24", "--admin.listen", "", "--log.format", "json"))
	p1, p2 := r.peer(1), r.peer(2)
	ours := map[string]string{"Account.autoAnswer": "true", "TURN.enable": "true", "TURN.server": rigSUT + ":3478", "TURN.username": "ring", "TURN.password": "ring", "TURN.realm": "ring"}
	alice, _ := p1.account("alice", ours)
	_, bobID := p2.account("bob", ours)
	began := time.Now()
	took := p1.dial(alice, bobID)
	said := out.String()
	t.Logf("relay: two stock daemons that reach only the relay talk after %v (%v since the second account was there)", took, time.Since(began))
	for _, kind := range []string{`"relay_transport":"tcp"`, `"relay_transport":"udp"`} {
		if !strings.Contains(said, kind) {
			t.Errorf("no allocation with %s", kind)
		}
	}
	for i := range 2 {
		t.Log(strings.TrimSpace(run(t, "ip", "netns", "exec", fmt.Sprintf("rp%d", i+1), "nft", "list", "ruleset")))
	}
}

// startRelay starts a `parley run turn` that logs JSON, and waits until it relays. It returns what it says.
func startRelay(t *testing.T, cmd *exec.Cmd) *lockedBuffer {
	t.Helper()
	out := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the relay: %v", err)
		}
		if t.Failed() {
			t.Logf("the relay said:\n%s", out.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "relaying"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the relay does not come up\n%s", out.String())
		}
	}
	return out
}
