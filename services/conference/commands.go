// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// commitSoft is commit where nothing is promised about the disk; commit has
// logged what went wrong.
func (l *live) commitSoft() { _, _ = l.commit() }

// joined is the room as a caller may see it. A phone shows no roster, and a Jami peer
// gets it from who signals for it: they are spared the list, whose coding would be most of what a join costs in a large room.
func (l *live) joined(c room.Caller) *contract.Joined { return l.told(c, contract.RosterMax) }

// told is the same with a list of at most so many.
func (l *live) told(c room.Caller, most int) *contract.Joined {
	out := &contract.Joined{Seq: l.r.Seq()}
	m, in := l.r.Member(c.ID)
	if in {
		out.Participant = participant(&m)
	}
	if in && (m.Kind == room.SIP || m.Kind == room.Jami) {
		out.Room = l.about()
		out.Room.Participants = []contract.Participant{out.Participant}
	} else {
		out.Room = l.state(c.ID, most)
	}
	if c.Operator {
		out.Room.ModeratorToken = l.r.Settings().Token
	}
	return out
}

// about is the room without its participants.
func (l *live) about() contract.Room {
	set := l.r.Settings()
	return contract.Room{RoomSettings: settings(set.Public()), Created: set.Created, Revision: l.r.Seq(), Conversation: set.Conversation, Total: l.r.Len()}
}

// The list that a newcomer gets is 0.3 KiB for each participant, and thousands who come at once to a large room would
// get gigabytes: listsBurst participants are listed at once and listsRate a second, to newcomers alone, and
// listLeast to each.
const (
	listsBurst = 50_000
	listsRate  = 20_000
	listLeast  = 40
)

// entered answers a join. While very many come the list has only those who matter, and some others.
func (l *live) entered(id string) *contract.Joined {
	now := l.s.now()
	l.lists = min(listsBurst, l.lists+int(listsRate*now.Sub(l.listsAt).Seconds()))
	l.listsAt = now
	n := min(l.r.Len(), contract.RosterMax, max(l.lists, listLeast))
	out := l.told(room.Caller{ID: id}, n)
	l.lists = max(0, l.lists-len(out.Room.Participants))
	return out
}

// state is the room with its participants, of more than most the ones that matter.
func (l *live) state(asker string, most int) contract.Room {
	out := l.about()
	out.Participants = make([]contract.Participant, 0, min(l.r.Len(), most))
	all := l.r.Len() <= most
	for _, matters := range []bool{true, false} {
		for m := range l.r.InOrder() {
			if len(out.Participants) == most {
				return out
			}
			if all || matters == (m.ID == asker || m.Role == room.Moderator || m.Speaking || m.Hand != nil) {
				out.Participants = append(out.Participants, participant(m))
			}
		}
		if all {
			return out
		}
	}
	return out
}

func (s *Service) leave(ctx context.Context, r *bus.Request[contract.Leave]) (*contract.None, error) {
	reason := room.ReasonLeft
	switch q := r.Body.Reason; q { // what connect knows; nobody kicks by leaving
	case contract.ReasonLost, contract.ReasonShutdown, contract.ReasonRevoked, contract.ReasonBanned:
		reason = q
	}
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.None, error) {
		l.r.Leave(s.now(), r.Param(2), reason)
		l.uncall(r.Param(2))
		l.commitSoft()
		return &contract.None{}, nil
	})
}

// press tells the room of a key that came by signalling.
func (s *Service) press(ctx context.Context, r *bus.Request[contract.KeyPress]) (*contract.None, error) {
	d := r.Body.Digit
	if len(d) != 1 || !strings.Contains("0123456789*#ABCD", d) {
		return nil, contract.ErrBadRequest.With("a key is 0 to 9, *, # or A to D")
	}
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.None, error) {
		l.r.Pressed(s.now(), r.Param(2), d)
		l.commitSoft()
		return &contract.None{}, nil
	})
}

func (s *Service) get(ctx context.Context, r *bus.Request[contract.None]) (*contract.Joined, error) {
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.Joined, error) {
		return l.joined(s.caller(l, r.Param(2), false)), nil
	})
}

func (s *Service) kick(ctx context.Context, r *bus.Request[contract.Target]) (*contract.None, error) {
	return askDurable(ctx, s, r.Param(1), func(l *live) (*contract.None, error) {
		err := l.r.Kick(s.now(), s.caller(l, r.Param(2), true), r.Body.Participant)
		if err == nil {
			l.uncall(r.Body.Participant)
		}
		return &contract.None{}, err
	})
}

// one turns a member and an error into an answer.
func one(m room.Member, err error) (*contract.Participant, error) {
	if err != nil {
		return nil, err
	}
	p := participant(&m)
	return &p, nil
}

func (s *Service) mute(ctx context.Context, r *bus.Request[contract.MuteChange]) (*contract.Participant, error) {
	return askDurable(ctx, s, r.Param(1), func(l *live) (*contract.Participant, error) {
		return one(l.r.Mute(s.now(), s.caller(l, r.Param(2), false), r.Body.Participant, r.Body.Muted))
	})
}

func (s *Service) role(ctx context.Context, r *bus.Request[contract.RoleChange]) (*contract.Participant, error) {
	return askDurable(ctx, s, r.Param(1), func(l *live) (*contract.Participant, error) {
		return one(l.r.SetRole(s.now(), s.caller(l, r.Param(2), true), r.Body.Participant, room.Role(r.Body.Role)))
	})
}

func (s *Service) hand(ctx context.Context, r *bus.Request[contract.HandChange]) (*contract.Participant, error) {
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.Participant, error) {
		defer l.commitSoft()
		return one(l.r.Hand(s.now(), s.caller(l, r.Param(2), false), r.Body.Participant, r.Body.Raised))
	})
}

func (s *Service) lock(ctx context.Context, r *bus.Request[contract.LockChange]) (*contract.RoomSettings, error) {
	defer s.copies.settle(ctx, r.Param(1))
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.RoomSettings, error) {
		c := s.caller(l, r.Param(2), true)
		if !l.r.Moderates(c) {
			return nil, contract.ErrForbidden.With("only a moderator locks the room")
		}
		set := l.r.Settings()
		if set.Locked != r.Body.Locked {
			set.Locked = r.Body.Locked
			if err := s.dir.Save(set); err != nil {
				return nil, contract.ErrStorage.With("the room is as it was: %v", err)
			}
			l.r.SetSettings(s.now(), c.ID, set)
			l.commitSoft()
		}
		out := settings(set.Public())
		return &out, nil
	})
}

func (s *Service) lease(ctx context.Context, r *bus.Request[contract.Lease]) (*contract.Leased, error) {
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.Leased, error) {
		q := &r.Body
		got, left, err := l.r.Claim(s.now(), r.Param(2), q.Instance, time.Duration(q.TTLMs)*time.Millisecond, q.Release)
		l.commitSoft()
		if err != nil {
			return nil, err
		}
		return &contract.Leased{Held: got.Holder == q.Instance, Holder: got.Holder, Epoch: got.Epoch, TTLMs: left.Milliseconds()}, nil
	})
}

// listen passes on what a bot wants to hear.
func (s *Service) listen(ctx context.Context, r *bus.Request[contract.Listen]) (*contract.Listen, error) {
	q, name, id := r.Body, r.Param(1), r.Param(2)
	for _, f := range []string{q.Mix, q.Others, q.Speakers} {
		if f != "" && !slices.Contains(contract.Formats, f) {
			return nil, contract.ErrBadRequest.With("a format is one of %v", contract.Formats)
		}
	}
	if q.TTLMs == 0 {
		q.TTLMs = 10_000
	}
	if q.TTLMs < minWish.Milliseconds() || q.TTLMs > 60_000 {
		return nil, contract.ErrBadRequest.With("ttl_ms is 1000 to 60000")
	}
	set, err := ask(ctx, s, name, func(l *live) (seat, error) {
		m, ok := l.r.Member(id)
		switch {
		case !ok:
			return seat{}, contract.ErrNotFound.With("you are not in the room; join")
		case m.Leg != room.TransportBus:
			return seat{}, contract.ErrForbidden.With("only bots listen over the bus")
		}
		return seat{worker: m.Worker, epoch: l.r.Epoch()}, nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := bus.Call(ctx, s.bus, contract.MediaLegSet, &contract.LegSet{Term: s.term, Leg: id, Epoch: set.epoch, Listen: &q}, set.worker); err != nil {
		if errors.Is(err, contract.ErrNotFound) {
			s.compare(set.worker) // the leg is opened again
			return nil, contract.ErrUnavailable.With("your leg is being made again; try again")
		}
		return nil, err
	}
	err = s.rooms.Tell(name, func(_ context.Context, l *live) {
		l.wishes[id] = wish{q, s.now().Add(time.Duration(q.TTLMs) * time.Millisecond)}
	})
	if err != nil {
		return nil, refusal(err)
	}
	return &q, nil
}

// wish is what a bot wants to hear, and until when: a leg of its that is made anew, by the room's
// own order, begins with it.
type wish struct {
	contract.Listen
	until time.Time
}

// openBot carries out the order to make a bot's leg anew.
func (s *Service) openBot(ctx context.Context, o order) error {
	_, err := bus.Call(ctx, s.bus, contract.MediaLegOpen, &contract.LegOpen{Term: s.term, Leg: o.Leg, Room: o.room, Epoch: o.epoch,
		Transport: contract.TransportBus, CanSpeak: o.CanSpeak, Muted: o.Muted}, o.Worker)
	if err != nil {
		return err
	}
	w, err := ask(ctx, s, o.room, func(l *live) (wish, error) { return l.wishes[o.Leg], nil })
	if err != nil {
		return err
	}
	left := w.until.Sub(s.now())
	if left < minWish {
		return nil // the bot will ask again by itself
	}
	w.TTLMs = left.Milliseconds()
	_, err = bus.Call(ctx, s.bus, contract.MediaLegSet, &contract.LegSet{Term: s.term, Leg: o.Leg, Epoch: o.epoch, Listen: &w.Listen}, o.Worker)
	return err
}

// minWish is the shortest time for which a bot may want to hear something.
const minWish = time.Second
