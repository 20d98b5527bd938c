package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// wreck is a relay that is silent for a while when it is killed, and whose chat forgets
// every fifth message.
type wreck struct {
	relay
	silent time.Duration
	said   []string
	gone   int
	fails  bool
}

func (w *wreck) Kill(ctx context.Context, process string) error {
	if w.fails {
		return errors.New("no such process")
	}
	was := w.serve(map[string]netip.AddrPort{})
	t := time.NewTimer(w.silent)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	if process != "all" {
		w.serve(was)
		return nil
	}
	w.mu.Lock() // who was there stays without sound
	defer w.mu.Unlock()
	w.gone = 2
	return nil
}

// serve has the relay send to others from now on and returns to whom it did.
func (w *wreck) serve(to map[string]netip.AddrPort) (was map[string]netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, w.listeners = w.listeners, to
	return was
}

func (w *wreck) Say(_ context.Context, participant, body string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !strings.HasPrefix(participant, "bench-") || body == "" {
		return "", fmt.Errorf("%q said %q", participant, body)
	}
	id := fmt.Sprint(len(w.said))
	w.said = append(w.said, id)
	return id, nil
}

func (w *wreck) Said(context.Context, string, int) (map[string]bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]bool{}
	for i, id := range w.said {
		out[id] = i%5 != 4
	}
	return out, nil
}

func (w *wreck) People(context.Context) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return 5 - w.gone, nil
}

func runWreck(t *testing.T, c Chaos, w *wreck) (*ChaosReport, error) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	w.relay = relay{t: t, conn: conn, listeners: map[string]netip.AddrPort{}, everybody: true}
	var wg sync.WaitGroup
	wg.Go(w.run)
	defer wg.Wait()
	defer conn.Close()
	c.Legs, c.Speakers, c.Transport = 5, 1, RTP
	c.warm, c.watch = 200*time.Millisecond, time.Second
	return Wreck(t.Context(), c, w)
}

func TestWhatADeathCosts(t *testing.T) {
	t.Parallel()
	r, err := runWreck(t, Chaos{Kill: []string{"some", "all"}, Times: 1}, &wreck{silent: 700 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Steps) != 3 {
		t.Fatalf("%+v", r)
	}
	calm, some, all := r.Steps[0], r.Steps[1], r.Steps[2]
	if calm.Process != "nobody" || !calm.Noise || calm.Lost != 0 || calm.BackMs.Max != 0 || calm.Said == 0 {
		t.Errorf("nobody: %+v", calm)
	}
	if some.Process != "some" || some.GapMs.Max < 600 || some.BackMs.P50 < 700 || some.Lost != 0 || some.Times != 1 {
		t.Errorf("some: %+v", some)
	}
	if all.Lost != 5+2 { // legs, and participants
		t.Errorf("all: %+v", all)
	}
	if lost := calm.SaidLost + some.SaidLost + all.SaidLost; lost == 0 || lost > 1+(calm.Said+some.Said+all.Said)/5 {
		t.Errorf("%d messages lost in %+v", lost, r)
	}
	var page bytes.Buffer
	if err := ChaosHTML(&page, "a <node>", r); err != nil {
		t.Fatal(err)
	}
	if s := page.String(); strings.Count(s, "<tr>") != 4 || !strings.Contains(s, "a &lt;node&gt;") || strings.Contains(s, "NaN") {
		t.Errorf("the page:\n%s", s)
	}
	if err := ChaosHTML(&page, "", new(ChaosReport)); !errors.Is(err, ErrConfig) {
		t.Errorf("no steps: %v", err)
	}
}

func TestAProcessThatDoesNotDie(t *testing.T) {
	t.Parallel()
	r, err := runWreck(t, Chaos{Kill: []string{"some", "other"}, Times: 2}, &wreck{fails: true})
	if err != nil {
		t.Fatal(err)
	}
	if last := r.Steps[len(r.Steps)-1]; len(r.Steps) != 2 || last.Times != 0 || !strings.Contains(last.Failed, "no such process") {
		t.Errorf("%+v", r)
	}
}

func TestChaosIsChecked(t *testing.T) {
	good := Chaos{Legs: 2, Speakers: 1, Times: 1, Kill: []string{"media"}, Transport: RTP}
	for name, spoil := range map[string]func(*Chaos){
		"only speakers": func(c *Chaos) { c.Legs = 1 },
		"no speaker":    func(c *Chaos) { c.Speakers = 0 },
		"never":         func(c *Chaos) { c.Times = 0 },
		"nothing":       func(c *Chaos) { c.Kill = nil },
		"transport":     func(c *Chaos) { c.Transport = "x" },
		"too many":      func(c *Chaos) { c.Legs = 1 << 20 },
	} {
		c := good
		spoil(&c)
		if _, err := Wreck(t.Context(), c, nil); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
