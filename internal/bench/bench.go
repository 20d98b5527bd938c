// Package bench loads a node with generated legs and measures what they cost and
// how well they are served. It is cheap on purpose: all legs share one socket,
// each on a loopback address of its own (127.77.x.y), the speakers' audio is
// encoded beforehand and what the listeners got is decoded afterwards.
//
// On time: a listener's clock is the median of arrival minus RTP time over the
// run; a 20 ms frame is on time when it arrives within ±20 ms of that clock. Frames
// that never came count as late. Arrival is the kernel's time stamp.
//
// Delay: speaker 0 mixes a chirp into his voice. From the time at which the packet
// with a chirp's first sample was sent, plus the sample's place in it, to the time
// at which the packet with that sample reached a listener, plus its place there;
// less [LookAhead] for each of the two Opus encoders on the way. The sender's own
// 20 ms of framing aren't counted: they are not the node's.
package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// LookAhead is the algorithmic delay of an Opus encoder beyond its frame: 6.5 ms
// (RFC 6716 §2.1.2: 2.5 ms of overlap and 4 ms of resampling and look-ahead).
const LookAhead = 6500 * time.Microsecond

// Process is what a process of the node has used.
type Process struct {
	Name   string
	CPU    float64 // seconds since its start
	RSS    int64   // bytes
	At     float64 // when that was, in seconds since its start; 0: now
	Worker string  // of a process that mixes
	Host   string  // address of that

	// Where the process tells, as those of this machine do.
	Goroutines int
	Heap       int64 // bytes in use
	Ticks      Ticks // of a process that mixes
	Told       bool
}

// Ticks is how a mixer has kept its time since its start.
type Ticks struct {
	Done, Missed float64
	Spent        float64 // seconds
	Refused      float64 // packets that the kernel did not take
	Shedding     float64 // rooms that give their listeners longer packets now
	TrunkOut     float64 // packets on the trunks that are there
	TrunkIn      float64
}

// Node is the running node.
type Node interface {
	Join(ctx context.Context, w Wish) (answer string, err error)
	Leave(ctx context.Context, id string) error
	Processes(ctx context.Context) ([]Process, error)
}

// Wish is a leg's to join.
type Wish struct {
	ID      string
	Addr    string // that it signals from
	Offer   string // SDP
	Muted   bool   // it only listens
	Browser bool   // it has ICE and DTLS
}

// Transports of the legs.
const (
	RTP     = "rtp"
	SRTP    = "srtp"     // SDES, AES_CM_128_HMAC_SHA1_80
	SRTPGCM = "srtp-gcm" // SDES, AEAD_AES_128_GCM
	DTLS    = "dtls"     // ICE and DTLS-SRTP as browsers do them, AEAD_AES_128_GCM
	DTLSCM  = "dtls-cm"  // the same with AES_CM_128_HMAC_SHA1_80
)

// Config says what to do.
type Config struct {
	Listeners int
	Speakers  int
	Silent    int // who send encoded silence all the time and no level, as a stock Jami app does that is muted
	Seconds   int
	Transport string
	// Progress is called now and then with what is being done; nil: never.
	Progress func(what string, done, of int)

	warm   time.Duration // before measuring; when 0, 3 s and 4 ms for each leg
	spread int           // into how many groups of addresses the legs go, up to maxGroups; 1 when 0
	frames bool          // note the time of each frame
	net    [2]byte       // the /16 of the legs; loopback when 0
	apart  bool          // by the address that serves a leg
}

// Bounds of [Config].
const (
	MaxLegs     = 20000
	MaxSpeakers = 1000
	MaxSeconds  = 3600
)

// ErrConfig is wrapped by what is wrong with a [Config].
var ErrConfig = errors.New("bench")

func (c *Config) check() error {
	switch {
	case c.Listeners < 0 || c.Silent < 0 || c.Listeners+c.Silent > MaxLegs:
		return fmt.Errorf("%w: listeners and those who send silence must be 0 to %d", ErrConfig, MaxLegs)
	case c.Speakers < 0 || c.Speakers > MaxSpeakers:
		return fmt.Errorf("%w: speakers must be 0 to %d", ErrConfig, MaxSpeakers)
	case c.Listeners+c.Silent+c.Speakers < 1:
		return fmt.Errorf("%w: there is nobody", ErrConfig)
	case c.Seconds < 1 || c.Seconds > MaxSeconds:
		return fmt.Errorf("%w: seconds must be 1 to %d", ErrConfig, MaxSeconds)
	}
	if err := checkTransport(c.Transport); err != nil {
		return err
	}
	if c.warm == 0 {
		c.warm = warmUp + time.Duration(c.Listeners+c.Silent+c.Speakers)*warmUpEach
	}
	if c.net == [2]byte{} {
		c.net = loopback
	}
	if c.Progress == nil {
		c.Progress = func(string, int, int) {}
	}
	return nil
}

func checkTransport(t string) error {
	if _, ok := transports[t]; !ok {
		return fmt.Errorf("%w: transport must be one of %s", ErrConfig, strings.Join(slices.Sorted(maps.Keys(transports)), ", "))
	}
	return nil
}

// Report is the result. Scripts rely on the names.
type Report struct {
	Listeners            int                `json:"listeners"`
	Speakers             int                `json:"speakers"`
	Silent               int                `json:"silent,omitempty"`
	Seconds              int                `json:"seconds"`
	Transport            string             `json:"transport"`
	CPUPerS              map[string]float64 `json:"cpu_per_s"`             // CPU seconds a second, by process
	RSS                  map[string]int64   `json:"rss"`                   // bytes at the end, by process
	Workers              map[string]float64 `json:"workers"`               // CPU of each media worker
	MsPerSecondPerListen float64            `json:"ms_per_s_per_listener"` // CPU of all workers, by those who listen or send silence
	MsPerSecondPerLeg    float64            `json:"ms_per_s_per_leg"`      // the same by all
	BytesPerListener     int64              `json:"bytes_per_listener"`    // growth of the workers' memory
	OnTime               float64            `json:"on_time"`               // share of frames, 0 to 1; 1 without speakers
	Absent               float64            `json:"absent"`                // share of frames that never came, of those not on time
	Mixer                Mixer              `json:"mixer"`
	Dropped              uint32             `json:"generator_dropped"` // packets that came while the generator's buffer was full
	Skipped              int64              `json:"generator_skipped"` // frames that each speaker left out, as the generator was held up; the node may have had nothing to send
	DelayMs              Delay              `json:"delay_ms"`
	Load                 float64            `json:"load"` // of the machine at the end, over a minute (proc(5), loadavg)

	served []*served
	at     []At
}

// Mixer is how the workers that tell, those of this machine, kept their time while measured.
type Mixer struct {
	Ticks   float64 `json:"ticks"`
	Missed  float64 `json:"missed"`  // ticks whose time had passed when the room was woken
	TickMs  float64 `json:"tick_ms"` // of work, on average
	Refused float64 `json:"refused"` // packets that the kernel did not take
	// Untold are the workers whose ticks are not among these: nobody tells them here.
	Untold []string `json:"untold,omitempty"`
	// Shedding is how many rooms gave their listeners packets of 40 or 60 ms at the beginning or the end, as they
	// could not keep their time: less CPU and more delay.
	Shedding float64 `json:"shedding"`
}

// Delay is what the node adds, in ms; see the package comment. Found is how many
// marks were found again.
type Delay struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Found int     `json:"found"`
}

// Unknown stands where a figure is not known.
const Unknown = "-"

// Median is P50 for people, Most is P99.
func (d Delay) Median() string { return known(d.P50, d.Found) }
func (d Delay) Most() string   { return known(d.P99, d.Found) }

// known is a figure that was taken from so many.
func known(v float64, from int) string {
	if from == 0 {
		return Unknown
	}
	return fmt.Sprintf("%.1f", v)
}

const (
	joinsAtOnce = 16
	warmUp      = 3 * time.Second // what so many joins at once delayed is caught up by then
	warmUpEach  = 4 * time.Millisecond
	leaveTime   = 30 * time.Second
	sampled     = 4 // listeners that are decoded
)

// Run joins, measures and leaves.
func Run(ctx context.Context, cfg Config, node Node) (*Report, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	before, err := node.Processes(ctx)
	if err != nil {
		return nil, fmt.Errorf("the node's processes: %w", err)
	}
	g, err := newGenerator(cfg)
	if err != nil {
		return nil, err
	}
	defer g.close()
	defer g.leave(ctx, node)
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- g.receive() })
	stop := func() { cancel(); g.stop(); wg.Wait() }
	defer stop()
	if err := g.join(ctx, node); err != nil {
		return nil, err
	}
	g.sample()
	wg.Go(func() { errs <- g.send(run) })

	if err := g.wait(ctx, cfg.warm, "warming up", errs); err != nil {
		return nil, err
	}
	first, err := node.Processes(ctx)
	if err != nil {
		return nil, fmt.Errorf("the node's processes: %w", err)
	}
	began := time.Now()
	g.measuring.Store(true)
	if err := g.wait(ctx, time.Duration(cfg.Seconds)*time.Second, "measuring", errs); err != nil {
		return nil, err
	}
	g.measuring.Store(false)
	elapsed := time.Since(began).Seconds()
	last, err := node.Processes(ctx)
	if err != nil {
		return nil, fmt.Errorf("the node's processes: %w", err)
	}
	stop()
	return g.report(before, first, last, elapsed)
}

func (g *generator) wait(ctx context.Context, d time.Duration, what string, errs <-chan error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for n := 0; ; n++ {
		g.cfg.Progress(what, n, int(d.Seconds()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-errs:
			return fmt.Errorf("the load generator stopped: %w", err)
		case <-tick.C:
		case <-end.C:
			return nil
		}
	}
}

// join brings all legs in, the speakers first.
func (g *generator) join(ctx context.Context, node Node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *leg)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	at := joinsAtOnce
	if g.cfg.apart {
		at = 1 // the room stays at its first worker: of those who come at once each may go to another one
	}
	for range at {
		wg.Go(func() {
			for l := range next {
				l.asked = true // also one whose answer is not waited for any more
				if err := g.bring(ctx, node, l); err != nil {
					cancel(fmt.Errorf("leg %s: %w", l.id, err))
					continue
				}
				mu.Lock()
				done++
				g.cfg.Progress("joining", done, len(g.legs))
				mu.Unlock()
			}
		})
	}
feed:
	for _, l := range g.legs {
		select {
		case next <- l:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// bring has a leg join and connect.
func (g *generator) bring(ctx context.Context, node Node, l *leg) error {
	w := l.newWay()
	answer, err := node.Join(ctx, Wish{ID: l.id, Addr: l.addr.String(), Offer: l.offer(w, g.port), Muted: !l.speaks, Browser: l.dtls})
	if err != nil {
		return err
	}
	if err := l.accept(w, answer); err != nil {
		return err
	}
	l.way.Store(w)
	l.home = w.to.Addr()
	if !l.dtls {
		return nil
	}
	if err := l.connect(ctx, g.sock, w); err != nil {
		return err
	}
	return g.keep(l, make([]byte, 0, 256)) // with its first report the node lets go of the handshake
}

// leave takes out whoever joined or may have, also when the run was interrupted.
func (g *generator) leave(ctx context.Context, node Node) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	next := make(chan *leg)
	var wg sync.WaitGroup
	for range joinsAtOnce {
		wg.Go(func() {
			for l := range next {
				if err := node.Leave(ctx, l.id); err != nil {
					g.cfg.Progress("leaving: "+err.Error(), 0, 0)
				}
			}
		})
	}
	for i, l := range g.legs {
		if l.asked {
			next <- l
			g.cfg.Progress("leaving", i+1, len(g.legs))
		}
	}
	close(next)
	wg.Wait()
}
