package bench

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// oneWorker is a relay as a fleet.
type oneWorker struct {
	*relay
	grown int
}

func (o *oneWorker) Grow(_ context.Context, n int) error { o.grown = n; return nil }
func (o *oneWorker) Net() [2]byte                        { return [2]byte{127, 78} }

func (o *oneWorker) Processes(ctx context.Context) ([]Process, error) {
	p, err := o.relay.Processes(ctx)
	for i := range p {
		p[i].Host = "127.0.0.1"
	}
	return p, err
}

func TestAWorkerOfAFleetIsMeasured(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	o := &oneWorker{relay: &relay{t: t, conn: conn, delay: 20 * time.Millisecond, from: netip.MustParseAddr("127.78.0.1"), listeners: map[string]netip.AddrPort{}}}
	var wg sync.WaitGroup
	wg.Go(o.run)
	r, err := RunScale(context.Background(), ScaleConfig{Workers: []int{1}, Legs: 20, Speakers: 2, Seconds: 6, Transport: RTP}, o)
	conn.Close()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	row := r.Rows[0]
	if len(row.PerWorker) != 1 || o.grown != 1 || row.Legs != 20 || row.Against != 1 {
		t.Fatalf("%+v", row)
	}
	// The relay's CPU is a hundredth of a core, however many there are.
	if at := row.PerWorker[0]; at.Worker != "m1" || at.Legs != 20 || !at.Speaks || at.Cores < 0.009 || at.Cores > 0.011 || at.DelayMs.Found == 0 || row.Same.Found != at.DelayMs.Found {
		t.Errorf("%+v", at)
	}
	if r.Part.Legs != 5 || len(r.Model.Rooms) != 3 {
		t.Errorf("%+v, %+v", r.Part, r.Model)
	}
	if r.Part.AgainstOne() != Unknown || row.AgainstOne() != "1.00" || row.Other.Median() != Unknown || row.Same.Median() == Unknown {
		t.Errorf("what is not known has a figure: %+v, %+v", r.Part, row)
	}
	var page bytes.Buffer
	if err := r.HTML(&page, "a node"); err != nil || strings.Contains(page.String(), "NaN") || strings.Count(page.String(), "<svg") != 7 {
		t.Errorf("the page: %v\n%d plots", err, strings.Count(page.String(), "<svg"))
	}
}

// Where nothing was found the plot has no point.
func TestPlotsLeaveOutWhatIsNotKnown(t *testing.T) {
	for _, tt := range []struct {
		y    []float64
		dots int
	}{{[]float64{math.NaN()}, 0}, {[]float64{math.NaN(), 21, 22}, 2}, {[]float64{20, math.NaN()}, 1}} {
		got := string(plot{X: []float64{1, 2, 4}[:len(tt.y)], Lines: []line{{"p50", tt.y}}}.SVG())
		if strings.Count(got, "<circle") != tt.dots || strings.Contains(got, "NaN") {
			t.Errorf("%v: %s", tt.y, got)
		}
	}
}

func TestModelFindsWhatTheRowsWereMadeOf(t *testing.T) {
	const room, mix, each, trunk = 0.1, 0.06, 0.0003, 0.001
	row := func(workers, legs int) ScaleRow {
		x := ScaleRow{Workers: workers, Legs: workers * legs, Same: Delay{P50: 20}, Other: Delay{P50: 21}}
		for i := range workers {
			a := At{Legs: legs, Speaks: i == 0, Cores: mix + each*float64(legs)}
			if a.Speaks {
				a.Cores = room + each*float64(legs) + trunk*float64(workers-1)
			}
			x.PerWorker = append(x.PerWorker, a)
			x.Cores += a.Cores
		}
		return x
	}
	m := modelOf(&ScaleReport{Legs: 200, Speakers: 3, Part: row(1, 50), Rows: []ScaleRow{row(1, 200), row(2, 200), row(8, 200)}})
	for what, v := range map[string][2]float64{"room": {m.Room, room}, "mix": {m.Mix, mix}, "leg": {m.Leg, each}, "trunk": {m.Trunk, trunk}, "hop": {m.HopMs, 1}} {
		if math.Abs(v[0]-v[1]) > 1e-4*v[1]+1e-9 {
			t.Errorf("%s is %g, want %g", what, v[0], v[1])
		}
	}
	if m.Full != 2000 {
		t.Errorf("%d fill a worker, want 2000", m.Full)
	}
	if g := m.Rooms[2]; g.Workers != 50 || g.Hops != 3 || g.DelayMs != 23 || math.Abs(g.Cores-(room+each*100000+49*(mix+trunk))) > 0.01 {
		t.Errorf("100,000: %+v", g)
	}
}

func TestTrunksOfTheBusiest(t *testing.T) {
	for workers, want := range map[int][2]int{1: {0, 0}, 2: {1, 1}, 16: {15, 1}, 17: {4 + 3, 3}, 100: {9 + 9, 3}} {
		if peers, hops := trunks(workers); peers != want[0] || hops != want[1] {
			t.Errorf("%d workers: %d trunks, %d hops; want %v", workers, peers, hops, want)
		}
	}
}

func TestScaleConfigIsChecked(t *testing.T) {
	for name, c := range map[string]ScaleConfig{
		"no workers":         {Legs: 50, Speakers: 3},
		"not from one":       {Workers: []int{2}, Legs: 50, Speakers: 3},
		"falling":            {Workers: []int{1, 4, 2}, Legs: 50, Speakers: 3},
		"too few legs":       {Workers: []int{1}, Legs: 5, Speakers: 3},
		"too many legs":      {Workers: []int{1, 64}, Legs: 5000, Speakers: 3},
		"nobody speaks":      {Workers: []int{1}, Legs: 50},
		"too many of them":   {Workers: []int{1}, Legs: 50, Speakers: 30},
		"unknown transports": {Workers: []int{1}, Legs: 50, Speakers: 3, Seconds: 1, Transport: "x"},
	} {
		if _, err := RunScale(context.Background(), c, &oneWorker{}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
