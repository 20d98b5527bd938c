// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// callTime is how long a seat is kept for who is called: longer than connect lets it take, so
// that it ends here only when connect has died.
const callTime = 2 * time.Minute

// calling is somebody who is called: the leg is open and has made its offer.
type calling struct {
	seat
	until time.Time
}

// mayCall reports whether somebody may call people into the room.
func (s *Service) mayCall(l *live, id string) bool {
	b, ok := s.bots.get(id, l.name)
	return ok && slices.Contains(b.Rights, contract.RightCall) || l.r.Moderates(s.caller(l, id, false))
}

// ringing keeps the seat until the answer comes.
func (s *Service) ringing(ctx context.Context, name, id string, t seat, opened *contract.LegOpened) (*contract.Joined, error) {
	return ask(ctx, s, name, func(l *live) (*contract.Joined, error) {
		t.called = true
		l.calls[id] = calling{seat: t, until: s.now().Add(callTime)}
		return &contract.Joined{SDP: opened.SDP, Seq: l.r.Seq()}, nil
	})
}

// taken takes the seat: who was called has answered.
func (s *Service) taken(ctx context.Context, name, id string, t seat, n *contract.Negotiate) (*contract.Negotiated, error) {
	lctx, cancel := context.WithTimeout(ctx, legTime)
	defer cancel()
	opened, err := bus.Call(lctx, s.bus, contract.MediaLegSDP, &contract.LegSDP{Term: s.term, Leg: id, Epoch: t.epoch, SDP: n.SDP, Answer: true, Remote: n.Source}, t.worker)
	switch {
	case errors.Is(err, contract.ErrNotFound), errors.Is(err, contract.ErrGone):
		return nil, contract.ErrGone.With("the media process was started anew while it rang; call again")
	case err != nil:
		return nil, err
	}
	return ask(ctx, s, name, func(l *live) (*contract.Negotiated, error) {
		if _, ok := l.calls[id]; !ok {
			return nil, contract.ErrGone.With("the call was given up")
		}
		delete(l.calls, id)
		_, err := l.r.Seat(s.now(), id, room.Opened{Worker: t.worker, Transport: opened.Transport, Codec: opened.Codec, Source: n.Source, Device: n.Device, Signalled: signalled(n.Signalled)})
		l.commitSoft()
		return &contract.Negotiated{}, err
	})
}

// uncall gives the seat of who is called back, if it was not taken.
func (l *live) uncall(id string) {
	c, ok := l.calls[id]
	if !ok {
		return
	}
	delete(l.calls, id)
	l.r.Abort(id)
	l.s.orders.put(l.name, c.epoch, room.Order{Verb: room.LegClose, Leg: id, Worker: c.worker, Reason: room.ReasonLeft})
}

// forgetCalls gives back the seats whose calls nobody has ended.
func (l *live) forgetCalls(now time.Time) {
	for id, c := range l.calls {
		if now.After(c.until) {
			l.uncall(id)
		}
	}
}
