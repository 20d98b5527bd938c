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
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/dht/libp2p"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/permanent"
)

// Service is the dht process.
type Service struct {
	env *host.Env

	// Set before commands are served. damaged says why the other two are nil.
	node    overlay.Overlay
	keep    *permanent.List
	damaged error

	conn    *bus.Conn
	account contract.Account
	ctx     context.Context // ends what commands leave running: leases of listeners

	wg     sync.WaitGroup
	mu     sync.Mutex
	leases map[overlay.Key]*lease
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env, leases: map[overlay.Key]*lease{}}, nil
}

// Run joins the overlay and serves until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	s.ctx = ctx
	start := time.Now()
	if err := s.join(); err != nil {
		return err
	}
	if s.node != nil {
		defer func() { err = errors.Join(err, s.node.Close()) }()
		s.env.Log.Info("overlay joined", zap.String("id", s.node.Node().ID), zap.Strings("addresses", s.node.Node().Addresses),
			zap.Duration("took", time.Since(start)))
	}
	conn, acc, err := s.env.ConnectAccount(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.conn, s.account = conn, acc
	svc, err := bus.NewService(conn, s.env.Name, s.env.Version, "distributed hash table: values, presence")
	if err != nil {
		return err
	}
	if err := s.serve(svc); err != nil {
		svc.Stop()
		return err
	}
	if s.damaged == nil {
		s.wg.Go(func() { s.announce(ctx) })
		s.env.SetReady(true)
	}
	<-ctx.Done()
	s.env.SetReady(false)
	svc.Stop() // no command starts a lease after this
	s.wg.Wait()
	return ctx.Err()
}

// join reads the files and starts the overlay. What is wrong with a file is kept
// for the answers; what is wrong with the settings ends the process.
func (s *Service) join() error {
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	key, err := libp2p.NodeKey(filepath.Join(dir, "node.key"))
	if err == nil {
		s.keep, err = permanent.Open(filepath.Join(dir, "permanent.json"))
	}
	if err != nil {
		s.env.Log.Error("taking no part in the overlay", zap.Error(err))
		s.damaged = err
		return nil
	}
	c := s.env.Config.DHT
	node, err := libp2p.New(libp2p.Options{Key: key, Listen: c.Listen, Bootstrap: c.Bootstrap, Log: s.env.Log.Named("libp2p")})
	if err != nil {
		return err
	}
	s.node = node
	// Before any command: a value that is cancelled or replaced then stays so.
	if err := node.Restore(s.keep.All()); err != nil {
		s.env.Log.Error("permanent values not put", zap.Error(err))
	}
	return nil
}

func (s *Service) serve(svc *bus.Service) error {
	return errors.Join(
		bus.Serve(svc, contract.DHTPutCmd, whole(s, s.put)),
		bus.Serve(svc, contract.DHTCancelCmd, whole(s, s.cancel)),
		bus.Serve(svc, contract.DHTGetCmd, whole(s, s.get)),
		bus.Serve(svc, contract.DHTListenCmd, whole(s, s.listen)),
		bus.Serve(svc, contract.DHTPresenceGet, whole(s, s.presence)),
		bus.Serve(svc, contract.DHTNodeGet, whole(s, s.describe)),
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
