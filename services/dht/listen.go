package dht

import (
	"context"
	"encoding/hex"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
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
	ends    *time.Timer
	started chan struct{} // closed when stop and err are set
	stop    func()
	err     error
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
	values, err := s.lease(ctx, key, min(ttl, leaseMost))
	if err != nil {
		return nil, err
	}
	return &contract.DHTListening{Key: hex.EncodeToString(key[:]), Values: fit(views(values))}, nil
}

// lease starts to listen, or renews. It returns what is there now.
func (s *Service) lease(ctx context.Context, key overlay.Key, ttl time.Duration) ([]overlay.Value, error) {
	s.mu.Lock()
	l, again := s.leases[key]
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
	if len(s.leases) >= maxLeases {
		s.mu.Unlock()
		return nil, contract.ErrFull.With("%d keys are listened to already; let some end", maxLeases)
	}
	l = &lease{started: make(chan struct{}), ends: time.NewTimer(ttl)}
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
		case <-s.ctx.Done():
		}
		s.forget(key, l)
		l.stop()
	})
	return now, nil
}

func (s *Service) forget(key overlay.Key, l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.ends.Stop()
	delete(s.leases, key)
}

// publish tells the bus of one change.
func (s *Service) publish(c overlay.Change) {
	ev := contract.DHTChange{Value: view(c.Value, time.Now()), Expired: c.Expired}
	if err := bus.Publish(context.Background(), s.conn, contract.DHTChanged, &ev, ev.Value.Key); err != nil {
		s.env.Log.Warn("change not published", zap.Error(err))
	}
}
