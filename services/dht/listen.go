package dht

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/gate"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Bounds of listeners that the bus asked for.
const (
	leaseDefault = time.Minute
	leaseMost    = 10 * time.Minute
	maxLeases    = 1024
)

// lease is one key that is listened to until nobody renews it.
type lease struct {
	// Under Service.mu: the accounts whose listeners are told; over says that each of them
	// banned the id at the key.
	askers map[string]asker
	over   bool

	ends    *time.Timer
	alone   chan struct{} // closed with over
	started chan struct{} // closed when stop and err are set
	stop    func()
	err     error
}

// asker is the gate of an account that asked, and what ends its watch for a ban.
type asker struct {
	gate    *gate.Keeper
	unwatch func()
}

func (s *Service) listen(ctx context.Context, r *bus.Request[contract.DHTListen]) (*contract.DHTListening, error) {
	key, err := parseKey(r.Body.Key)
	if err != nil {
		return nil, err
	}
	ttl := time.Duration(r.Body.TTLMs) * time.Millisecond
	if r.Body.TTLMs <= 0 {
		ttl = leaseDefault
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	values, err := s.lease(ctx, r.Param(0), key, min(ttl, leaseMost))
	if err != nil {
		return nil, err
	}
	return &contract.DHTListening{Key: hex.EncodeToString(key[:]), Values: fit(views(values))}, nil
}

// lease starts to listen for an account, or renews. It returns what is there now. An account
// does not listen to whom it banned; that ends when it bans.
func (s *Service) lease(ctx context.Context, account string, key overlay.Key, ttl time.Duration) ([]overlay.Value, error) {
	gate, err := s.gates.Of(account)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	l, again := s.leases[key]
	if again = again && !l.over; !again {
		if len(s.leases) >= maxLeases {
			s.mu.Unlock()
			return nil, contract.ErrFull.With("%d keys are listened to already; let some end", maxLeases)
		}
		l = &lease{askers: map[string]asker{}, started: make(chan struct{}), alone: make(chan struct{}), ends: time.NewTimer(ttl)}
	}
	if l.askers[account].gate != gate { // it asks first, or was taken out of use and came again
		// Under mu: who is banned now is taken out after it was put in.
		unwatch, err := gate.WatchID(jami.ID(key), func(error) { s.part(l, account) })
		if err != nil {
			delete(l.askers, account)
			s.mu.Unlock()
			return nil, blocked(err)
		}
		l.askers[account] = asker{gate, unwatch} // the gate of before is closed, and its watches with it
	}
	if again {
		l.ends.Reset(ttl)
		s.mu.Unlock()
		select {
		case <-l.started:
		case <-ctx.Done():
			return nil, contract.ErrTimeout
		}
		if l.err != nil {
			return nil, s.refusal(l.err)
		}
		now, err := s.node.Get(ctx, key)
		if err != nil {
			return nil, s.refusal(err)
		}
		return now, nil
	}
	s.leases[key] = l
	s.mu.Unlock()

	var now []overlay.Value
	now, l.stop, l.err = s.node.Listen(ctx, key, s.publish)
	close(l.started)
	if l.err != nil {
		s.forget(key, l)
		return nil, s.refusal(l.err)
	}
	s.wg.Go(func() { // Run stops the commands before it waits
		select {
		case <-l.ends.C:
		case <-l.alone:
			s.env.Log.Info("listening ended: the contact is blocked", zap.Stringer("key", jami.ID(key)))
		case <-s.ctx.Done():
		}
		s.forget(key, l)
		l.stop()
	})
	return now, nil
}

// part no longer tells an account, which banned the id at the key.
func (s *Service) part(l *lease, account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(l.askers, account)
	if len(l.askers) == 0 && !l.over {
		l.over = true
		close(l.alone)
	}
}

func (s *Service) forget(key overlay.Key, l *lease) {
	s.mu.Lock()
	l.ends.Stop()
	if s.leases[key] == l { // there may be a new one
		delete(s.leases, key)
	}
	askers := slices.Collect(maps.Values(l.askers))
	s.mu.Unlock()
	for _, a := range askers {
		a.unwatch()
	}
}

// publish tells the bus of one change, for each account that asked.
func (s *Service) publish(c overlay.Change) {
	ev := contract.DHTChange{Value: view(c.Value, time.Now()), Expired: c.Expired}
	s.mu.Lock()
	var askers []string
	if l := s.leases[c.Value.Key]; l != nil {
		askers = slices.Collect(maps.Keys(l.askers))
	}
	s.mu.Unlock()
	for _, acc := range askers {
		if err := bus.Publish(context.Background(), s.conn.For(acc), contract.DHTChanged, &ev, ev.Value.Key); err != nil {
			s.env.Log.Warn("change not published", zap.Error(err))
		}
	}
}
