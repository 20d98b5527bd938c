//go:build interop

package interop

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The echo and the helper outlive media and the node: they come back and do their jobs.
func TestBotsOutliveTheNode(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-tags", "nolibopusfile", "-o", dir, "../../examples/echo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s, creds := n.stage(t, "echo", "listen,speak")
	s.node = n // which is started again below
	bot := start(t, filepath.Join(dir, "echo"), "-creds", creds, "-url", n.busURL())
	s.await("Echo test")
	h, helpers := n.stage(t, "helper", "chat")
	h.node = n
	start(t, "node", "../../examples/js/helper.js", helpers, n.busURL())
	h.await("Helper")
	answers := func(ask, answer string) {
		t.Helper()
		if _, err := h.room.Chat(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		h.says(answer)
	}
	heard := func(after string) {
		t.Helper()
		s.enter()
		was := s.came("echo-bot")
		began := time.Now()
		s.play("people: [{name: Ann, speak: [{from: 500ms, to: 2500ms, tone: 700}], leave: 10s}]")
		s.wait("the echo is heard "+after, 20*time.Second, func() bool { return s.came("echo-bot") > was+1500 })
		fmt.Printf("example: echo %s: heard %v later\n", after, time.Since(began).Round(100*time.Millisecond))
	}
	heard("at first")
	answers("!help", "!who: who is here")
	if err := syscall.Kill(n.pid("media"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.wait("media is back", 20*time.Second, n.ready)
	heard("after media died")
	n.stop()
	n.start()
	s.await("Echo test")
	heard("after the node was stopped and started")
	h.await("Helper")
	answers("!hands", "No hand is up")
	if joins := strings.Count(bot.out.String(), "joined"); joins < 2 {
		t.Errorf("it joined %d times", joins)
	}
}
