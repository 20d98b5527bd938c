// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// Limits of a page of events.
const (
	defaultPage = 100
	maxPage     = 500
)

// recentPage is what the actor has at hand for a replay.
type recentPage struct {
	events []room.Event // the kept ones that are asked for
	whole  bool         // nothing older is asked for
	seq    uint64
	sees   func(contract.EventType) bool
}

func (s *Service) replay(ctx context.Context, r *bus.Request[contract.Replay]) (*contract.Replayed, error) {
	q, name := r.Body, r.Param(1)
	if q.Limit == 0 {
		q.Limit = defaultPage
	}
	if q.Limit < 1 || q.Limit > maxPage {
		return nil, contract.ErrBadRequest.With("limit is 1 to %d", maxPage)
	}
	if q.From > 0 && q.Since != nil {
		return nil, contract.ErrBadRequest.With("give from or since, not both")
	}
	wanted := func(seq uint64, t time.Time) bool { return seq >= q.From && (q.Since == nil || !t.Before(*q.Since)) }
	p, err := ask(ctx, s, name, func(l *live) (recentPage, error) {
		i := slices.IndexFunc(l.recent, func(e room.Event) bool { return wanted(e.Seq, e.Time) })
		out := recentPage{seq: l.r.Seq(), sees: l.sees(r.Param(2))}
		if i < 0 {
			out.whole = q.From > out.seq || q.Since != nil && len(l.recent) > 0
			return out, nil
		}
		out.whole = i > 0 || l.recent[0].Seq == max(q.From, 1)
		out.events = slices.Clone(l.recent[i:min(len(l.recent), i+q.Limit)])
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	out := &contract.Replayed{Next: max(q.From, 1), Events: []contract.RoomEvent{}}
	if !p.whole {
		if err := s.readStream(ctx, name, wanted, q.Limit, out); err != nil {
			return nil, err
		}
	}
	for i := range p.events {
		if e := &p.events[i]; len(out.Events) < q.Limit && (len(out.Events) == 0 || e.Seq >= out.Next) {
			ev, err := roomEvent(name, e)
			if err != nil {
				return nil, err
			}
			out.Events, out.Next = append(out.Events, *ev), e.Seq+1
		}
	}
	if len(out.Events) == 0 {
		out.Next = max(out.Next, p.seq+1)
	}
	out.More = out.Next <= p.seq
	for i := range out.Events {
		if e := &out.Events[i]; !p.sees(e.Type) {
			*e = contract.RoomEvent{Seq: e.Seq, Time: e.Time, Room: e.Room, Type: e.Type}
		}
	}
	return out, nil
}

// sees tells which types of events a caller may read. People read all; a bot what
// it was granted, and one that identity has not named yet as little as any bot.
func (l *live) sees(caller string) func(contract.EventType) bool {
	b, isBot := l.s.bots.get(caller, l.name)
	if m, in := l.r.Member(caller); !isBot && (caller == contract.Operator || in && m.Kind != room.Bot) {
		return func(contract.EventType) bool { return true }
	}
	return func(t contract.EventType) bool {
		r := t.Right()
		return r == contract.RightAny || slices.Contains(b.Rights, r)
	}
}

// readStream puts a page of the stream into out. Numbers and times of a room's
// events grow with their place in the stream, so the first one is found by halving.
func (s *Service) readStream(ctx context.Context, name string, wanted func(uint64, time.Time) bool, limit int, out *contract.Replayed) error {
	filter := s.filter(name)
	first, err := s.feed.Next(ctx, filter, 1)
	if err != nil || first == nil {
		return err
	}
	last, err := s.feed.Last(ctx, filter)
	if err != nil || last == nil {
		return err
	}
	lo, hi := first.Pos, last.Pos+1 // the first wanted one is at or after lo, and before hi if there is one
	for lo < hi {
		mid := lo + (hi-lo)/2
		m, e, err := s.readEvent(ctx, filter, mid)
		switch {
		case err != nil:
			return err
		case m == nil || wanted(e.Seq, e.Time):
			hi = mid
		default:
			lo = m.Pos + 1
		}
	}
	for pos := lo; len(out.Events) < limit; {
		m, e, err := s.readEvent(ctx, filter, pos)
		if err != nil {
			return err
		}
		if m == nil {
			return nil
		}
		pos = m.Pos + 1
		if e.Seq < out.Next && len(out.Events) > 0 {
			continue // stored twice
		}
		out.Events, out.Next = append(out.Events, *e), e.Seq+1
	}
	return nil
}

func (s *Service) readEvent(ctx context.Context, filter string, pos uint64) (*bus.FeedEvent, *contract.RoomEvent, error) {
	m, err := s.feed.Next(ctx, filter, pos)
	if err != nil || m == nil {
		return nil, nil, err
	}
	e := new(contract.RoomEvent)
	if err := json.Unmarshal(m.Data, e); err != nil {
		return nil, nil, fmt.Errorf("stored event %d: %w", m.Pos, err)
	}
	return m, e, nil
}
