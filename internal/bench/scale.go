package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Fleet is a node whose workers are started one after the other, each on a network of its own.
type Fleet interface {
	Node
	// Grow starts workers until there are n, and returns when the node knows of them.
	Grow(ctx context.Context, n int) error
	// Net is the /16 in which the legs are.
	Net() [2]byte
}

// ScaleConfig says over how many workers one room goes.
type ScaleConfig struct {
	Workers   []int // in rising order
	Legs      int   // of each worker, which it takes and no more
	Speakers  int   // all at one worker, and of its legs
	Seconds   int
	Transport string
	// Progress is called now and then with what is being done; nil: never.
	Progress func(what string, done, of int)
}

// Bounds of [ScaleConfig].
const (
	MaxWorkers   = 64
	MinScaleLegs = 20
)

// Check says what is wrong with it, as [ErrConfig].
func (c *ScaleConfig) Check() error {
	switch {
	case len(c.Workers) == 0 || !slices.IsSorted(c.Workers) || c.Workers[0] != 1 || c.Workers[len(c.Workers)-1] > MaxWorkers:
		return fmt.Errorf("%w: workers must rise from 1 to at most %d", ErrConfig, MaxWorkers)
	case c.Legs < MinScaleLegs || c.Legs*c.Workers[len(c.Workers)-1] > MaxLegs:
		return fmt.Errorf("%w: legs of a worker must be %d or more, and at most %d in all", ErrConfig, MinScaleLegs, MaxLegs)
	case c.Speakers < 1 || c.Speakers > c.Legs/2:
		return fmt.Errorf("%w: speakers must be 1 to half the legs of a worker", ErrConfig)
	}
	return nil
}

// ScaleReport is what one room costs over several workers. Scripts rely on the names.
type ScaleReport struct {
	Legs      int         `json:"legs_per_worker"`
	Speakers  int         `json:"speakers"`
	Seconds   int         `json:"seconds"`
	Transport string      `json:"transport"`
	Part      ScaleRow    `json:"part"` // one worker with a quarter of its legs, which tells the room's own cost from the legs'
	Rows      []ScaleRow  `json:"rows"`
	Model     *ScaleModel `json:"model"`
}

// ScaleRow is the room over some number of workers.
type ScaleRow struct {
	Workers   int     `json:"workers"`
	Legs      int     `json:"legs"` // in all
	Cores     float64 `json:"cores"`
	MsPerLeg  float64 `json:"ms_per_s_per_leg"`
	Against   float64 `json:"against_one"` // MsPerLeg by that of one worker
	OnTime    float64 `json:"on_time"`
	Same      Delay   `json:"delay_same_ms"`  // at the speakers' worker
	Other     Delay   `json:"delay_other_ms"` // at the others
	TickMs    float64 `json:"tick_ms"`
	Missed    float64 `json:"ticks_missed"`
	TrunkOut  float64 `json:"trunk_out"` // packets a second, of all
	TrunkIn   float64 `json:"trunk_in"`
	Skipped   int64   `json:"generator_skipped"`
	Dropped   uint32  `json:"generator_dropped"`
	Load      float64 `json:"load"` // as in [Report]
	PerWorker []At    `json:"per_worker"`
}

// At is a worker of a row.
type At struct {
	Worker   string  `json:"worker"`
	Address  string  `json:"address"`
	Legs     int     `json:"legs"`
	Speaks   bool    `json:"speaks"` // the speakers are here
	Cores    float64 `json:"cores"`
	TrunkOut float64 `json:"trunk_out"` // packets a second
	TrunkIn  float64 `json:"trunk_in"`
	OnTime   float64 `json:"on_time"`
	DelayMs  Delay   `json:"delay_ms"`
}

// RunScale measures one room over more and more workers.
func RunScale(ctx context.Context, cfg ScaleConfig, fleet Fleet) (*ScaleReport, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	r := &ScaleReport{Legs: cfg.Legs, Speakers: cfg.Speakers, Seconds: cfg.Seconds, Transport: cfg.Transport}
	one := func(workers, legs int) (ScaleRow, error) {
		if err := fleet.Grow(ctx, workers); err != nil {
			return ScaleRow{}, err
		}
		run, err := Run(ctx, Config{Listeners: legs - cfg.Speakers, Speakers: cfg.Speakers, Seconds: cfg.Seconds, Transport: cfg.Transport,
			Progress: cfg.Progress, net: fleet.Net(), apart: true}, fleet)
		if err != nil {
			return ScaleRow{}, fmt.Errorf("%d workers: %w", workers, err)
		}
		return rowOf(run, workers), nil
	}
	var err error
	if r.Part, err = one(1, max(cfg.Legs/4, cfg.Speakers+1)); err != nil {
		return nil, err
	}
	for _, n := range cfg.Workers {
		row, err := one(n, n*cfg.Legs)
		if err != nil {
			return nil, err
		}
		r.Rows = append(r.Rows, row)
	}
	for i := range r.Rows {
		r.Rows[i].Against = round(r.Rows[i].MsPerLeg/r.Rows[0].MsPerLeg, 3)
	}
	r.Model = modelOf(r)
	return r, nil
}

func rowOf(run *Report, workers int) ScaleRow {
	row := ScaleRow{Workers: workers, Legs: run.Listeners + run.Speakers, OnTime: run.OnTime, TickMs: run.Mixer.TickMs, Missed: run.Mixer.Missed,
		Skipped: run.Skipped, Dropped: run.Dropped, Load: run.Load, PerWorker: run.at}
	var same, other []float64
	for _, a := range run.served {
		if a.speaks {
			same = append(same, a.delays...)
		} else {
			other = append(other, a.delays...)
		}
	}
	row.Same, row.Other = delayOf(same), delayOf(other)
	for _, a := range row.PerWorker {
		row.Cores = round(row.Cores+a.Cores, 5)
		row.TrunkOut, row.TrunkIn = round(row.TrunkOut+a.TrunkOut, 1), round(row.TrunkIn+a.TrunkIn, 1)
	}
	row.MsPerLeg = round(1000*row.Cores/float64(row.Legs), 4)
	return row
}

// ScaleModel is what the rows say of rooms that are larger. Its parts are in cores.
type ScaleModel struct {
	Room        float64      `json:"room"`         // of the speakers' worker: decoding them, encoding for them and for all
	Mix         float64      `json:"mix"`          // of another worker: decoding what the trunks bring, encoding for all
	Leg         float64      `json:"leg"`          // of each leg
	Trunk       float64      `json:"trunk"`        // of the speakers' worker for each other worker that it sends to
	Full        int          `json:"full"`         // legs that fill a worker
	HopMs       float64      `json:"hop_ms"`       // that a trunk adds to the delay's median
	Rooms       []ScaleGuess `json:"rooms"`        // by their size
	Assumptions []string     `json:"assumptions"`  // what the model takes for granted
	TrunkBytes  int          `json:"trunk_packet"` // bytes of a trunk's packet on the wire, about
}

// ScaleGuess is a room of some size by the model.
type ScaleGuess struct {
	Legs      int     `json:"legs"`
	Workers   int     `json:"workers"`
	Cores     float64 `json:"cores"`
	MsPerLeg  float64 `json:"ms_per_s_per_leg"`
	Against   float64 `json:"against_one"` // by one full worker
	Peers     int     `json:"trunks"`      // of the worker that has most
	TrunkMbit float64 `json:"trunk_mbit"`  // that this worker sends, Mbit/s
	LegMbit   float64 `json:"leg_mbit"`    // that a full worker sends to its legs, Mbit/s
	Hops      int     `json:"hops"`        // trunks between a speaker and the farthest listener
	DelayMs   float64 `json:"delay_ms"`    // the median there
}

// What the model takes: how much of a core a worker may use, packets a second, sizes on the
// wire in bytes: Opus of 36 kbit/s in SRTP over UDP, and the same in a trunk; and from how many
// workers on they are joined as a tree.
const (
	fullCore    = 0.7
	perSecond   = 50
	legPacket   = 90 + 12 + 10 + 28 + 14
	trunkPacket = 90 + 12 + 43 + 16 + 28 + 14
	meshWorkers = 16
)

func modelOf(r *ScaleReport) *ScaleModel {
	one, last := r.Rows[0], r.Rows[len(r.Rows)-1]
	m := &ScaleModel{TrunkBytes: trunkPacket}
	m.Leg = math.Max(1e-6, (one.Cores-r.Part.Cores)/float64(max(1, one.Legs-r.Part.Legs)))
	m.Room = math.Max(0, one.Cores-m.Leg*float64(one.Legs))
	m.Mix = m.Room
	var speakers, others float64
	n := 0
	for _, a := range last.PerWorker {
		cores := a.Cores - m.Leg*float64(a.Legs)
		if a.Speaks {
			speakers = cores
		} else {
			others, n = others+cores, n+1
		}
	}
	if n > 0 {
		m.Mix = math.Max(0, others/float64(n))
		m.Trunk = math.Max(0, (speakers-m.Room)/float64(n))
		m.HopMs = math.Max(0, last.Other.P50-last.Same.P50)
	}
	m.Full = int(math.Max(1, (fullCore-math.Max(m.Room, m.Mix))/m.Leg))
	base := one.Same.P50
	for _, legs := range []int{1000, 10000, 100000} {
		g := ScaleGuess{Legs: legs, Workers: (legs + m.Full - 1) / m.Full}
		g.Peers, g.Hops = trunks(g.Workers)
		g.Cores = m.Room + m.Leg*float64(legs) + m.Mix*float64(g.Workers-1) + m.Trunk*float64(g.Workers-1)
		g.MsPerLeg = round(1000*g.Cores/float64(legs), 4)
		full := math.Min(float64(m.Full), float64(legs))
		g.Against = round(g.MsPerLeg/(1000*(m.Room+m.Leg*full)/full), 3)
		g.Cores = round(g.Cores, 2)
		g.TrunkMbit = round(float64(g.Peers*min(r.Speakers, 3)*perSecond*trunkPacket*8)/1e6, 2)
		g.LegMbit = round(full*perSecond*legPacket*8/1e6, 1)
		g.DelayMs = round(base+float64(g.Hops)*m.HopMs, 1)
		m.Rooms = append(m.Rooms, g)
	}
	m.Room, m.Mix, m.Leg, m.Trunk, m.HopMs = round(m.Room, 4), round(m.Mix, 4), round(m.Leg, 7), round(m.Trunk, 5), round(m.HopMs, 1)
	m.Assumptions = []string{
		fmt.Sprintf("A leg costs what it does between %d and %d legs at one worker, here, by a virtual Ethernet pair of which the sender pays the receiving half as well.", r.Part.Legs, one.Legs),
		fmt.Sprintf("A worker has a core and takes legs until %.0f %% of it are used; its machine does nothing else.", 100*fullCore),
		"Who speaks is at one worker, and up to three are heard. Where somebody speaks at every worker, each sends its loudest to its peers, and the traffic of a trunk is the same in each direction.",
		fmt.Sprintf("Up to %d workers have a trunk each with each; beyond they are a tree of about the square root as many hubs, and each hop adds what one adds here. A hub's choosing among many streams is not measured here.", meshWorkers),
		"Joining is not in it: the figures are of those who are there. Nor are lists of participants and events for signalling, of which each join and leave makes some.",
		fmt.Sprintf("Packets are %d bytes on the wire for a leg and %d for a trunk, 50 a second for each stream.", legPacket, trunkPacket),
	}
	return m
}

// trunks are the trunks of the worker that has most, and how many lie between two workers at most.
func trunks(workers int) (peers, hops int) {
	switch {
	case workers < 2:
		return 0, 0
	case workers <= meshWorkers:
		return workers - 1, 1
	}
	hubs := int(math.Ceil(math.Sqrt(float64(workers))))
	return hubs - 1 + (workers-hubs+hubs-1)/hubs, 3
}

// served are the legs of one of the node's addresses.
type served struct {
	address string
	legs    []*leg
	speaks  bool
	delays  []float64 // ms
}

// apart groups the legs by the address that serves them, in the order of the addresses.
func (g *generator) apart() []*served {
	by := map[string]*served{}
	var out []*served
	for i, l := range g.legs {
		at := l.way.Load().to.Addr().String()
		s := by[at]
		if s == nil {
			s = &served{address: at}
			by[at] = s
			out = append(out, s)
		}
		s.legs = append(s.legs, l)
		s.speaks = s.speaks || i < g.cfg.Speakers
	}
	slices.SortFunc(out, func(a, b *served) int { return strings.Compare(a.address, b.address) })
	return out
}
