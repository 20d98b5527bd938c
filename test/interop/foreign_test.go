//go:build interop

package interop

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// TestAnotherOperatorsNATS: a node whose bus is three stock nats-server processes of somebody else. Bots come in, a
// worker gets legs by `parley join`, one of the servers dies, a bot and the worker are revoked, and another
// conference has the rooms when the node is gone.
func TestAnotherOperatorsNATS(t *testing.T) {
	at := bustest.StartStock(t, 3)
	n := startNodeWith(t, func(n *node) {
		n.more = append(n.more, "PARLEY_BUS_URL="+strings.Join(at.URLs, ","), "PARLEY_BUS_OPERATOR_KEY="+at.Key, "PARLEY_BUS_SYSTEM_CREDS="+at.SystemCreds,
			"PARLEY_BUS_REPLICAS=3")
	})
	hall2 := n.joinWorker("hall2")
	n.joinWorker("hall3")
	n.parley("worker", "drain", "m1", "--no-wait")
	n.parley("worker", "drain", "hall3", "--no-wait")
	spare := filepath.Join(t.TempDir(), "spare.creds")
	n.parley("worker", "add", "spare", "--conference", "--out", spare)
	standby := start(t, n.bin, "join", "--creds", spare, "--data", t.TempDir(), "--admin.listen", "")
	n.wait("a conference stands by", 60*time.Second, func() bool { return strings.Contains(standby.out.String(), "standing by") })

	dir := t.TempDir()
	bot := func(name, rights string) *parley.Room { return n.joinBot(dir, name, rights) }
	speaker, ear := bot("speaker", "speak"), bot("ear", "listen,speak,chat,moderate,call,presence,messages,files")
	third := bot("third", "listen")
	n.parley("bot", "create", "jsbot", "--room", "main", "--allow", "listen,speak", "--out", filepath.Join(dir, "jsbot"))
	js := start(t, "node", "sdk.mjs", filepath.Join(dir, "jsbot"))
	n.wait("all are at hall2", 60*time.Second, func() bool { return n.workers()["hall2"].Legs == 4 })
	js.stop()
	n.parley("bot", "revoke", "jsbot")
	n.wait("the JavaScript bot is out", 60*time.Second, func() bool { return len(n.roster()) == 3 })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { say(ctx, speaker) })
	gaps := new(gapsHeard)
	wg.Go(func() { gaps.listen(ctx, t, ear) })
	hears := func(what string) {
		t.Helper()
		now := gaps.heard()
		n.wait(what, 60*time.Second, func() bool { return gaps.heard() > now+50 })
	}
	hears("the ear hears")

	at.Kill(2)
	hears("the ear hears with two servers")
	answers := func(r *parley.Room) error {
		actx, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		_, err := parley.Call(actx, r, contract.RoomGet, contract.None{})
		return err
	}
	n.wait("commands are answered with two servers", 60*time.Second, func() bool { return answers(ear) == nil })
	at.Run(2)

	n.parley("bot", "revoke", "third")
	n.wait("the revoked bot is out", 30*time.Second, func() bool { return answers(third) != nil && len(n.roster()) == 2 })
	n.parley("worker", "drain", "hall3", "--undo")
	n.parley("worker", "revoke", "hall2")
	hall2.endsRevoked(t, "hall2")
	n.wait("both are at hall3", 60*time.Second, func() bool { return n.workers()["hall3"].Legs == 2 })
	hears("the ear hears at hall3")

	n.killAll()
	gone := time.Now()
	for answers(ear) != nil {
		if time.Since(gone) > 90*time.Second {
			t.Fatalf("no conference answers\n%s", standby.out.String())
		}
	}
	fmt.Printf("another's NATS: all processes of the node are killed: commands answered after %v\n", time.Since(gone).Round(time.Millisecond))
	n.start()
	n.wait("the ear is still in", 60*time.Second, func() bool { return answers(ear) == nil })
}
