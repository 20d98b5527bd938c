package dht

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/gate"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/dht/both"
	"github.com/parley-jami/parley/services/dht/libp2p"
	"github.com/parley-jami/parley/services/dht/opendht"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/permanent"
	"github.com/parley-jami/parley/services/dht/proxyclient"
)

// Service is the dht process.
type Service struct {
	env *host.Env

	// Set before commands are served. damaged says why the other two are nil.
	node    *owned
	keep    *permanent.List
	proxy   *door // nil: there is none
	damaged error

	conn  *bus.Conn
	gates *gate.Set
	who   *following      // nil with damaged
	ctx   context.Context // ends what commands leave running: leases of listeners

	wg       sync.WaitGroup
	scanning sync.Mutex // held by the one scan that runs
	mu       sync.Mutex
	leases   map[overlay.Key]*lease
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env, leases: map[overlay.Key]*lease{}}, nil
}

// Run joins the overlay and serves until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx = ctx
	start := time.Now()
	if err := s.join(); err != nil {
		return err
	}
	if s.node != nil {
		defer func() { err = errors.Join(err, s.node.Close()) }()
		s.env.Registry.MustRegister(&collector{func() []overlay.Report { return reports(s.node.Overlay) }, s.leaseCount})
		s.env.Log.Info("overlay joined", zap.String("id", s.node.Node().ID), zap.Strings("addresses", s.node.Node().Addresses),
			zap.Duration("took", time.Since(start)))
	}
	conn, err := s.env.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.conn = conn
	// A node without an account finds one in the overlay; for an account whose gate is not
	// open yet nobody is looked after.
	if s.gates, err = gate.Follow(conn); err != nil {
		return err
	}
	defer s.gates.Close()
	svc, err := bus.NewService(conn.For(bus.Any), s.env.Name, s.env.Version, "distributed hash table: values, presence")
	if err != nil {
		return err
	}
	if s.damaged == nil {
		s.who = newFollowing(s)
	}
	if err := s.serve(svc); err != nil {
		svc.Stop()
		return err
	}
	ended := make(chan error, 1) // of the proxy
	if s.proxy != nil {
		s.wg.Go(func() { ended <- s.proxy.run(ctx) })
	}
	if s.damaged == nil {
		s.wg.Go(func() { s.who.run(ctx) })
		s.wg.Go(func() { s.announce(ctx) })
		if err := conn.NATS().FlushTimeout(bus.DefaultTimeout); err != nil { // the bus knows now what is served here
			s.env.Log.Warn("bus flush", zap.Error(err))
		}
		s.env.SetReady(true)
	}
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-ended: // also when ctx has ended
		cancel()
	}
	s.env.SetReady(false)
	svc.Stop() // no command starts a lease after this
	s.wg.Wait()
	return err
}

// join reads the files and starts the overlay. What is wrong with a file is kept
// for the answers; what is wrong with the settings ends the process.
func (s *Service) join() error {
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	s.keep, err = permanent.Open(filepath.Join(dir, "permanent.json"))
	var node overlay.Overlay
	if err == nil {
		node, err = s.overlay(dir)
	}
	var damaged *stateError
	switch {
	case errors.As(err, &damaged), s.keep == nil:
		s.env.Log.Error("taking no part in the overlay", zap.Error(err))
		s.damaged = err
		return nil
	case err != nil:
		return err
	}
	own := newOwned(node)
	s.node = own
	if s.proxy, err = s.openProxy(dir, own); err != nil {
		return errors.Join(err, node.Close())
	}
	// Before any command: a value that is cancelled or replaced then stays so.
	if err := own.Restore(s.keep.All()); err != nil {
		s.env.Log.Error("permanent values not put", zap.Error(err))
	}
	return nil
}

// stateError says that a key's file is damaged.
type stateError struct{ error }

func (e *stateError) Unwrap() error { return e.error }

// overlay starts the overlays that the settings name. A node key that cannot be read is
// a *stateError; nothing runs then.
func (s *Service) overlay(dir string) (overlay.Overlay, error) {
	c := s.env.Config.DHT
	if c.Overlay == "proxy" {
		return s.viaProxy(dir)
	}
	var pair [2]overlay.Overlay
	var err error
	if c.Overlay != "opendht" {
		if pair[0], err = s.libp2p(dir); err != nil {
			return nil, err
		}
	}
	if c.Overlay == "opendht" || c.Overlay == "both" {
		if pair[1], err = s.openDHT(dir); err != nil {
			if pair[0] != nil {
				err = errors.Join(err, pair[0].Close())
			}
			return nil, err
		}
	}
	switch {
	case pair[1] == nil:
		return pair[0], nil
	case pair[0] == nil:
		return pair[1], nil
	}
	return both.New(pair[0], pair[1], s.env.Log.Named("both")), nil
}

func (s *Service) libp2p(dir string) (overlay.Overlay, error) {
	key, err := libp2p.NodeKey(filepath.Join(dir, "node.key"))
	if err != nil {
		return nil, &stateError{err}
	}
	c := s.env.Config.DHT
	n, err := libp2p.New(libp2p.Options{Key: key, Listen: c.Listen, Bootstrap: c.Bootstrap, Log: s.env.Log.Named("libp2p")})
	if err != nil {
		return nil, err // a nil *Node is not a nil Overlay
	}
	return n, nil
}

func (s *Service) openDHT(dir string) (overlay.Overlay, error) {
	key, err := opendht.NodeKey(filepath.Join(dir, "opendht.key"))
	if err != nil {
		return nil, &stateError{err}
	}
	n, err := openDHT(s.env, dir, opendht.Options{Key: key, MaxStore: nodeStore << 20})
	if err != nil {
		return nil, err // a nil *Node is not a nil Overlay
	}
	return n, nil
}

// viaProxy starts the overlay for nodes without UDP. Its key is OpenDHT's: the node signs as
// the same writer in either.
func (s *Service) viaProxy(dir string) (overlay.Overlay, error) {
	key, err := opendht.NodeKey(filepath.Join(dir, "opendht.key"))
	if err != nil {
		return nil, &stateError{err}
	}
	c := s.env.Config.DHT
	n, err := proxyclient.New(proxyclient.Options{Key: key, Servers: c.Proxy, CA: c.ProxyCA, Log: s.env.Log.Named("proxy")})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (s *Service) serve(svc *bus.Service) error {
	return errors.Join(
		bus.Serve(svc, contract.DHTPutCmd, whole(s, s.put)),
		bus.Serve(svc, contract.DHTCancelCmd, whole(s, s.cancel)),
		bus.Serve(svc, contract.DHTGetCmd, whole(s, s.get)),
		bus.Serve(svc, contract.DHTListenCmd, whole(s, s.listen)),
		bus.Serve(svc, contract.DHTPresenceGet, whole(s, s.presence)),
		bus.Serve(svc, contract.PresenceList, whole(s, func(ctx context.Context, r *bus.Request[contract.None]) (*contract.Presences, error) {
			return s.who.list(ctx, r)
		})),
		bus.Serve(svc, contract.DHTNodeGet, whole(s, s.describe)),
		bus.Serve(svc, contract.DHTStatsGet, whole(s, s.stats)),
		bus.Serve(svc, contract.DHTPingCmd, whole(s, s.ping)),
		bus.Serve(svc, contract.DHTScanCmd, whole(s, s.scan)),
	)
}

// whole refuses a command while a file is damaged.
func whole[Q, A any](s *Service, fn func(context.Context, *bus.Request[Q]) (*A, error)) func(context.Context, *bus.Request[Q]) (*A, error) {
	return func(ctx context.Context, r *bus.Request[Q]) (*A, error) {
		if s.damaged != nil {
			return nil, contract.ErrStateDamaged.With("%v", s.damaged)
		}
		return fn(ctx, r)
	}
}
