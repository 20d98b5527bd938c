// Package media is the process in which audio travels: legs of browsers, phones
// and bots, and the mixers of the rooms. It serves media.leg.* for its worker name
// and does not need the bus to keep mixing: legs that are there go on while it is
// away, and also when this process is killed and started again (package resume).
package media

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/media/buslegs"
	"github.com/parley-jami/parley/services/media/leg"
	"github.com/parley-jami/parley/services/media/resume"
	"github.com/parley-jami/parley/services/media/trunk"
)

// Service is the media process.
type Service struct {
	// fixed after New
	env     *host.Env
	log     *zap.Logger
	worker  string
	trunk   *trunk.Key
	public  []netip.Addr
	started string // random word of this process
	born    time.Time
	events  chan func(*bus.Conn)

	metrics *metrics
	cpu     meter

	term atomic.Uint64 // the latest of a conference that ordered something

	// fixed after the start of Run
	host  *leg.Host
	hosts atomic.Pointer[leg.Host] // the same, for who may ask before

	mu   sync.Mutex
	bots map[string]*bot // bus legs by participant
	legs *buslegs.Legs   // nil until the bus is there
}

// maxEvents bounds the events that wait for the bus. Beyond, they are dropped and
// counted: conference reads the state of all legs when it comes back.
const maxEvents = 4096

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) { return newService(env) }

func newService(env *host.Env) (*Service, error) {
	s := &Service{
		env: env, log: env.Log, worker: env.Config.Media.Worker, started: rand.Text()[:12], born: time.Now(),
		events: make(chan func(*bus.Conn), maxEvents), bots: map[string]*bot{},
	}
	for _, p := range env.Config.Media.Public {
		a, err := netip.ParseAddr(p)
		if err != nil {
			return nil, fmt.Errorf("media.public: %q is not an IP address", p)
		}
		s.public = append(s.public, a.Unmap())
	}
	var err error
	if s.trunk, err = trunk.NewKey(s.worker, s.started); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(env.Registry, s)
	return s, nil
}

// Run serves until ctx ends. It is ready when the sockets are open and the legs of
// the process before are back; the bus may come later.
func (s *Service) Run(ctx context.Context) error {
	priority := prioritize()
	if err := s.open(priority); err != nil {
		return err
	}
	if err := s.host.Start(); err != nil {
		s.host.Abandon()
		return err
	}
	s.env.SetReady(true)
	return s.serve(ctx)
}

// serve runs until ctx ends, the bus refuses this process or a socket fails. Far
// ends are told before the bus is left, so that conference hears of it too.
func (s *Service) serve(ctx context.Context) error {
	busCtx, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	beside.Go(func() { s.reachable(ctx) })
	if c := s.relayClient(); c != nil {
		beside.Go(func() { s.relays(ctx, c) })
	}
	done := make(chan error, 1)
	go func() { done <- s.serveBus(busCtx) }()
	var err error
	select {
	case err = <-done:
		s.host.Close()
		return err
	case err = <-s.host.Failed():
		err = fmt.Errorf("media sockets: %w", err)
	case <-ctx.Done():
	}
	s.host.Close()
	leave()
	if e := <-done; e != nil && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return err
}

// open opens sockets, certificate and the state of the process before.
func (s *Service) open(priority error) error {
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	cfg := leg.Config{Public: s.public, Loudest: s.env.Config.Media.Loudest, Keep: !s.env.Config.Media.Shed, Trunk: s.trunk, Log: s.log}
	cfg.Events = leg.Events{Change: s.onChange, Digit: s.onDigit, Voice: s.onVoice}
	if cfg.Certificate, err = loadCertificate(filepath.Join(dir, "dtls.pem"), time.Now()); err != nil {
		return err
	}
	fresh := false
	cfg.Table, fresh, err = resume.OpenTable(filepath.Join(dir, "counters"), time.Now())
	if err == nil {
		cfg.Files, err = resume.OpenFiles(filepath.Join(dir, "legs"))
	}
	if err == nil && fresh {
		err = cfg.Files.Clear()
	}
	if err != nil { // a full disk must not stop sound
		s.log.Error("leg state cannot be kept; legs will end with this process", zap.Error(err))
		cfg.Table, cfg.Files = resume.Memory(), nil
	}
	specs, err := sockets.MediaSpecs(s.env.Config)
	if err != nil {
		return err
	}
	for i, sp := range specs {
		c, err := sockets.UDP(sp.Name, sp.Addr)
		if err != nil {
			return fmt.Errorf("media.listen: %w", err)
		}
		switch {
		case i == 0:
			cfg.Browser = c
		case i%2 == 1:
			cfg.RTP[i/2] = c
		default:
			cfg.RTCP[i/2-1] = c
		}
	}
	s.warn(priority, cfg.Browser)
	if s.host, err = leg.New(cfg); err != nil {
		return err
	}
	s.hosts.Store(s.host)
	return nil
}

// warn says once what the machine does not give.
func (s *Service) warn(priority error, c *net.UDPConn) {
	receive, send, err := sockets.Buffers(c)
	if err != nil {
		s.log.Debug("buffers of the UDP sockets are not known", zap.Error(err))
		return
	}
	if what := lacks(priority, receive, send); what != "" {
		s.log.Warn("under load audio may be late or lost: "+what, zap.NamedError("priority", priority))
	}
}

// hostNow returns the legs' host, nil before it is there.
func (s *Service) hostNow() *leg.Host { return s.hosts.Load() }
