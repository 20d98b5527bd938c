package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// refusing is a relay that takes every fifth leg only the second time.
type refusing struct {
	*relay
	mu     sync.Mutex
	joins  int
	inside map[string]bool
	most   int
}

var errFull = errors.New("the relay is full")

func (r *refusing) Join(ctx context.Context, w Wish) (string, error) {
	r.mu.Lock()
	r.joins++
	no := r.joins%5 == 0
	if !no {
		r.inside[w.ID] = true
		r.most = max(r.most, len(r.inside))
	}
	r.mu.Unlock()
	if no {
		return "", errFull
	}
	return r.relay.Join(ctx, w)
}

func (r *refusing) Leave(ctx context.Context, id string) error {
	r.mu.Lock()
	was := r.inside[id]
	delete(r.inside, id)
	r.mu.Unlock()
	if !was {
		return fmt.Errorf("%s is not here", id)
	}
	return r.relay.Leave(ctx, id)
}

func TestLegsComeAndGo(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &refusing{relay: &relay{t: t, conn: conn, delay: 10 * time.Millisecond, listeners: map[string]netip.AddrPort{}}, inside: map[string]bool{}}
	var wg sync.WaitGroup
	wg.Go(r.run)
	rep, err := RunSoak(context.Background(), SoakConfig{Legs: 8, Speakers: 1, Talk: 10, Stay: MinStay, Seconds: 9, Every: time.Second, Transports: []string{RTP}}, r)
	conn.Close()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.inside) != 0 || r.most > 9 || rep.Joined < 9 || rep.Left != rep.Joined {
		t.Errorf("%d came, %d left, %d are left, at most %d were in", rep.Joined, rep.Left, len(r.inside), r.most)
	}
	if rep.Failed == 0 || !strings.Contains(rep.Failure, errFull.Error()) {
		t.Errorf("%d failed: %q; every fifth join was refused", rep.Failed, rep.Failure)
	}
	if rep.Frames == 0 || rep.SoundMs.Of == 0 || rep.SoundMs.P50 < 0 || len(rep.Samples) < 5 || rep.Samples[3].RSS["media m1"] != 1000 {
		t.Errorf("nothing was measured: %+v", rep)
	}
	if p := rep.Processes[0]; p.RSSGrowth != nil || p.GrowthMiB() != Unknown || p.GrowthGoroutines() != Unknown {
		t.Errorf("nine seconds say how it grows in an hour: %+v", p)
	}
	if spread(nil).Figures() != [3]string{Unknown, Unknown, Unknown} {
		t.Error("of nothing there are figures")
	}
	var page bytes.Buffer
	if err := rep.HTML(&page, "a node"); err != nil {
		t.Fatal(err)
	}
	if got := page.String(); strings.Count(got, "<svg") != 9 || strings.Contains(got, "NaN") {
		t.Errorf("the page has %d plots and %d places that are no numbers", strings.Count(got, "<svg"), strings.Count(got, "NaN"))
	}
}

// A run that is ended early says what it has measured, and everybody has left.
func TestInterruptedSoak(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &refusing{relay: &relay{t: t, conn: conn, delay: 10 * time.Millisecond, listeners: map[string]netip.AddrPort{}}, inside: map[string]bool{}}
	var wg sync.WaitGroup
	wg.Go(r.run)
	ctx, interrupt := context.WithCancel(t.Context())
	cfg := SoakConfig{Legs: 4, Speakers: 1, Stay: MinStay, Seconds: 600, Every: time.Second, Transports: []string{RTP}}
	cfg.Progress = func(what string, done, _ int) {
		if what == "measuring" && done >= 3 {
			interrupt()
		}
	}
	rep, err := RunSoak(ctx, cfg, r)
	conn.Close()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !rep.Interrupted || rep.Seconds < 3 || rep.Seconds > 500 || len(rep.Samples) == 0 || rep.Joined == 0 || rep.Left != rep.Joined || len(r.inside) != 0 {
		t.Errorf("%+v; %d are left", rep, len(r.inside))
	}
}

// A look that the node does not answer costs a sample, and not the run.
func TestFramesOfALostSampleAreTheNext(t *testing.T) {
	s := &soak{generator: &generator{}, cfg: SoakConfig{Every: 10 * time.Second}, line: &timeline{}}
	s.line.bins = []bin{{100, 1}, {100, 2}, {100, 4}, {100, 8}, {7, 7}}
	r := s.report(nil, []Sample{{At: 10.1}, {At: 30.2}, {At: 40}}, nil)
	var got []bin
	for _, x := range r.Samples {
		got = append(got, bin{x.Due, x.Late})
	}
	if !slices.Equal(got, []bin{{100, 1}, {200, 6}, {100, 8}}) || r.Frames != 407 || r.Late != 22 || r.WorstPct != 8 {
		t.Errorf("%v of %d late, the worst %g %%: %v", r.Late, r.Frames, r.WorstPct, got)
	}
}

func TestSoakConfigIsChecked(t *testing.T) {
	good := SoakConfig{Legs: 1, Speakers: 1, Stay: MinStay, Seconds: 1, Every: time.Second, Transports: []string{SRTP}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*SoakConfig){
		"no legs":           func(c *SoakConfig) { c.Legs = 0 },
		"nobody speaks":     func(c *SoakConfig) { c.Speakers = 0 },
		"too many per cent": func(c *SoakConfig) { c.Talk = 101 },
		"no stay":           func(c *SoakConfig) { c.Stay = time.Millisecond },
		"no time":           func(c *SoakConfig) { c.Seconds = 0 },
		"too many samples":  func(c *SoakConfig) { c.Every = time.Millisecond },
		"no transport":      func(c *SoakConfig) { c.Transports = nil },
		"unknown transport": func(c *SoakConfig) { c.Transports = []string{RTP, "tcp"} },
	} {
		c := good
		spoil(&c)
		if _, err := RunSoak(context.Background(), c, nil); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSlope(t *testing.T) {
	var s []Sample
	for i := range 40 {
		m := int64(1000) // flat after the room has filled
		if i < 10 {
			m = int64(i) * 100
		}
		s = append(s, Sample{At: float64(10 * i), RSS: map[string]int64{"m": m, "leak": int64(10 * i)}})
	}
	of := func(k string) float64 { return round(slope(s, func(x Sample) float64 { return float64(x.RSS[k]) }), 3) }
	if of("m") != 0 || of("leak") != 3600 {
		t.Errorf("flat grows by %g, a byte a second by %g", of("m"), of("leak"))
	}
	if v := growth([]Sample{{At: 100}, {At: 200}}, 0, func(x Sample) float64 { return x.At }); v == nil || *v != 3600 {
		t.Errorf("the growth of 200 s: %v", v)
	}
	if slope(nil, nil) != 0 || slope(s[:1], func(Sample) float64 { return 1 }) != 0 {
		t.Error("a line through nothing")
	}
}
