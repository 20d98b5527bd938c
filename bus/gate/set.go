package gate

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/trust"
)

// openTime bounds the opening of one account's gate, while others wait.
const openTime = 5 * time.Second

// Set is the gates of the node's accounts. Each account bans for itself; what one of them
// revoked is refused by all, since a device of one may come to another.
type Set struct {
	conn    *bus.Conn
	revoked *trust.Revocations
	changed chan struct{}   // holds an element when the accounts are to be looked at
	life    context.Context //nolint:containedctx // until Close
	stop    func()
	wg      sync.WaitGroup

	mu   sync.Mutex
	open map[string]*Keeper
}

// OpenAll returns the gates of the accounts that identity has now, when each knows all, or
// the error that ended ctx. One that does not answer for [openTime] is tried again later. It opens and closes others as accounts come and go, until Close.
func OpenAll(ctx context.Context, conn *bus.Conn) (*Set, error) {
	s, err := newSet(conn)
	if err != nil {
		return nil, err
	}
	if err := s.update(ctx); err != nil {
		s.Close()
		return nil, err
	}
	s.wg.Go(s.follow)
	return s, nil
}

// Follow is [OpenAll] for who has something to do while no account is known: it waits
// for nothing.
func Follow(conn *bus.Conn) (*Set, error) {
	s, err := newSet(conn)
	if err != nil {
		return nil, err
	}
	s.look()
	s.wg.Go(s.follow)
	return s, nil
}

func newSet(conn *bus.Conn) (*Set, error) {
	life, cancel := context.WithCancel(context.Background())
	s := &Set{conn: conn, revoked: new(trust.Revocations), changed: make(chan struct{}, 1), open: map[string]*Keeper{}}
	sub, err := bus.Subscribe(conn, contract.IdentityReady, func(context.Context, []string, *contract.IdentityState) { s.look() })
	if err != nil {
		cancel()
		return nil, err
	}
	deaf := conn.OnReconnect(s.look)
	s.life, s.stop = life, func() {
		cancel()
		deaf()
		sub.Stop()
	}
	return s, nil
}

// follow looks at the accounts whenever they may have changed, until Close.
func (s *Set) follow() {
	for {
		select {
		case <-s.life.Done():
			return
		case <-s.changed:
			if s.update(s.life) != nil {
				return // life has ended
			}
		}
	}
}

func (s *Set) look() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Close closes all gates.
func (s *Set) Close() {
	s.stop()
	s.wg.Wait()
	for _, k := range s.all() { // not under mu: what one of them learns just now is told to all
		k.Close()
	}
}

// Of returns the gate of an account. One that is not known yet lets nobody in:
// the error is [contract.ErrUnavailable].
func (s *Set) Of(account string) (*Keeper, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.open[account]; k != nil {
		return k, nil
	}
	return nil, contract.ErrUnavailable.With("whom account %.60q refuses is not known yet", account)
}

// Revoked is what any of the accounts revoked.
func (s *Set) Revoked() *trust.Revocations { return s.revoked }

// update opens the gates of accounts that are new and closes those of who is gone. It asks
// until identity answers or ctx ends, whose error it returns.
func (s *Set) update(ctx context.Context) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		st, err := bus.Call(ctx, s.conn, contract.IdentityGet, &contract.None{})
		if err == nil && (st.State == "ready" || len(st.Accounts) > 0) {
			return s.take(ctx, st.Accounts)
		}
		if err == nil && len(s.all()) > 0 {
			return nil // the change to ready is told
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (s *Set) take(ctx context.Context, accounts []contract.Account) error {
	there := map[string]bool{}
	for _, acc := range accounts {
		there[acc.ID] = true
		if _, err := s.Of(acc.ID); err == nil {
			continue
		}
		opening, cancel := context.WithTimeout(ctx, openTime)
		k, err := open(opening, s.conn.For(acc.ID), s)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // it may be gone already
			s.conn.Log().Warn("account not known yet; trying again", zap.String("account", acc.ID), zap.Error(err))
			s.look()
			continue
		}
		s.mu.Lock()
		s.open[acc.ID] = k
		s.mu.Unlock()
	}
	for id, k := range s.all() {
		if !there[id] {
			s.mu.Lock()
			delete(s.open, id)
			s.mu.Unlock()
			k.Close()
			s.conn.Log().Info("the node has an account less", zap.String("account", id))
		}
	}
	return nil
}

func (s *Set) all() map[string]*Keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]*Keeper, len(s.open))
	for id, k := range s.open {
		out[id] = k
	}
	return out
}

// barAll looks at the watches of every gate after something was revoked.
func (s *Set) barAll() {
	for _, k := range s.all() {
		k.barAll()
	}
}
