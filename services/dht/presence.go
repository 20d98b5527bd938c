package dht

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/presence"
)

// An announcement that could not be made is tried again after the first of
// these, doubling to the second.
const (
	announceFirst = time.Second
	announceMost  = time.Minute
	announceTold  = 4 * time.Second // sooner it is nothing that an operator cares about
)

// withdrawTime bounds what is taken back when the process is told to end.
const withdrawTime = 2 * time.Second

// announce keeps the device of each of the node's accounts announced until ctx ends.
func (s *Service) announce(ctx context.Context) {
	changed := make(chan struct{}, 1)
	look := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	sub, err := bus.Subscribe(s.conn, contract.IdentityReady, func(context.Context, []string, *contract.IdentityState) { look() })
	if err != nil {
		s.env.Log.Error("new accounts will not be announced before the next start", zap.Error(err))
	} else {
		defer sub.Stop()
	}
	defer s.conn.OnReconnect(look)()
	announced := map[string]announcement{} // by account
	defer func() {
		for _, a := range announced {
			a.unwatch()
		}
		s.withdrawAll(announced)
	}()
	for wait := announceFirst; ; {
		err := s.announceAll(ctx, announced, look)
		if ctx.Err() != nil {
			return
		}
		var again <-chan time.Time
		if err != nil {
			level := zap.WarnLevel
			if wait < announceTold { // at a start the others are not there yet
				level = zap.DebugLevel
			}
			s.env.Log.Log(level, "device not announced; trying again", zap.Error(err), zap.Duration("in", wait))
			again, wait = time.After(wait), min(2*wait, announceMost)
		} else {
			wait = announceFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// announcement is that of one account.
type announcement struct {
	value   uint64 // its id; 0: there is none, the device is revoked
	revoked *atomic.Bool
	unwatch func()
}

// announceAll announces the accounts that are new and ends what it told of those that
// are gone.
func (s *Service) announceAll(ctx context.Context, announced map[string]announcement, look func()) error {
	// Whatever identity says: it is not ready when the main account's device is revoked.
	for acc, a := range announced {
		if a.value != 0 && a.revoked.Load() {
			s.withdraw(ctx, acc, a)
			a.value = 0
			announced[acc] = a
			s.env.Log.Error("the device of this node was revoked; its announcement is taken away", zap.String("account", acc))
		}
	}
	st, err := bus.Call(ctx, s.conn, contract.IdentityGet, &contract.None{})
	if err != nil {
		return err
	}
	if st.State != "ready" {
		return nil // the change is told
	}
	var errs []error
	for _, acc := range st.Accounts {
		if _, had := announced[acc.ID]; had {
			continue
		}
		a, err := s.announceDevice(ctx, acc.ID, look)
		if err != nil {
			errs = append(errs, fmt.Errorf("account %s: %w", acc.ID, err))
			continue
		}
		announced[acc.ID] = a
	}
	for acc, a := range announced {
		if !slices.ContainsFunc(st.Accounts, func(x contract.Account) bool { return x.ID == acc }) {
			a.unwatch()
			s.withdraw(ctx, acc, a)
			delete(announced, acc)
		}
	}
	return errors.Join(errs...)
}

func (s *Service) withdraw(ctx context.Context, account string, a announcement) {
	if id, err := jami.ParseID(account); err == nil && a.value != 0 {
		s.node.Cancel(ctx, overlay.Key(id), a.value)
	}
}

// withdrawAll takes back what was announced when the node ends, so that contacts see that
// at once. Where the overlay has no such thing, as OpenDHT, or the process is killed, an
// announcement expires within ten minutes.
func (s *Service) withdrawAll(announced map[string]announcement) {
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTime)
	defer cancel()
	var wg sync.WaitGroup
	for acc, a := range announced {
		wg.Go(func() { s.withdraw(ctx, acc, a) })
	}
	wg.Wait()
}

// announceDevice puts the device's announcement at the Jami Id, with a fresh value id at
// each start (§3.2), unless the device is revoked. look is called when it is later.
func (s *Service) announceDevice(ctx context.Context, account string, look func()) (a announcement, err error) {
	c, err := bus.Call(ctx, s.conn.For(account), contract.IdentityCerts, &contract.None{})
	if err != nil {
		return a, err
	}
	id, err := jami.ParseID(account)
	if err != nil {
		return a, err
	}
	v, err := jami.ParseValue(c.Announcement)
	if err != nil {
		return a, err
	}
	if _, err := jami.VerifyAnnouncement(v, id); err != nil {
		return a, fmt.Errorf("own announcement: %w", err)
	}
	a.revoked = new(atomic.Bool)
	a.unwatch, err = s.watchOwn(account, c, func(error) { a.revoked.Store(true); look() })
	switch {
	case errors.Is(err, &trust.Error{Reason: trust.Revoked}):
		s.env.Log.Error("the device of this node is not announced", zap.String("account", account), zap.Error(err))
		a.unwatch = func() {}
		return a, nil
	case err != nil:
		return a, err
	}
	if a.value, err = s.putAnnouncement(ctx, account, id, v); err != nil {
		a.unwatch()
	}
	return a, err
}

func (s *Service) putAnnouncement(ctx context.Context, account string, id jami.ID, v *jami.Value) (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	v.ID = binary.BigEndian.Uint64(b[:]) | 1 // never 0
	packed, err := v.Pack()
	if err != nil {
		return 0, err
	}
	st, err := s.node.Put(ctx, overlay.Value{Key: overlay.Key(id), ID: v.ID, Type: v.Type, Data: packed}, true)
	if err != nil {
		return 0, err
	}
	s.env.Log.Info("device announced", zap.String("account", account), zap.Int("peers", st.Peers))
	return v.ID, nil
}

// watchOwn watches an account's own certificates. Whether they are valid now is for peers
// to say: only that they were revoked is an error of trust.
func (s *Service) watchOwn(account string, c *contract.Certificates, fn func(error)) (stop func(), err error) {
	gate, err := s.gates.Of(account)
	if err != nil {
		return nil, err
	}
	certs, err := trust.Certificates([]byte(c.DevicePEM + c.AccountPEM))
	if err != nil {
		return nil, fmt.Errorf("own certificates: %w", err)
	}
	chain, err := gate.Check(certs)
	if err == nil {
		stop, err = gate.Watch(chain, fn)
	}
	if err != nil && !errors.Is(err, &trust.Error{Reason: trust.Revoked}) {
		s.env.Log.Warn("peers may refuse this device", zap.String("account", account), zap.Error(err))
		return func() {}, nil
	}
	return stop, err
}

// presence looks for a device that can be called: the account itself announced it, and its
// certificates are found and are good, as those who call it need them too. What the account
// revoked is found beside its announcements. Of who is banned nothing is asked.
func (s *Service) presence(ctx context.Context, r *bus.Request[contract.DHTPresence]) (*contract.DHTPresence, error) {
	id, err := jami.ParseID(r.Body.ID)
	if err != nil || id.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	gate, err := s.gates.Of(r.Param(0))
	if err != nil {
		return nil, err
	}
	if err := gate.AllowedIDs(id); err != nil {
		return nil, blocked(err)
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	vs, err := s.node.Get(ctx, overlay.Key(id))
	if err != nil {
		return nil, s.refusal(err)
	}
	devices, lists := presence.Announced(vs, id)
	for _, short := range devices {
		c, err := presence.Find(ctx, s.node, id, short)
		if c != nil {
			err = errors.Join(gate.Allowed(c), presence.RevokedBy(c, lists))
		}
		if c != nil && err == nil {
			return &contract.DHTPresence{ID: id.String(), Online: true}, nil
		}
		s.env.Log.Debug("announced device is not there", zap.Stringer("account", id), zap.Stringer("device", short), zap.Error(err))
	}
	return &contract.DHTPresence{ID: id.String()}, nil
}

func blocked(err error) error {
	return contract.ErrForbidden.With("%v; unblock it first: parley account contact unblock", err)
}
