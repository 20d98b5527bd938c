//go:build interop

package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// goals are how many ms of sound may be missing when a process dies, at browser and
// phones, and how long the bot may hear nothing: its audio crosses the bus.
var goals = []struct {
	process    string
	sound, bot int
}{
	{"identity", 0, 0}, {"dht", 0, 0}, {"swarm", 0, 0}, {"conference", 0, 0}, {"connect", 0, 0}, {"bus", 0, 2000}, {"media", 3000, 3000},
}

// chatter writes to the room's chat as fast as one may and keeps what was acknowledged.
type chatter struct {
	bodies map[string]string // by message id
	failed int
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func (p *party) chatter(about string) *chatter {
	ctx, cancel := context.WithCancel(context.Background())
	c := &chatter{bodies: map[string]string{}, stop: cancel}
	c.done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			body := fmt.Sprintf("%s dies, %d", about, i)
			m, err := p.bot.room.Chat(ctx, body)
			switch {
			case err == nil:
				c.bodies[m.ID] = body
			case ctx.Err() == nil:
				c.failed++
			}
			select {
			case <-ctx.Done():
			case <-time.After(220 * time.Millisecond): // 5 a second are allowed
			}
		}
	})
	return c
}

// end stops writing and returns how many were acknowledged, which of them the
// history lacks, and which it has twice.
func (c *chatter) end(t *testing.T, p *party) (acked int, lost, twice []string) {
	t.Helper()
	c.stop()
	c.done.Wait()
	ids, bodies := map[string]bool{}, map[string]int{}
	q := contract.ChatQuery{Limit: 200}
	for {
		h, err := parley.Call(context.Background(), p.bot.room, contract.RoomHistory, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range h.Messages {
			ids[m.ID] = true
			bodies[m.Body]++
		}
		if !h.More || len(h.Messages) == 0 {
			break
		}
		q.Before = h.Messages[0].ID
	}
	for id, body := range c.bodies {
		if !ids[id] {
			lost = append(lost, body)
		}
		if bodies[body] > 1 {
			twice = append(twice, body)
		}
	}
	return len(c.bodies), lost, twice
}

// listen does something and returns how many ms of sound browser and phones missed
// from then on, and how long the bot heard nothing at most.
func (p *party) listen(t *testing.T, watched time.Duration, do func()) (missing []int, gap time.Duration) {
	t.Helper()
	var phones [2]*watch
	for i, r := range p.phone {
		phones[i] = startWatch(r)
	}
	was, began := p.b.played(), time.Now()
	do()
	time.Sleep(time.Until(began.Add(watched)))
	gap = p.bot.gapSince(began)
	now := p.b.played()
	if now.PC != was.PC {
		t.Error("the page made a new call")
	}
	missing = []int{now.missing(was)}
	for i, w := range phones {
		l, err := w.end(p.freqs[2-i]) // of the other phone
		if err != nil {
			t.Fatal(err)
		}
		missing = append(missing, int(l.missing.Milliseconds()))
	}
	return missing, gap
}

// Every child process is killed in turn while four peers of different kinds hear
// each other and one writes to the chat.
func TestDeathOfEachProcess(t *testing.T) {
	n := startNode(t)
	p := n.party()
	p.everybody(n)
	// What is found missing when nothing dies: beginning and end of the time do
	// not meet frames, and the machine is busy with the peers.
	calm, gap := p.listen(t, 3*time.Second, func() {})
	noise := max(slices.Max(calm), int(gap.Milliseconds()))
	slack := min(300, 120+2*noise)
	fmt.Printf("death: nobody; sound missing: chromium %d ms, baresip udp %d ms, baresip tcp %d ms, longest wait of the bot %d ms\n", calm[0], calm[1], calm[2], gap.Milliseconds())
	for _, goal := range goals {
		// What a death costs it costs each time, and nothing of it is missing when
		// nobody dies. What a busy machine costs is.
		var wrong []string
		for try := range 3 {
			missing, gap := p.die(t, n, goal.process, try)
			if wrong = p.worse(goal.sound, goal.bot, missing, gap, slack); len(wrong) == 0 {
				break
			}
			calm, wait := p.listen(t, 6*time.Second, func() {})
			noise := max(slices.Max(calm), int(wait.Milliseconds()))
			fmt.Printf("death: %s: %s (%d of 3); then without any death %d ms were missing\n", goal.process, strings.Join(wrong, "; "), try+1, noise)
			if wrong = p.worse(goal.sound, goal.bot, missing, gap, min(1500, 120+2*noise)); len(wrong) == 0 {
				break
			}
		}
		if len(wrong) > 0 {
			t.Errorf("%s died: %s", goal.process, strings.Join(wrong, "; "))
		}
	}
	p.print("after seven deaths", p.matrix(1500))
}

// worse says what of the sound is worse than the goals, in ms, with some slack.
func (p *party) worse(sound, bot int, missing []int, gap time.Duration, slack int) (wrong []string) {
	for i, ms := range missing {
		if ms > sound+slack {
			wrong = append(wrong, fmt.Sprintf("%s missed %d ms", p.names[i], ms))
		}
	}
	if gap > time.Duration(bot+slack)*time.Millisecond {
		wrong = append(wrong, fmt.Sprintf("the bot heard nothing for %d ms", gap.Milliseconds()))
	}
	return wrong
}

// die kills a process and returns how much sound was missing. That somebody is gone,
// or a message, is a failure at once.
func (p *party) die(t *testing.T, n *node, name string, try int) (missing []int, gap time.Duration) {
	t.Helper()
	chat := p.chatter(fmt.Sprintf("%s (%d)", name, try))
	people, before := n.roster(), n.pid(name)
	var back time.Duration
	missing, gap = p.listen(t, 4*time.Second, func() {
		killed := time.Now()
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.wait(name+" is back", 6*time.Second, func() bool {
			out, err := n.try("status", "--json")
			return err == nil && processReady(out, name, before)
		})
		back = time.Since(killed)
	})
	acked, lost, twice := chat.end(t, p)
	fmt.Printf("death: %-10s back after %4d ms; sound missing: chromium %d ms, baresip udp %d ms, baresip tcp %d ms, longest wait of the bot %d ms; chat: %d acknowledged, %d not, %d lost\n",
		name, back.Milliseconds(), missing[0], missing[1], missing[2], gap.Milliseconds(), acked, chat.failed, len(lost))
	if got := n.roster(); !slices.Equal(got, people) {
		t.Errorf("%s died: %v were in the room, now %v", name, people, got)
	}
	if acked == 0 || len(lost) > 0 || len(twice) > 0 {
		t.Errorf("%s died: %d messages acknowledged; lost: %v; twice: %v", name, acked, lost, twice)
	}
	p.everybody(n)
	return missing, gap
}

func (p *party) everybody(n *node) {
	n.t.Helper()
	n.wait("everybody hears everybody", 30*time.Second, func() bool { return good(p.matrix(800)) == "" })
}
