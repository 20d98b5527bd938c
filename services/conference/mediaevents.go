// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"cmp"
	"context"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// From these on a page says that a connection is not good. In a large room only
// who is past them, or speaks, is in each quality event; in smaller rooms
// everybody is.
const (
	badLossPct  = 2
	badJitterMs = 35
	badRTTMs    = 300
)

// ownEvery is how often everybody in a large room is told of the own connection.
const ownEvery = 30 * time.Second

// quality is what was measured of a leg last, and what was told of it.
type quality struct {
	contract.LegQuality
	bad  bool  // the last event had it as not good
	told int64 // period of ownEvery in which it was in an event
}

// worthTelling notes what was measured and reports whether it goes into the event:
// in a large room also when it has become good again, and once in each ownEvery. All
// are in the same event then, which is so long that connect tells each page only of itself.
func (q *quality) worthTelling(now time.Time, info *contract.LegInfo, large bool) bool {
	q.LegQuality = info.Quality
	bad := q.LostPct > badLossPct || q.FarLostPct > badLossPct || q.JitterMs > badJitterMs || q.RTTMs > badRTTMs
	period := now.UnixNano() / int64(ownEvery)
	tell := !large || bad || q.bad || info.Speaking || q.told != period
	if tell {
		q.bad, q.told = bad, period
	}
	return tell
}

// hearMedia subscribes what media tells.
func (s *Service) hearMedia() error {
	return s.subscribe(
		hear(s, contract.MediaBeat, func(params []string, b *contract.WorkerBeat) {
			if b.Worker != params[1] { // the subject is what the bus lets a worker say
				s.metrics.lies.Inc()
				return
			}
			due, joins := s.workers.beat(b)
			if due && cmp.Or(b.Contract, 1) != contract.Version {
				s.log.Warn("media worker is of a version that this node does not understand; it gets nobody", zap.String("worker", b.Worker), zap.Int("contract", b.Contract))
			}
			if due {
				s.compare(b.Worker)
			}
			if joins {
				s.trunks.started(b.Worker)
			}
		}),
		hear(s, contract.MediaLeg, func(params []string, e *contract.LegChange) {
			if e.State == "closed" && e.Reason == "shutdown" {
				s.workers.left(params[1])
			}
			s.toRoom(e.Room, func(l *live) { l.r.LegState(s.now(), params[1], e.Leg, e.State) })
		}),
		hear(s, contract.MediaVoice, func(params []string, e *contract.VoiceChange) {
			s.toRoom(e.Room, func(l *live) {
				if l.r.At(params[1], e.Leg) {
					l.r.Heard(s.now(), e.Leg, e.Speaking)
				}
			})
		}),
		hear(s, contract.MediaDigit, func(params []string, e *contract.DigitPressed) {
			s.toRoom(e.Room, func(l *live) {
				if l.r.At(params[1], e.Leg) {
					l.r.Pressed(s.now(), e.Leg, e.Digit)
				}
			})
		}),
		hear(s, contract.MediaStats, func(params []string, e *contract.LegStats) { s.stats(params[1], e) }),
		hear(s, contract.BusConnected, func(_ []string, e *contract.Connected) { s.connected(e) }),
		hear(s, contract.IdentityReady, func(_ []string, st *contract.IdentityState) {
			if st.State == "ready" {
				s.setAccounts(st)
			}
		}),
	)
}

// hear makes a subscription that is begun later.
func hear[E any](s *Service, ev contract.Event[E], fn func(params []string, e *E)) func() (*bus.Subscription, error) {
	return func() (*bus.Subscription, error) {
		return bus.Subscribe(s.bus, ev, func(_ context.Context, params []string, e *E) { fn(params, e) })
	}
}

func (s *Service) subscribe(begin ...func() (*bus.Subscription, error)) error {
	for _, fn := range begin {
		sub, err := fn()
		if err != nil {
			return err
		}
		s.subs = append(s.subs, sub)
	}
	return nil
}

// setAccounts takes the node's accounts as they are now.
func (s *Service) setAccounts(st *contract.IdentityState) {
	now := make(map[string]contract.Account, len(st.Accounts))
	for _, a := range st.Accounts {
		now[a.ID] = a
	}
	s.accounts.Store(&now)
}

// account returns one of the node's accounts, for "" the main one; false: there is none.
func (s *Service) account(id string) (contract.Account, bool) {
	all := s.accounts.Load()
	if all == nil {
		return contract.Account{}, false
	}
	a, ok := (*all)[cmp.Or(id, s.bus.Account())]
	return a, ok
}

// toRoom gives an event of media to a room. A full mailbox drops it; the next
// comparison with the worker finds what it said.
func (s *Service) toRoom(name string, fn func(l *live)) {
	if s.known(name) != nil {
		return
	}
	err := s.rooms.Tell(name, func(_ context.Context, l *live) {
		s.quiet.Delete(name)
		fn(l)
		l.commitSoft()
	})
	if err != nil {
		s.metrics.dropped.Inc()
	}
}

// stats gives each room what was measured of its legs.
func (s *Service) stats(worker string, e *contract.LegStats) {
	by := map[string][]contract.LegInfo{}
	for _, l := range e.Legs {
		by[l.Room] = append(by[l.Room], l)
	}
	for name, legs := range by {
		s.toRoom(name, func(l *live) { l.measured(worker, legs) })
	}
}

// measured tells the room of the quality of its legs. The event is neither kept nor
// repeated: Seq 0.
func (l *live) measured(worker string, legs []contract.LegInfo) {
	now := l.s.now()
	show := map[string]contract.LegQuality{}
	for i := range legs {
		if !l.r.Stats(now, worker, leg(&legs[i])) {
			continue
		}
		q := l.quality[legs[i].Leg]
		if q == nil {
			q = new(quality)
			l.quality[legs[i].Leg] = q
		}
		if q.worthTelling(now, &legs[i], l.r.Len() > room.Large) {
			show[legs[i].Leg] = q.LegQuality
		}
	}
	// A page of a message: what a room of thousands with a bad link would say
	// does not fit into one.
	for len(show) > 0 {
		part := map[string]contract.LegQuality{}
		for id, q := range show {
			if len(part) == 2*room.Large {
				break
			}
			part[id] = q
		}
		maps.DeleteFunc(show, func(id string, _ contract.LegQuality) bool { _, ok := part[id]; return ok })
		l.sayQuality(now, part)
	}
}

func (l *live) sayQuality(now time.Time, q map[string]contract.LegQuality) {
	if !l.s.bus.Connected() {
		return // worth nothing later
	}
	e := &contract.RoomEvent{Time: now, Room: l.name, Type: contract.EventQuality, Qualities: q}
	if err := bus.Publish(l.s.ctx, l.s.bus, contract.RoomEvents, e, l.name, string(contract.EventQuality)); err != nil {
		l.log.Debug("quality not published", zap.Error(err))
	}
}

// sendOrder carries out one order to media.
func (s *Service) sendOrder(ctx context.Context, o order) error {
	switch o.Verb {
	case room.LegSet:
		_, err := bus.Call(ctx, s.bus, contract.MediaLegSet,
			&contract.LegSet{Term: s.term, Leg: o.Leg, Epoch: o.epoch, CanSpeak: &o.CanSpeak, Muted: &o.Muted}, o.Worker)
		return err
	case room.LegOpen:
		return s.openBot(ctx, o)
	default:
		_, err := bus.Call(ctx, s.bus, contract.MediaLegClose, &contract.LegClose{Term: s.term, Leg: o.Leg, Epoch: o.epoch, Reason: o.Reason}, o.Worker)
		return err
	}
}
