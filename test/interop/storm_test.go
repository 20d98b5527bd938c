//go:build interop

package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// tally counts answers by what they say.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *tally) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[what]++
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(c.n)) {
		out = append(out, fmt.Sprintf("%s %d", k, c.n[k]))
	}
	return strings.Join(out, ", ")
}

// storm calls one for each of many, spread over ten seconds, at most so many at once.
func storm(many, atOnce int, one func(i int)) time.Duration {
	var wg sync.WaitGroup
	var next atomic.Int64
	began := time.Now()
	for range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < many; i = int(next.Add(1)) - 1 {
				if wait := time.Until(began.Add(10 * time.Second * time.Duration(i) / time.Duration(many))); wait > 0 {
					<-time.After(wait)
				}
				one(i)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// memory is what the processes of the node hold, in MiB.
func (n *node) memory() string {
	var out []string
	for _, p := range n.status().Processes {
		if p.Name == "media" || p.Name == "conference" || p.Name == "connect" {
			out = append(out, fmt.Sprintf("%s %d", p.Name, p.RSSBytes>>20))
		}
	}
	return strings.Join(out, ", ") + " MiB"
}

// TestJoinStorm has many come in ten seconds, by the bus and by WebSocket, who never send a packet: the room goes on
// sounding, whoever is refused is told why, and afterwards nothing of them is left.
func TestJoinStorm(t *testing.T) {
	n := startNode(t)
	d := n.duo()
	many := size(t, "STORM", 1000)
	offer, err := os.ReadFile("testdata/offer.sdp")
	if err != nil {
		t.Fatal(err)
	}
	c, err := nats.Connect(n.busURL(), nats.UserCredentials(filepath.Join(n.data, "creds", "cli.creds")), nats.CustomInboxPrefix(bus.InboxPrefix("cli")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	account := n.status().Account.ID
	before := n.memory()

	var answers tally
	var took time.Duration
	heard := d.during("joins by the bus", func() {
		took = storm(many, 64, func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			q, err := json.Marshal(&contract.Join{Name: "storm", Kind: contract.KindBrowser, Source: fmt.Sprintf("192.0.2.%d", i%250),
				Transport: contract.TransportWebRTC, Offer: string(offer)})
			if err != nil {
				t.Error(err)
				return
			}
			// The list of the room that comes back is not decoded: phone and bot hear beside all this.
			r, err := c.RequestWithContext(ctx, contract.RoomJoin.Subject(account, "main", fmt.Sprintf("storm-%d", i)), q)
			var e contract.Error
			switch {
			case err != nil:
				answers.add(err.Error())
			case r.Header.Get("Nats-Service-Error-Code") == "":
				answers.add("ok")
			case json.Unmarshal(r.Data, &e) == nil:
				answers.add(e.Code)
			default:
				answers.add("malformed")
			}
		})
	})
	fmt.Printf("bad input: %d joins by the bus in %v: %v%s; memory %s, then %s\n", many, took.Round(time.Millisecond), &answers, heard, before, n.memory())
	n.wait("they are gone", 90*time.Second, func() bool { return n.participants() == 2 })

	var pages tally
	heard = d.during("joins by WebSocket", func() {
		took = storm(many, 64, func(i int) { pages.add(n.page(t, string(offer), i)) })
	})
	fmt.Printf("bad input: %d pages in %v: %v%s; memory %s\n", many, took.Round(time.Millisecond), &pages, heard, n.memory())
	n.wait("they are gone", 120*time.Second, func() bool { return n.participants() == 2 })
	d.still("all that")
	if answers.n["ok"] < 1 || answers.n["internal"] > 0 || pages.n["internal"] > 0 {
		t.Errorf("answers: %v; %v", &answers, &pages)
	}
}

// page joins by a WebSocket, which it then closes, and returns the answer.
func (n *node) page(t *testing.T, offer string, i int) string {
	return pageAt(t, fmt.Sprintf("127.0.0.1:%d", n.base), offer, i)
}

// pageAt does so at an address.
func pageAt(t *testing.T, at, offer string, i int) string {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws://"+at+"/ws", &websocket.DialOptions{HTTPClient: from(fmt.Sprintf("127.5.%d.%d", i/250%250, 1+i%250))})
	if err != nil {
		if res != nil {
			return fmt.Sprint("HTTP ", res.StatusCode)
		}
		return "no connection"
	}
	defer c.CloseNow()
	c.SetReadLimit(8 << 20) // a large room's list
	q, err := json.Marshal(map[string]any{"id": i, "type": "join", "data": map[string]any{"room": "main", "name": "storm", "offer": offer}})
	if err != nil {
		return err.Error()
	}
	if err := c.Write(ctx, websocket.MessageText, q); err != nil {
		return "closed"
	}
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			return "closed"
		}
		var a struct {
			Type string
			Data struct{ Code string }
		}
		if json.Unmarshal(b, &a) != nil {
			return "malformed"
		}
		switch a.Type {
		case "error":
			return a.Data.Code
		case "joined":
			return "ok"
		}
	}
}
