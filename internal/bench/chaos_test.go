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
	tell   func(id string) // a leg to move; nil: not followed yet
	second *net.UDPConn    // where legs are told to go
	moved  map[string]string
	said   []string
	gone   int
	fails  bool
}

func (w *wreck) Kill(ctx context.Context, process string) error {
	if w.fails {
		return errors.New("no such process")
	}
	if process == "away" { // all are told to go elsewhere, and go on being served meanwhile
		w.mu.Lock()
		defer w.mu.Unlock()
		for id := range w.listeners {
			w.tell(id)
		}
		w.tell("nobody")
		return nil
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

// forward gives everybody what comes to the second port, from there, as another mixer does.
func (w *wreck) forward() {
	buf := make([]byte, 1500)
	for {
		k, from, err := w.second.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if from.Addr().Unmap() != address(loopback, 0) {
			continue
		}
		w.mu.Lock()
		for _, a := range w.listeners {
			if _, err := w.second.WriteToUDPAddrPort(buf[:k], a); err != nil {
				w.mu.Unlock()
				return
			}
		}
		w.mu.Unlock()
	}
}

// serve has the relay send to others from now on and returns to whom it did.
func (w *wreck) serve(to map[string]netip.AddrPort) (was map[string]netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, w.listeners = w.listeners, to
	return was
}

func (w *wreck) Moves(fn func(id string)) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell = fn
	return func() {}, nil
}

func (w *wreck) Offer(_ context.Context, id, offer, was string) (string, error) {
	if !strings.Contains(was, fmt.Sprint("m=audio ", w.conn.LocalAddr().(*net.UDPAddr).Port)) || !strings.Contains(offer, "m=audio") {
		return "", fmt.Errorf("%s offers %q, and was told %q", id, offer, was)
	}
	return fmt.Sprintf("v=0\r\nm=audio %d RTP/AVP 96\r\n", w.second.LocalAddr().(*net.UDPAddr).Port), nil
}

func (w *wreck) Answer(_ context.Context, id, answer string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved[id] = answer
	return nil
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
	if w.second, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	w.moved = map[string]string{}
	w.relay = relay{t: t, conn: conn, listeners: map[string]netip.AddrPort{}, everybody: true}
	var wg sync.WaitGroup
	wg.Go(w.run)
	wg.Go(w.forward)
	defer wg.Wait()
	defer conn.Close()
	defer w.second.Close()
	c.Legs, c.Speakers, c.Transport = 5, 1, RTP
	c.warm, c.watch = 200*time.Millisecond, time.Second
	return Wreck(t.Context(), c, w)
}

func TestWhatADeathCosts(t *testing.T) {
	t.Parallel()
	r, err := runWreck(t, Chaos{Steps: []string{"some", "all"}, Times: 1}, &wreck{silent: 700 * time.Millisecond})
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
	if s := page.String(); strings.Count(s, "<tr>") != 10 || !strings.Contains(s, "a &lt;node&gt;") || strings.Contains(s, "NaN") {
		t.Errorf("the page:\n%s", s)
	}
	if err := ChaosHTML(&page, "", new(ChaosReport)); !errors.Is(err, ErrConfig) {
		t.Errorf("no steps: %v", err)
	}
}

func TestAProcessThatDoesNotDie(t *testing.T) {
	t.Parallel()
	r, err := runWreck(t, Chaos{Steps: []string{"some", "other"}, Times: 2}, &wreck{fails: true})
	if err != nil {
		t.Fatal(err)
	}
	if last := r.Steps[len(r.Steps)-1]; len(r.Steps) != 2 || last.Times != 0 || !strings.Contains(last.Failed, "no such process") {
		t.Errorf("%+v", r)
	}
}

func TestChaosIsChecked(t *testing.T) {
	good := Chaos{Legs: 2, Speakers: 1, Times: 1, Steps: []string{"media"}, Transport: RTP}
	for name, spoil := range map[string]func(*Chaos){
		"only speakers": func(c *Chaos) { c.Legs = 1 },
		"no speaker":    func(c *Chaos) { c.Speakers = 0 },
		"never":         func(c *Chaos) { c.Times = 0 },
		"nothing":       func(c *Chaos) { c.Steps = nil },
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

// Legs go where they are told to, with what they and the node said before.
func TestLegsMove(t *testing.T) {
	t.Parallel()
	w := new(wreck)
	r, err := runWreck(t, Chaos{Steps: []string{"away"}, Times: 1}, w)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Steps[1]; s.Moved != 5 || s.Stuck != 0 || s.Lost != 0 || s.GapMs.Max > 900 || s.Failed != "" {
		t.Errorf("%+v", s)
	}
	if len(w.moved) != 5 || !strings.Contains(fmt.Sprint(w.moved), "m=audio") {
		t.Errorf("%v", w.moved)
	}
}

// A fifth of all packets is lost each way, and what is left comes late, in its order.
func TestWeather(t *testing.T) {
	t.Parallel()
	r, err := runWreck(t, Chaos{Steps: []string{Bad}, Times: 2, Weather: Weather{Loss: 0.2, Jitter: 40 * time.Millisecond}}, new(wreck))
	if err != nil {
		t.Fatal(err)
	}
	calm, bad := r.Steps[0].Frames, r.Steps[1].Frames
	if calm == nil || bad == nil || calm.Due < 4*2*90 {
		t.Fatalf("%+v", r)
	}
	// 0.8 of 0.8 comes; half of the rest is in the next packet.
	if bad.Heard < 0.4 || bad.Heard > 0.8 || bad.Whole <= bad.Heard || bad.Whole > 0.97 || r.Steps[1].Lost != 0 {
		t.Errorf("%+v, then %+v", calm, bad)
	}
}

func TestMixersAtATime(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1")
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		name  string
		until int64 // of the first, ms
		from  int64 // of the second
		least time.Duration
		most  time.Duration
	}{
		{"one after the other", 1000, 1300, 0, 0},
		{"one at once after the other", 1000, 1000, 0, 0},
		{"a hand-over", 1000, 900, 60 * time.Millisecond, 100 * time.Millisecond},
		{"both", 3000, 1000, 1960 * time.Millisecond, 2000 * time.Millisecond},
	} {
		var m mixers
		for at := int64(1); at < 4000; at += 20 {
			if at < c.until {
				m.note(a, 1, at*ms)
			}
			if at >= c.from {
				m.note(b, 2, (at+7)*ms)
			}
		}
		if got := time.Duration(m.longest.Load()); got < c.least || got > c.most {
			t.Errorf("%s: two sent for %v", c.name, got)
		}
	}
}
