package identity

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/secret"
	"github.com/parley-jami/parley/services/identity/account"
	"github.com/parley-jami/parley/services/identity/bots"
)

// newSettings are those of a new account: people can call it from the start.
var newSettings = account.Settings{Alias: "Parley", Rendezvous: true}

// The states of [contract.IdentityState].
const (
	stateCreating = "creating"
	stateWaiting  = "waiting"
	stateReady    = "ready"
	stateDamaged  = "damaged"
	stateRetrying = "retrying"
)

// waitAdvice says what a node without an account waits for.
const waitAdvice = "the node has no account, and makes none by itself (identity.create): use parley account create, import or join"

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

	lookEvery    time.Duration // how often the overlay is looked at
	managedEvery time.Duration // and an account server
	// How often leases of listeners are renewed, and how long changes are waited for.
	leaseEvery, syncRest time.Duration
	messageTime          time.Duration // how long a message is tried
	opening              *rate.Limiter // values that are decrypted, of all accounts
	ringing              *rate.Limiter // and those that ask for connections
	metrics              *metrics
	sealed               *secret.Key // what secrets on the bus are sealed to

	changing sync.Mutex // held while an account is changed and that is told; before mu
	mu       sync.Mutex
	state    contract.IdentityState
	hosts    []*hosted // the main account first
	damaged  []error   // of accounts that cannot be used
	making   chan made // keys that are being made; nil: none

	// Set before the accounts' commands are served.
	store   *account.Store
	bots    *bots.Registry
	botsErr error // why bots is nil
	conn    *bus.Conn
	ctx     context.Context //nolint:containedctx // ends what is done for the accounts in the background
	wg      sync.WaitGroup
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	key, err := secret.NewKey()
	if err != nil {
		return nil, err
	}
	if err := harden(); err != nil {
		env.Log.Warn("a weaker protection than usual", zap.Error(err))
	}
	seal, err := StorageKey(env.Config)
	if err != nil {
		return nil, err
	}
	return &Service{env: env, sealed: key, store: &account.Store{Seal: seal}, botTurn: make(chan struct{}, 1), keys: account.MakeKeys, now: time.Now, pause: retryFirst, lookEvery: lookAgain, managedEvery: managedEvery,
		leaseEvery: leaseEvery, syncRest: syncRest, messageTime: messageTime, opening: rate.NewLimiter(openRate, openBurst), ringing: rate.NewLimiter(ringRate, ringBurst), metrics: newMetrics(env.Registry),
		state: contract.IdentityState{State: stateCreating, Message: "the account is being loaded", SealKey: key.Public()}}, nil
}

// Run connects, loads or makes the account, and serves until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	s.store.Root = dir
	// Loading and waiting for the bus go on at once; both end with ctx.
	loaded := make(chan error, 1)
	go func() { loaded <- s.load(dir) }()
	conn, err := s.env.Connect(ctx)
	if err != nil {
		<-loaded
		return err
	}
	defer conn.Close()
	s.conn, s.ctx = conn, ctx
	svc, err := bus.NewService(conn.For(bus.Any), s.env.Name, s.env.Version, "keys, certificates, account and bots")
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
	s.wg.Go(func() { s.reconcile(ctx) })
	<-ctx.Done()
	s.env.SetReady(false)
	svc.Stop() // no command starts anything after this
	s.wg.Wait()
	for _, h := range s.hosts {
		h.acc.Close()
	}
	clear(s.store.Seal)
	return ctx.Err()
}

// ready makes the account where there is none and the operator wants one, and tries
// again for as long as the disk refuses. err is that of loading. It returns a [account.DamagedError], or what
// ended ctx.
func (s *Service) ready(ctx context.Context, dir string, err error) error {
	wait := s.pause
	var keys *account.Keys
	for {
		if errors.Is(err, account.ErrNone) && !s.env.Config.Identity.Create {
			err = s.loadBots(dir)
		} else if errors.Is(err, account.ErrNone) {
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

// StorageKey is what encrypts private keys on the disk: the first line of the file that
// is set, else the variable of the environment; nil: none. The variable is gone after.
func StorageKey(c *config.Config) ([]byte, error) {
	fromEnv, err := secret.TakeEnv(config.EnvIdentityStorageKey)
	if path := c.Identity.StorageKey; path != "" {
		var key []byte
		if key, err = secret.File(path); err == nil {
			return key, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("storage key (identity.storage_key_file): %w", err)
	}
	return fromEnv, nil
}

// load reads the accounts and the bots.
func (s *Service) load(dir string) error {
	start := time.Now()
	s.store.Password = s.password()
	acc, err := s.store.Load()
	if err != nil {
		return err
	}
	others, damaged, err := s.store.LoadOthers()
	if err != nil {
		return err
	}
	if err := s.loadBots(dir); err != nil {
		return err
	}
	for _, err := range damaged {
		s.env.Log.Error("one of the accounts cannot be used", zap.Error(err))
	}
	s.damaged = damaged
	for _, a := range append([]*account.Account{acc}, others...) {
		s.hosts = append(s.hosts, &hosted{Service: s, acc: a})
	}
	s.env.Log.Info("accounts loaded", zap.String("id", acc.Chain.JamiID.String()), zap.Int("others", len(others)), zap.Duration("took", time.Since(start)))
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
	acc, err := s.store.Create(keys, newSettings, s.now())
	if err != nil {
		return err
	}
	if err := s.loadBots(dir); err != nil {
		return err
	}
	s.hosts = []*hosted{{Service: s, acc: acc}}
	s.env.Log.Info("account made", zap.String("id", acc.Chain.JamiID.String()), zap.Duration("took", time.Since(start)))
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

// serve answers the accounts' commands and tells that they are there.
func (s *Service) serve(svc *bus.Service) error {
	for i, h := range s.hosts {
		h.begin(i == 0)
	}
	err := errors.Join(
		bus.Serve(svc, contract.AccountCreateCmd, s.accountCreate),
		bus.Serve(svc, contract.AccountRequest, s.accountRequest),
		bus.Serve(svc, contract.AccountComplete, s.accountComplete),
		bus.Serve(svc, contract.AccountImport, s.accountImport),
		bus.Serve(svc, contract.AccountJoin, s.accountJoin),
		bus.Serve(svc, contract.AccountEnrol, s.accountEnrol),
		bus.Serve(svc, contract.AccountCRL, of(s, (*hosted).accountCRL)),
		bus.Serve(svc, contract.DeviceLink, of(s, (*hosted).deviceLink)),
		bus.Serve(svc, contract.NameSign, of(s, (*hosted).nameSign)),
		bus.Serve(svc, contract.AccountRetire, of(s, (*hosted).retire)),
		bus.Serve(svc, contract.AccountSet, of(s, (*hosted).set)),
		bus.Serve(svc, contract.IdentityCerts, of(s, (*hosted).certs)),
		bus.Serve(svc, contract.ArchiveExport, of(s, (*hosted).archiveExport)),
		bus.Serve(svc, contract.ArchivePassword, of(s, (*hosted).archivePassword)),
		bus.Serve(svc, contract.DeviceList, of(s, (*hosted).deviceList)),
		bus.Serve(svc, contract.DeviceRename, of(s, (*hosted).deviceRename)),
		bus.Serve(svc, contract.DeviceRevoke, of(s, (*hosted).deviceRevoke)),
		bus.Serve(svc, contract.ContactList, of(s, (*hosted).contactList)),
		bus.Serve(svc, contract.ContactSetCmd, of(s, (*hosted).contactSet)),
		bus.Serve(svc, contract.RequestList, of(s, (*hosted).requestList)),
		bus.Serve(svc, contract.RequestAnswerCmd, of(s, (*hosted).requestAnswer)),
		bus.Serve(svc, contract.MessageSendCmd, of(s, (*hosted).messageSend)),
		bus.Serve(svc, contract.AddressAskCmd, of(s, (*hosted).addressAsk)),
		bus.Serve(svc, contract.IdentitySign, of(s, (*hosted).sign)),
		bus.Serve(svc, contract.IdentityOpen, of(s, (*hosted).open)),
		bus.Serve(svc, contract.PeerSend, of(s, (*hosted).peerSend)),
		bus.Serve(svc, contract.PeerFind, of(s, (*hosted).peerFind)),
		bus.Serve(svc, contract.MessageTake, of(s, (*hosted).messageTake)),
		bus.Serve(svc, contract.NoticeSendCmd, of(s, (*hosted).noticeSend)),
		bus.Serve(svc, contract.PostFetchedCmd, of(s, (*hosted).postFetched)),
		bus.Serve(svc, contract.DHTSealCmd, of(s, (*hosted).sealValue)),
		bus.Serve(svc, contract.DHTOpenCmd, of(s, (*hosted).openValue)),
		bus.Serve(svc, contract.BotCreateCmd, ofMain(s, s.botCreate)),
		bus.Serve(svc, contract.BotListCmd, ofMain(s, s.botList)),
		bus.Serve(svc, contract.BotRevoke, ofMain(s, s.botRevoke)),
	)
	if err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.tell()
	return nil
}

// tell publishes the accounts as they are. The caller holds s.changing: of two changes
// the later is told last.
func (s *Service) tell() {
	hosts := s.all()
	s.mu.Lock()
	damaged := s.damaged
	s.mu.Unlock()
	st := contract.IdentityState{State: stateReady, Message: "the account is ready"}
	for i, h := range hosts {
		v := h.view()
		if st.Accounts = append(st.Accounts, v); i > 0 {
			continue
		}
		if st.Account = v; v.Note != "" {
			st.Message += "; " + v.Note
		}
		if err := h.acc.Revoked(); err != nil {
			st = contract.IdentityState{State: stateDamaged, Message: err.Error()}
			break
		}
	}
	if len(hosts) == 0 {
		st = contract.IdentityState{State: stateWaiting, Message: waitAdvice}
	}
	for _, err := range damaged {
		st.Unusable = append(st.Unusable, err.Error())
	}
	s.env.SetReady(st.State == stateReady)
	s.setState(st)
}

// setState changes what IdentityGet answers and publishes it.
func (s *Service) setState(st contract.IdentityState) {
	st.SealKey = s.sealed.Public()
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
