// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

const (
	// maxHalfOpen bounds the seats that wait for audio, in all rooms.
	maxHalfOpen = 10_000
	// legTime is how long media may take to open a leg.
	legTime = 3 * time.Second
	// maxWorkers bounds how many workers are asked for a leg, each of which says that it is full.
	maxWorkers = 8
	// maxSilent bounds how many that do not answer, each of which takes legTime.
	maxSilent = 1
	// aimFor is how long who comes into an empty room goes where the one before him was sent.
	aimFor = 2 * legTime
	// maxSDP bounds an offer or answer in bytes.
	maxSDP = 64 << 10
)

var (
	jamiRE   = regexp.MustCompile(`^[0-9a-f]{40}$`)
	deviceRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

var idRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// seat is what the actor says before the leg is opened.
type seat struct {
	room.Ticket
	worker string
	epoch  uint64
	called bool // the seat is reserved for who is called
}

// join lets somebody in: the seat is reserved, media opens the leg, the seat is
// taken. The room goes on while media works.
func (s *Service) join(ctx context.Context, r *bus.Request[contract.Join]) (*contract.Joined, error) {
	start := s.now()
	out, err := s.joinTry(ctx, r.Param(1), r.Param(2), &r.Body)
	result := "ok"
	if err != nil {
		result = contract.ErrInternal.Code
		if e, ok := errors.AsType[*contract.Error](err); ok {
			result = e.Code
		}
		s.log.Info("join refused", zap.String("room", r.Param(1)), zap.String("participant", r.Param(2)),
			zap.String("kind", string(r.Body.Kind)), zap.String("source", r.Body.Source), zap.String("why", result))
	}
	if err == nil {
		s.copies.settle(ctx, r.Param(1))
	}
	s.metrics.joins.WithLabelValues(result).Inc()
	s.metrics.joinTime.Observe(s.now().Sub(start).Seconds())
	return out, err
}

func (s *Service) joinTry(ctx context.Context, name, id string, j *contract.Join) (*contract.Joined, error) {
	if err := s.known(name); err != nil {
		return nil, err
	}
	q, err := s.request(name, id, j)
	if err != nil {
		return nil, err
	}
	if q.Leg != room.TransportBus && s.halfOpen.Load() >= maxHalfOpen {
		return nil, contract.ErrBusy.With("too many callers whose audio has not come yet; try again")
	}
	for _, q := range []*orders{s.orders, s.formers} {
		if err := q.quiet(ctx, id); err != nil {
			return nil, err
		}
	}
	t, err := ask(ctx, s, name, func(l *live) (seat, error) {
		if q.Called && !s.mayCall(l, j.By) {
			return seat{}, contract.ErrForbidden.With("only a moderator calls people into the room")
		}
		return l.admit(q, j.Source)
	})
	if err != nil {
		return nil, err
	}
	opened, err := s.openLeg(ctx, name, t, j, "")
	var asked []string
	for silent := 0; err != nil && len(asked) < maxWorkers; { // its last beat does not tell yet, or is not true
		switch {
		case errors.Is(err, contract.ErrTimeout), errors.Is(err, contract.ErrUnavailable):
			silent++ // a leg that it made all the same is found when its legs are compared
		case !errors.Is(err, contract.ErrBusy):
			silent = maxSilent + 1
		}
		if silent > maxSilent {
			break
		}
		s.workers.refused(t.worker, err)
		asked = append(asked, t.worker)
		next, none := ask(ctx, s, name, func(l *live) (string, error) {
			return l.place(spot{bot: t.Member.Leg == room.TransportBus, from: j.Source}, asked...)
		})
		if none != nil || slices.Contains(asked, next) {
			break // why this one refused says more
		}
		t.worker = next
		opened, err = s.openLeg(ctx, name, t, j, "")
	}
	if err != nil {
		s.giveBack(name, id, t, err)
		return nil, err
	}
	if q.Called {
		return s.ringing(ctx, name, id, t, opened)
	}
	return ask(ctx, s, name, func(l *live) (*contract.Joined, error) {
		_, err := l.r.Seat(s.now(), id, room.Opened{Worker: t.worker, Transport: opened.Transport, Codec: opened.Codec})
		l.commitSoft()
		if err != nil {
			return nil, err
		}
		out := l.entered(id)
		out.SDP = opened.SDP
		return out, nil
	})
}

func signalled(s *contract.Signalled) room.Signalled {
	if s == nil {
		return room.Signalled{}
	}
	return room.Signalled(*s)
}

// request checks what a join asks for. Who is a bot is identity's word, not the
// caller's: a bot without the right to listen must not get a phone's leg.
func (s *Service) request(name, id string, j *contract.Join) (room.Request, error) {
	q := room.Request{ID: id, Name: j.Name, Kind: room.Kind(j.Kind), PIN: j.PIN, Token: j.Token, Verified: j.Verified,
		Mute: j.Muted, Leg: string(j.Transport), Signalling: j.Signalling, Source: j.Source, Offer: j.Offer}
	q.Signalled = signalled(j.Signalled)
	if !idRE.MatchString(id) || id == contract.Operator {
		return q, contract.ErrBadRequest.With("%q cannot be a participant's id", id)
	}
	if b, ok := s.bots.get(id, name); ok {
		q.Kind, q.Trusted, q.Moderates = room.Bot, true, slices.Contains(b.Rights, contract.RightModerate)
	}
	switch q.Kind {
	case room.Bot:
		// A bot of a moment ago may not be in the list yet. Only a bot's own
		// subjects and the node's processes get here, so it is one.
		q.Trusted = true
		if q.Name == "" {
			q.Name = id
		}
		if q.Leg == "" {
			q.Leg = room.TransportBus
		}
		if q.Leg != room.TransportBus {
			return q, contract.ErrBadRequest.With("a bot's transport is %q", contract.TransportBus)
		}
	case room.Browser, room.SIP, room.Jami:
		if t := j.Transport; t != contract.TransportWebRTC && t != contract.TransportRTP && t != contract.TransportJami {
			return q, contract.ErrBadRequest.With("transport is %q, %q or %q", contract.TransportWebRTC, contract.TransportRTP, contract.TransportJami)
		}
		if q.JamiID = j.JamiID; q.JamiID != "" && (q.Kind == room.Browser || !jamiRE.MatchString(q.JamiID)) {
			return q, contract.ErrBadRequest.With("a Jami Id is 40 hex digits, and a browser proves none")
		}
		if q.Device = j.JamiDevice; q.Device != "" && (q.JamiID == "" || !deviceRE.MatchString(q.Device)) {
			return q, contract.ErrBadRequest.With("a device is 64 hex digits, and proves an account")
		}
		if j.Transport != contract.TransportRTP && j.Offer == "" && j.By == "" {
			return q, contract.ErrBadRequest.With("%s needs an offer", j.Transport)
		}
		set := &s.env.Config.Rooms
		q.Moderates = set.AllModerators || q.JamiID != "" && slices.Contains(set.Moderators, q.JamiID)
	default:
		return q, contract.ErrBadRequest.With("kind is browser, sip, jami or bot")
	}
	if j.By != "" {
		if q.Called = true; q.Kind != room.Jami && q.Kind != room.SIP || j.Offer != "" {
			return q, contract.ErrBadRequest.With("who is called is a Jami peer or a phone, and gets an offer")
		}
		if !s.bots.known() {
			return q, contract.ErrUnavailable.With("the node is starting; try again")
		}
	}
	if len(j.Offer) > maxSDP {
		return q, contract.ErrBadRequest.With("an offer has at most %d bytes", maxSDP)
	}
	return q, nil
}

// admit reserves the seat. Wrong PINs are counted here, on the actor, so that a
// thousand at once are not all looked at.
func (l *live) admit(q room.Request, source string) (seat, error) {
	now := l.s.now()
	if q.PIN != "" {
		if wait := l.pins.Wait(now, source); wait > 0 {
			return seat{}, contract.ErrSlowDown.With("too many wrong PINs; try again in %d s", int(wait.Seconds())+1)
		}
	}
	acc, _ := l.s.account(l.r.Settings().Account)
	q.Rendezvous = acc.Rendezvous && !acc.Ended
	t, err := l.r.Admit(now, q)
	switch {
	case errors.Is(err, room.ErrPINWrong):
		l.pins.Wrong(now, source)
		return seat{}, err
	case err != nil:
		return seat{}, err
	case q.PIN != "" && l.r.Settings().PIN != "":
		l.pins.Right(source)
	}
	at, err := l.place(spot{was: t.Member.Worker, bot: t.Member.Leg == room.TransportBus, from: source})
	if err != nil {
		l.r.Abort(q.ID)
		return seat{}, err
	}
	return seat{Ticket: t, worker: at, epoch: l.r.Epoch()}, nil
}

// spot is what decides where a leg goes.
type spot struct {
	was  string // the worker that it was at
	bot  bool
	from string // the address of who signals
}

// place chooses the worker of a leg: that where it was, while it lives; a bot goes where the room's bots
// are, for one worker alone tells the bus what is heard; others where they are near to.
func (l *live) place(leg spot, asked ...string) (string, error) {
	w := l.s.workers
	if leg.was != "" && w.keeps(leg.was) {
		return leg.was, nil
	}
	from, err := netip.ParseAddr(leg.from)
	if err != nil || leg.bot {
		from = netip.Addr{} // of no address
	}
	if leg.bot {
		at := ""
		l.r.Each(func(m *room.Member) {
			if m.Leg == room.TransportBus && w.keeps(m.Worker) && !slices.Contains(asked, m.Worker) {
				at = m.Worker
			}
		})
		if at != "" {
			return at, nil
		}
	}
	at := l.places.workers
	if len(at) == 0 && l.s.now().Sub(l.aimed) < aimFor {
		at = []string{l.aim} // who come at the same time stay together
	}
	got, err := w.choose(from, at, asked...)
	if err == nil {
		l.aim, l.aimed = got, l.s.now()
	}
	return got, err
}

// openLeg has media make the leg. Who comes back with another offer has another
// end: the old leg is closed first.
func (s *Service) openLeg(ctx context.Context, name string, t seat, j *contract.Join, was string) (*contract.LegOpened, error) {
	ctx, cancel := context.WithTimeout(ctx, legTime)
	defer cancel()
	m := &t.Member
	if t.Fresh {
		_, err := bus.Call(ctx, s.bus, contract.MediaLegClose, &contract.LegClose{Term: s.term, Leg: m.ID, Epoch: t.epoch, Reason: "replaced"}, m.Worker)
		if err != nil && !errors.Is(err, contract.ErrNotFound) && !errors.Is(err, contract.ErrGone) {
			return nil, err
		}
	}
	return bus.Call(ctx, s.bus, contract.MediaLegOpen, &contract.LegOpen{Term: s.term, Leg: m.ID, Room: name, Epoch: t.epoch,
		Transport: contract.Transport(m.Leg), Offer: j.Offer, Was: was, Remote: m.Source, Unproved: j.Unproved, CanSpeak: m.CanSpeak(), Muted: m.Muted}, t.worker)
}

// giveBack gives the seat back after media failed. A leg that may have come into
// being all the same is closed.
func (s *Service) giveBack(name, id string, t seat, why error) {
	err := s.rooms.Tell(name, func(_ context.Context, l *live) {
		l.r.Abort(id)
		if _, in := l.r.Member(id); !in && errors.Is(why, contract.ErrTimeout) {
			s.orders.put(name, l.r.Epoch(), room.Order{Verb: room.LegClose, Leg: id, Worker: t.worker, Reason: room.ReasonLost})
		}
		l.commitSoft()
	})
	if err != nil {
		s.log.Warn("seat not given back", zap.String("room", name), zap.String("participant", id), zap.Error(err))
	}
}

// negotiate brings an offer or answer for the caller's leg; where the leg is gone
// with its worker, an offer makes it again.
func (s *Service) negotiate(ctx context.Context, r *bus.Request[contract.Negotiate]) (*contract.Negotiated, error) {
	name, id := r.Param(1), r.Param(2)
	if d := r.Body.Device; d != "" && !deviceRE.MatchString(d) {
		return nil, contract.ErrBadRequest.With("a device is 64 hex digits")
	}
	if len(r.Body.SDP) > maxSDP || len(r.Body.Was) > maxSDP || r.Body.SDP == "" && r.Body.Answer {
		return nil, contract.ErrBadRequest.With("an SDP has 1 to %d bytes", maxSDP)
	}
	t, err := ask(ctx, s, name, func(l *live) (seat, error) {
		if c, ok := l.calls[id]; ok && r.Body.Answer {
			return c.seat, nil
		}
		m, ok := l.r.Member(id)
		if !ok {
			return seat{}, contract.ErrNotFound.With("you are not in the room; join")
		}
		if r.Body.SDP == "" && m.Leg != string(contract.TransportJami) {
			return seat{}, contract.ErrBadRequest.With("an SDP has 1 to %d bytes; the node makes an offer for Jami peers alone", maxSDP)
		}
		if r.Body.Source != "" {
			m.Source = r.Body.Source
		}
		at, err := l.place(spot{was: m.Worker, bot: m.Leg == room.TransportBus, from: m.Source})
		return seat{Ticket: room.Ticket{Member: m, Again: true}, worker: at, epoch: l.r.Epoch()}, err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, legTime)
	defer cancel()
	var opened *contract.LegOpened
	if t.called {
		return s.taken(ctx, name, id, t, &r.Body)
	}
	fresh := t.Member.Missing() || t.worker != t.Member.Worker
	if r.Body.SDP == "" && !fresh {
		return nil, contract.ErrBadRequest.With("the leg is there: the node makes an offer only for one that is lost or moves")
	}
	if !fresh || r.Body.Answer {
		opened, err = bus.Call(ctx, s.bus, contract.MediaLegSDP, &contract.LegSDP{Term: s.term, Leg: id, Epoch: t.epoch, SDP: r.Body.SDP, Answer: r.Body.Answer, Remote: r.Body.Source}, t.Member.Worker)
		fresh = errors.Is(err, contract.ErrNotFound) || errors.Is(err, contract.ErrGone)
		if fresh && r.Body.Answer {
			return nil, contract.ErrGone.With("the offer that this answers is gone; send an offer")
		}
	}
	if fresh {
		opened, err = s.openLeg(ctx, name, t, &contract.Join{Offer: r.Body.SDP}, r.Body.Was)
	}
	if err != nil {
		return nil, err
	}
	_, err = ask(ctx, s, name, func(l *live) (room.Member, error) {
		w := t.Member.Worker
		if fresh {
			w = t.worker
		}
		m, err := l.r.Reopened(s.now(), id, room.Opened{Worker: w, Transport: opened.Transport, Codec: opened.Codec, Source: r.Body.Source}, fresh)
		l.commitSoft()
		return m, err
	})
	if err != nil {
		return nil, err
	}
	return &contract.Negotiated{SDP: opened.SDP}, nil
}

// confirm has media send to the caller: it is where its signalling says.
func (s *Service) confirm(ctx context.Context, r *bus.Request[contract.None]) (*contract.None, error) {
	id := r.Param(2)
	t, err := ask(ctx, s, r.Param(1), func(l *live) (seat, error) {
		m, ok := l.r.Member(id)
		if !ok {
			return seat{}, contract.ErrNotFound.With("you are not in the room; join")
		}
		return seat{worker: m.Worker, epoch: l.r.Epoch()}, nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := bus.Call(ctx, s.bus, contract.MediaLegSet, &contract.LegSet{Term: s.term, Leg: id, Epoch: t.epoch, Proved: true}, t.worker); err != nil {
		return nil, err
	}
	return &contract.None{}, nil
}
