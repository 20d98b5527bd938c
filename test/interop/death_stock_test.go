//go:build interop

package interop

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestStockCallsOutliveConnect: connect is killed while a stock daemon that called and one that was called
// talk. Nobody is lost, nothing of the sound is missing, and the calls are as usable as before: text, mute, the list of
// who is there, hold and resume; one is put out by us, the other one hangs up.
func TestStockCallsOutliveConnect(t *testing.T) {
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	var ours contract.Account
	n.ask(&ours, "account", "show")
	a, b := r.peer(1), r.peer(2)
	accA, idA := a.account("ann", nil)
	accB, idB := b.account("bob", nil)
	callA := a.talkTo(accA, ours.ID, "")
	callB, said := n.rings(b, accB, idB)
	b.takes(accB, callB)
	n.told(said, "taken")
	r.speaks(a, 440, 240)
	r.speaks(b, 880, 240)
	hears := func(what string, p *rigPeer, hz float64) {
		t.Helper()
		if level, ok := r.comesToHear(p, hz, true); !ok {
			t.Fatalf("%s: %.0f Hz at %.1f dBFS", what, hz, level)
		}
	}
	hears("ann hears bob", a, 880)
	hears("bob hears ann", b, 440)
	roster := func() (ids []string) {
		for _, p := range n.room("main").Participants {
			ids = append(ids, p.ID)
		}
		slices.Sort(ids)
		return ids
	}
	people := roster()
	if len(people) != 2 {
		t.Fatalf("in the room: %v", people)
	}
	// silence is the longest that both played in some seconds, in which something is done. A steady tone is quiet now and then,
	// which stock takes for noise, but never silent.
	silence := func(do func()) (longest [2]time.Duration) {
		t.Helper()
		heard := [2]speaker{{filepath.Join(r.state, "p1", "heard.raw")}, {filepath.Join(r.state, "p2", "heard.raw")}}
		var from [2]int
		for i := range heard {
			var err error
			if from[i], err = heard[i].length(); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		do()
		time.Sleep(time.Until(began.Add(6 * time.Second)))
		for i := range heard {
			s, err := heard[i].from(from[i])
			if err != nil {
				t.Fatal(err)
			}
			if len(s) < 3*rate {
				t.Fatalf("peer %d played %d ms in 6 s", i+1, len(s)*1000/rate)
			}
			run := time.Duration(0)
			for part := range slices.Chunk(s, rate/50) {
				if run += 20 * time.Millisecond; power(part) > 1e-6 {
					run = 0
				}
				longest[i] = max(longest[i], run)
			}
		}
		return longest
	}
	dies := func() {
		t.Helper()
		killed := time.Now()
		n.killed("connect")
		t.Logf("death: connect is back after %v", time.Since(killed).Round(time.Millisecond))
	}
	talk := func() {
		t.Helper()
		if now := roster(); !slices.Equal(now, people) {
			t.Fatalf("%v were in the room, now %v", people, now)
		}
		for p, x := range map[*rigPeer][2]string{a: {accA, callA}, b: {accB, callB}} {
			var d map[string]string
			p.call(&d, "call.getCallDetails", x[0], x[1])
			if d["CALL_STATE"] != "CURRENT" {
				t.Fatalf("peer %d: its call is %q", p.i, d["CALL_STATE"])
			}
		}
	}
	for try := 1; ; try++ { // a busy machine is silent now and then as well
		calm, dead := silence(func() {}), silence(dies)
		fmt.Printf("death: connect, with stock daemons in calls: longest silence %v; when nobody dies %v\n", dead, calm)
		talk()
		if slices.Max(dead[:]) <= 100*time.Millisecond+2*slices.Max(calm[:]) {
			break
		} else if try == 3 {
			t.Errorf("silent for %v", dead)
			break
		}
	}

	from := b.mark()
	a.call(nil, "call.sendTextMessage", accA, callA, map[string]string{"text/plain": "still there"}, false)
	b.hasSignal(from, 15*time.Second, "the text", func(e rigEvent) bool {
		return e.name == "incomingMessage" && strings.Contains(string(slices.Concat(e.args...)), "ann: still there")
	})
	for _, mute := range []bool{true, false} {
		a.call(nil, "call.muteLocalMedia", accA, callA, "MEDIA_TYPE_AUDIO", mute)
		b.sees(callB, "her mute", func(all []map[string]string) bool {
			return slices.ContainsFunc(all, func(p map[string]string) bool {
				return strings.HasPrefix(p["uri"], idA) && p["audioLocalMuted"] == fmt.Sprint(mute)
			})
		})
	}
	// Whatever connect is at when it dies, no text is lost: it is in the room's chat, which is a Git repository. One that
	// was acted upon at that very moment may be there twice.
	wrote := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				wrote <- n
				return
			case <-time.After(220 * time.Millisecond):
				a.call(nil, "call.sendTextMessage", accA, callA, map[string]string{"text/plain": fmt.Sprintf("text %d.", n)}, false)
			}
		}
	}()
	for range 4 {
		time.Sleep(400*time.Millisecond + rand.N(200*time.Millisecond)) // it writes, 5 a second at most
		dies()
	}
	close(stop)
	texts := <-wrote
	chat := func() (lost []int) {
		t.Helper()
		heads, err := filepath.Glob(filepath.Join(n.data, "swarm", "*", "conversations", "*", ".git", "HEAD"))
		if err != nil || len(heads) == 0 {
			t.Fatalf("no conversation in %s: %v", n.data, err)
		}
		said := ""
		for _, head := range heads {
			said += run(t, "git", "--git-dir", filepath.Dir(head), "log", "--format=%B")
		}
		for i := range texts {
			if !strings.Contains(said, fmt.Sprintf(`"text %d."`, i)) {
				lost = append(lost, i)
			}
		}
		return lost
	}
	for end := time.Now().Add(10 * time.Second); len(chat()) > 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("of %d texts were lost: %v", texts, chat())
			break
		}
	}
	t.Logf("death: %d texts while connect died four times", texts)
	talk()

	from = a.mark()
	a.call(nil, "call.hold", accA, callA)
	a.hasSignal(from, 20*time.Second, "hold", func(e rigEvent) bool { return onHold(e, callA, "true") })
	dies() // while it is held
	from = a.mark()
	a.call(nil, "call.unhold", accA, callA)
	a.hasSignal(from, 20*time.Second, "resume", func(e rigEvent) bool { return onHold(e, callA, "false") })
	time.Sleep(3 * time.Second) // what is measured now was heard after that
	hears("ann hears bob after a hold", a, 880)
	hears("bob hears ann after her hold", b, 440)

	i := slices.IndexFunc(n.room("main").Participants, func(p contract.Participant) bool { return p.JamiID == idB })
	from = b.mark()
	n.ask(nil, "room", "kick", "main", n.room("main").Participants[i].ID)
	b.isOver(from, callB)
	from = a.mark()
	a.call(nil, "call.hangUp", accA, callA)
	a.isOver(from, callA)
	for end := time.Now().Add(10 * time.Second); len(roster()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still in the room: %v", roster())
		}
	}

	// Another call goes over the same connections.
	callA = a.talkTo(accA, ours.ID, "")
	a.call(nil, "call.hangUp", accA, callA)
	n.stop()
	if strings.Contains(n.out.String(), "not gone on with") {
		t.Error("a connection was not gone on with")
	}
}
