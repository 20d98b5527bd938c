//go:build interop

package interop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// TestNodeIsGone: three servers of the bus, a worker that takes calls and a conference that stands by beside the node. All
// processes of the node are killed at once: who is at the worker goes on hearing, the other conference takes
// the room over, pages and phones join at the worker, and when the node is back what was acknowledged is there.
func TestNodeIsGone(t *testing.T) {
	port := func(base, off int) string { return fmt.Sprintf("127.0.0.1:%d", base+off) }
	bases := [3]int{0, freeBase(t), freeBase(t)}
	n := startNodeWith(t, func(n *node) {
		bases[0] = n.base
		n.more = append(n.more, "PARLEY_BUS_CLUSTER_LISTEN="+port(n.base, 27), "PARLEY_BUS_CLUSTER_SERVER=s0",
			"PARLEY_BUS_CLUSTER_ROUTES="+port(bases[1], 27)+","+port(bases[2], 27),
			"PARLEY_BUS_PUBLIC_URL=nats://"+port(n.base, 24)+",nats://"+port(bases[1], 24)+",nats://"+port(bases[2], 24))
		// The keys are those of the account's first start.
		for i := 1; i < 3; i++ {
			data := filepath.Join(t.TempDir(), "data")
			if err := os.MkdirAll(filepath.Join(data, "bus", "keys"), 0o700); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(filepath.Join(n.data, "bus", "keys", "keys.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(data, "bus", "keys", "keys.json"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, n.bin, "run", "bus", "--data", data, "--bus.member=true", "--bus.listen", port(bases[i], 24), "--admin.listen", "",
				"--bus.cluster_server", fmt.Sprintf("s%d", i), "--bus.cluster_listen", port(bases[i], 27), "--bus.cluster_routes", port(bases[0], 27)+","+port(bases[3-i], 27))
		}
	})
	hall2, door := n.addWorker("hall2", "--calls"), freeBase(t)
	n.join(hall2, "hall2", "--http.listen", port(door, 10), "--http.tls_listen", "", "--sip.listen", port(door, 11), "--sip.tls_listen", "")
	offer, err := os.ReadFile("testdata/offer.sdp")
	if err != nil {
		t.Fatal(err)
	}
	spare := filepath.Join(t.TempDir(), "spare.creds")
	n.parley("worker", "add", "spare", "--conference", "--out", spare)
	standby := start(t, n.bin, "join", "--creds", spare, "--data", t.TempDir(), "--admin.listen", "")
	n.wait("a conference stands by", 30*time.Second, func() bool { return strings.Contains(standby.out.String(), "standing by") })
	n.parley("worker", "drain", "m1", "--no-wait")

	dir := t.TempDir()
	bot := func(name, rights string) *parley.Room { return n.joinBot(dir, name, rights) }
	speaker, ear := bot("speaker", "speak,chat"), bot("ear", "listen,chat")
	n.wait("both are at hall2", 20*time.Second, func() bool { return n.workers()["hall2"].Legs == 2 })

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { say(ctx, speaker) })
	gaps := new(gapsHeard)
	wg.Go(func() { gaps.listen(ctx, t, ear) })
	n.wait("the ear hears", 20*time.Second, func() bool { return gaps.heard() > 50 })
	var acked []string
	for i := range 20 {
		body := fmt.Sprintf("said %d", i)
		if _, err := speaker.Chat(ctx, body); err != nil {
			t.Fatal(err)
		}
		acked = append(acked, body)
	}

	gaps.reset()
	n.killAll()
	gone := time.Now()
	var took time.Duration
	for {
		actx, stop := context.WithTimeout(ctx, time.Second)
		_, err := parley.Call(actx, ear, contract.RoomHand, contract.HandChange{Raised: true})
		stop()
		if took = time.Since(gone); err == nil {
			break
		}
		if took > 60*time.Second {
			t.Fatalf("no conference answers: %v\n%s", err, standby.out.String())
		}
	}
	j, err := parley.Call(ctx, ear, contract.RoomGet, contract.None{})
	if err != nil || j.Room.Total != 2 {
		t.Errorf("%+v, %v", j, err)
	}
	heard := gaps.heard()
	for limit := time.Now().Add(20 * time.Second); gaps.heard() <= heard+100; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the ear hears no more")
		}
	}
	fmt.Printf("cluster: all processes of the node are killed: longest gap in what a listener at another machine hears %v, commands answered after %v\n",
		gaps.longest().Round(time.Millisecond), took.Round(time.Millisecond))
	if gaps.longest() > 10*time.Second {
		t.Errorf("nothing was heard for %v", gaps.longest())
	}

	// Who joins at the worker while the node is gone.
	var page string
	for limit := time.Now().Add(30 * time.Second); page != "ok" && time.Now().Before(limit); {
		page = pageAt(t, port(door, 10), string(offer), 1)
	}
	if page != "ok" {
		t.Errorf("a page at the worker: %s", page)
	}
	phone := n.call(phone{name: "udp", freq: 700, codec: "opus/48000/1", transport: "udp", sip: port(door, 11)}, door+30)
	until := func(what string, ok func() bool) { // n.wait wants the node
		t.Helper()
		for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("not within 30 s: %s\n%s", what, hall2.out.String())
			}
		}
	}
	until("the phone speaks in the room", func() bool {
		r, err := parley.Call(ctx, ear, contract.RoomGet, contract.None{})
		if err != nil {
			return false
		}
		for _, p := range r.Room.Participants {
			if p.Kind == contract.KindSIP && p.Connected && p.Speaking {
				return true
			}
		}
		return false
	})
	until("the phone hears the speaker", func() bool {
		heard, err := phone.recording()
		if err != nil {
			return false
		}
		s, err := fresh(heard, 400)
		return err == nil && levelOf(s, 440) > -40
	})
	fmt.Printf("cluster: the node is gone: a page (%s) and a phone join at the worker, after %v\n", page, time.Since(gone).Round(time.Millisecond))

	n.start()
	lost := 0
	hctx, stop := context.WithTimeout(ctx, 60*time.Second)
	defer stop()
	var h *contract.ChatHistory
	for h == nil {
		if h, err = parley.Call(hctx, ear, contract.RoomHistory, contract.ChatQuery{Limit: 100}); err != nil && hctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for _, body := range acked {
		found := false
		for _, m := range h.Messages {
			found = found || m.Body == body
		}
		if !found {
			lost++
		}
	}
	fmt.Printf("cluster: the node is back: %d of %d acknowledged messages lost\n", lost, len(acked))
	if lost > 0 {
		t.Errorf("%d messages lost", lost)
	}
}

// killAll ends the node as the loss of its machine would.
func (n *node) killAll() {
	n.t.Helper()
	pids := []int{}
	for _, p := range n.status().Processes {
		if p.PID != 0 && p.PID != n.cmd.Process.Pid {
			pids = append(pids, p.PID)
		}
	}
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // it would start them again
		n.t.Fatal(err)
	}
	for _, pid := range append(pids, n.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			n.t.Errorf("%d: %v", pid, err)
		}
	}
	<-n.exited
	var exit *exec.ExitError
	if !errors.As(n.err, &exit) {
		n.t.Errorf("the node ended by itself: %v", n.err)
	}
}

// say has a bot speak a tone without end, some tenths of a second ahead.
func say(ctx context.Context, r *parley.Room) {
	const frames = 5 // 100 ms
	var at int
	for began := time.Now(); ctx.Err() == nil; {
		pcm := make([]byte, frames*2*480)
		for k := range frames * 480 {
			v := int16(8000 * math.Sin(2*math.Pi*440*float64(at+k)/24000))
			pcm[2*k], pcm[2*k+1] = byte(v), byte(v>>8)
		}
		at += frames * 480
		sctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		_, _, err := r.Say(sctx, contract.FormatPCM24, pcm)
		cancel()
		if err != nil { // what is not heard is what the test measures
			began = time.Now().Add(-time.Duration(at) * time.Second / 24000)
		}
		ahead := time.Duration(at)*time.Second/24000 - time.Since(began)
		select {
		case <-ctx.Done():
		case <-time.After(ahead - 300*time.Millisecond):
		}
	}
}

// gapsHeard measures how long a bot hears nothing.
type gapsHeard struct {
	mu     sync.Mutex
	frames int
	last   time.Time
	most   time.Duration
}

// listen counts the frames of the mix until ctx ends.
func (g *gapsHeard) listen(ctx context.Context, t *testing.T, r *parley.Room) {
	audio, err := r.Listen(ctx, contract.Listen{Mix: contract.FormatPCM24, TTLMs: 60_000}, 0)
	if err != nil {
		t.Errorf("listen: %v", err)
		return
	}
	defer audio.Close()
	for {
		if _, err := audio.Read(ctx); err != nil {
			if ctx.Err() == nil {
				t.Errorf("it hears no more: %v", err)
			}
			return
		}
		g.mu.Lock()
		now := time.Now()
		if !g.last.IsZero() {
			g.most = max(g.most, now.Sub(g.last))
		}
		g.last = now
		g.frames++
		g.mu.Unlock()
	}
}

func (g *gapsHeard) heard() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.frames
}

func (g *gapsHeard) longest() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most
}

func (g *gapsHeard) reset() {
	g.mu.Lock()
	g.most = 0
	g.mu.Unlock()
}

// joinBot makes a bot with its credentials in dir, which joins the main room.
func (n *node) joinBot(dir, name, rights string) *parley.Room {
	n.t.Helper()
	creds := filepath.Join(dir, name)
	n.parley("bot", "create", name, "--room", "main", "--allow", rights, "--out", creds)
	r, err := parley.Connect(parley.Options{Creds: creds})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(r.Close)
	if _, err := r.Join(n.t.Context(), name); err != nil {
		n.t.Fatal(err)
	}
	return r
}
