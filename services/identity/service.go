package identity

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/secret"
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
	stateRetrying = "retrying"
)

// What the disk refuses is tried again after the first of these, doubling to the
// second.
const (
	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// Service is the identity process.
type Service struct {
	env     *host.Env
	botTurn chan struct{} // holds one element while the list of bots is changed
	keys    func(context.Context) (*account.Keys, error)
	now     func() time.Time
	pause   time.Duration // before the first retry

	lookEvery time.Duration // how often the overlay is looked at
	isPut     atomic.Bool   // is what the account has to put there put

	changing sync.Mutex // held while the settings are changed and that is told
	mu       sync.Mutex
	state    contract.IdentityState

	// Set before the account's commands are served.
	acc     *account.Account
	bots    *bots.Registry
	botsErr error // why bots is nil
	conn    *bus.Conn
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env, botTurn: make(chan struct{}, 1), keys: account.MakeKeys, now: time.Now, pause: retryFirst, lookEvery: lookAgain,
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
	err = s.ready(ctx, dir, <-loaded)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return s.stayDamaged(ctx, err)
	}
	if err := s.serve(svc); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.reconcile(ctx) })
	wg.Go(func() { s.overlay(ctx) })
	<-ctx.Done()
	s.env.SetReady(false)
	wg.Wait()
	return ctx.Err()
}

// ready makes the account where there is none, and tries again for as long as the
// disk refuses. err is that of loading. It returns a [account.DamagedError], or what
// ended ctx.
func (s *Service) ready(ctx context.Context, dir string, err error) error {
	wait := s.pause
	var keys *account.Keys
	for {
		if errors.Is(err, account.ErrNone) {
			if keys == nil {
				if keys, err = s.makeKeys(ctx); err != nil {
					return err
				}
			}
			err = s.create(dir, keys)
		}
		if _, damaged := errors.AsType[*account.DamagedError](err); err == nil || damaged || ctx.Err() != nil {
			return err
		}
		s.env.Log.Error("no account; trying again", zap.Error(err), zap.Duration("in", wait))
		s.setState(contract.IdentityState{State: stateRetrying, Message: fmt.Sprintf("the account cannot be read or written now: %v; "+
			"look at the disk and at the permissions of %s. It is tried again by itself", err, dir)})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			wait = min(2*wait, max(retryMost, s.pause))
		}
		err = s.load(dir)
	}
}

// password is that of the archive, where the operator named a file; nil: none, or it
// cannot be read, which the state tells.
func (s *Service) password() []byte {
	path := s.env.Config.Identity.PasswordFile
	if path == "" {
		return nil
	}
	pw, err := secret.File(path)
	if err != nil {
		s.env.Log.Error("password of the archive (identity.password_file)", zap.Error(err))
	}
	return pw
}

// load reads the account and the bots.
func (s *Service) load(dir string) error {
	start := time.Now()
	acc, err := account.Load(dir, s.password())
	if err != nil {
		return err
	}
	s.acc = acc
	if err := s.loadBots(dir); err != nil {
		return err
	}
	s.env.Log.Info("account loaded", zap.String("id", acc.Chain.JamiID.String()), zap.Duration("took", time.Since(start)))
	return nil
}

// loadBots reads the list of bots. A damaged one leaves the account working.
func (s *Service) loadBots(dir string) error {
	s.bots, s.botsErr = bots.Open(filepath.Join(dir, "bots.json"))
	if _, damaged := errors.AsType[*bots.DamagedError](s.botsErr); s.botsErr != nil && !damaged {
		return s.botsErr
	}
	if s.botsErr != nil {
		s.env.Log.Error("bots cannot be managed", zap.Error(s.botsErr))
	}
	return nil
}

// makeKeys makes the keys of a new node's account.
func (s *Service) makeKeys(ctx context.Context) (*account.Keys, error) {
	s.setState(contract.IdentityState{State: stateCreating,
		Message: "making the account's three RSA-4096 keys; this happens once and takes 2 to 10 seconds"})
	s.env.Log.Info("making a new account")
	start := time.Now()
	keys, err := s.keys(ctx)
	if err == nil {
		s.env.Log.Info("keys made", zap.Duration("took", time.Since(start)))
	}
	return keys, err
}

// create makes the account of a new node.
func (s *Service) create(dir string, keys *account.Keys) error {
	start := time.Now()
	var err error
	if s.acc, err = account.Create(dir, keys, newSettings, s.now()); err != nil {
		return err
	}
	if err := s.loadBots(dir); err != nil {
		return err
	}
	s.env.Log.Info("account made", zap.String("id", s.acc.Chain.JamiID.String()), zap.Duration("took", time.Since(start)))
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
	s.conn.SetAccount(s.acc.Chain.JamiID.String())
	err := errors.Join(
		bus.Serve(svc, contract.AccountSet, s.set),
		bus.Serve(svc, contract.IdentityCerts, s.certs),
		bus.Serve(svc, contract.ArchiveExport, s.archiveExport),
		bus.Serve(svc, contract.ArchivePassword, s.archivePassword),
		bus.Serve(svc, contract.DeviceList, s.deviceList),
		bus.Serve(svc, contract.DeviceRename, s.deviceRename),
		bus.Serve(svc, contract.DeviceRevoke, s.deviceRevoke),
		bus.Serve(svc, contract.ContactList, s.contactList),
		bus.Serve(svc, contract.ContactSetCmd, s.contactSet),
		bus.Serve(svc, contract.IdentitySign, s.sign),
		bus.Serve(svc, contract.IdentityOpen, s.open),
		bus.Serve(svc, contract.BotCreateCmd, s.botCreate),
		bus.Serve(svc, contract.BotListCmd, s.botList),
		bus.Serve(svc, contract.BotRevoke, s.botRevoke),
	)
	if err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.setReady(s.acc.Settings())
	s.env.SetReady(true)
	return nil
}

// setReady tells of the account as it is. The caller holds s.changing: of two
// changes the later is told last.
func (s *Service) setReady(set account.Settings) contract.Account {
	msg := "the account is ready" + s.archiveState()
	if err := s.acc.Dates(s.now()); err != nil {
		s.env.Log.Warn("dates of the account's certificates", zap.Error(err))
		msg += "; peers may refuse it: " + err.Error()
	}
	acc := publicView(s.acc, set)
	if s.acc.Revoked() != nil { // told already
		return acc
	}
	s.setState(contract.IdentityState{State: stateReady, Message: msg, Account: acc})
	return acc
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

// publicView is what others may know of an account.
func publicView(a *account.Account, set account.Settings) contract.Account {
	return contract.Account{ID: a.Chain.JamiID.String(), Alias: set.Alias, Rendezvous: set.Rendezvous,
		DeviceID: a.Chain.DeviceID.String(), DeviceShort: a.Chain.DeviceShort.String(), Archive: string(a.Guard())}
}
