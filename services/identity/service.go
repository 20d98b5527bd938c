package identity

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
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
	"github.com/parley-jami/parley/services/identity/bots"
)

// newSettings are those of a new account: people can call it from the start.
var newSettings = account.Settings{Alias: "Parley", Rendezvous: true}

// The states of [contract.IdentityState].
const (
	stateCreating = "creating"
	stateReady    = "ready"
	stateDamaged  = "damaged"
)

// Service is the identity process.
type Service struct {
	env     *host.Env
	botTurn chan struct{} // holds one element while the list of bots is changed
	keys    func(context.Context) (*account.Keys, error)

	mu    sync.Mutex
	state contract.IdentityState

	// Set before the account's commands are served.
	acc     *account.Account
	bots    *bots.Registry
	botsErr error // why bots is nil
	conn    *bus.Conn
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env, botTurn: make(chan struct{}, 1), keys: account.MakeKeys,
		state: contract.IdentityState{State: stateCreating, Message: "the account is being loaded"}}, nil
}

// Run connects, loads or makes the account, and serves until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	// Loading and waiting for the bus go on at once; both end with ctx.
	loaded := make(chan error, 1)
	go func() { loaded <- s.load(dir) }()
	conn, err := s.env.Connect(ctx)
	if err != nil {
		<-loaded
		return err
	}
	defer conn.Close()
	s.conn = conn
	svc, err := bus.NewService(conn, s.env.Name, s.env.Version, "keys, certificates, account and bots")
	if err != nil {
		<-loaded
		return err
	}
	defer svc.Stop()
	if err := bus.Serve(svc, contract.IdentityGet, s.get); err != nil {
		<-loaded
		return err
	}
	if err = <-loaded; errors.Is(err, account.ErrNone) {
		err = s.create(ctx, dir)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return s.stayDamaged(ctx, err)
	}
	if err := s.serve(svc); err != nil {
		return err
	}
	<-ctx.Done()
	s.env.SetReady(false)
	return ctx.Err()
}

// load reads the account and the bots.
func (s *Service) load(dir string) error {
	start := time.Now()
	acc, err := account.Load(dir, start)
	if err != nil {
		return err
	}
	s.acc = acc
	s.loadBots(dir)
	s.env.Log.Info("account loaded", zap.String("id", acc.Chain.JamiID().String()), zap.Duration("took", time.Since(start)))
	return nil
}

func (s *Service) loadBots(dir string) {
	if s.bots, s.botsErr = bots.Open(filepath.Join(dir, "bots.json")); s.botsErr != nil {
		s.env.Log.Error("bots cannot be managed", zap.Error(s.botsErr))
	}
}

// create makes the account of a new node.
func (s *Service) create(ctx context.Context, dir string) error {
	s.setState(contract.IdentityState{State: stateCreating,
		Message: "making the account's three RSA-4096 keys; this happens once and takes 2 to 10 seconds"})
	s.env.Log.Info("making a new account")
	start := time.Now()
	keys, err := s.keys(ctx)
	if err != nil {
		return err
	}
	made := time.Since(start)
	if s.acc, err = account.Create(dir, keys, newSettings, time.Now()); err != nil {
		return err
	}
	s.loadBots(dir)
	s.env.Log.Info("account made", zap.String("id", s.acc.Chain.JamiID().String()), zap.Duration("keys", made),
		zap.Duration("files", time.Since(start)-made))
	return nil
}

// stayDamaged says what is wrong until ctx ends: ending with an error would only
// be a restart for ever.
func (s *Service) stayDamaged(ctx context.Context, err error) error {
	s.env.Log.Error("the account cannot be used", zap.Error(err))
	s.setState(contract.IdentityState{State: stateDamaged, Message: err.Error()})
	<-ctx.Done()
	return ctx.Err()
}

// serve answers the account's commands and tells that it is there.
func (s *Service) serve(svc *bus.Service) error {
	s.conn.SetAccount(s.acc.Chain.JamiID().String())
	err := errors.Join(
		bus.Serve(svc, contract.AccountSet, s.set),
		bus.Serve(svc, contract.IdentityCerts, s.certs),
		bus.Serve(svc, contract.IdentitySign, s.sign),
		bus.Serve(svc, contract.IdentityOpen, s.open),
		bus.Serve(svc, contract.BotCreateCmd, s.botCreate),
		bus.Serve(svc, contract.BotListCmd, s.botList),
		bus.Serve(svc, contract.BotRevoke, s.botRevoke),
	)
	if err != nil {
		return err
	}
	s.setState(contract.IdentityState{State: stateReady, Message: "the account is ready", Account: s.account(s.acc.Settings())})
	s.env.SetReady(true)
	return nil
}

// setState changes what IdentityGet answers and publishes it.
func (s *Service) setState(st contract.IdentityState) {
	s.mu.Lock()
	s.state = st
	s.mu.Unlock()
	if err := bus.Publish(context.Background(), s.conn, contract.IdentityReady, &st); err != nil {
		s.env.Log.Warn("state not published; others will ask", zap.Error(err))
	}
}

func (s *Service) get(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	return &st, nil
}

// account is the public view.
func (s *Service) account(set account.Settings) contract.Account {
	short, long := jami.CertIDs(s.acc.Chain.Device)
	return contract.Account{ID: s.acc.Chain.JamiID().String(), Alias: set.Alias, Rendezvous: set.Rendezvous,
		DeviceID: long.String(), DeviceShort: short.String()}
}
