package media

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/buslegs"
	"github.com/parley-jami/parley/services/media/leg"
	"github.com/parley-jami/parley/services/media/resume"
	"github.com/parley-jami/parley/services/media/sdp"
)

// bot is a leg over the bus.
type bot struct {
	info  contract.LegInfo
	epoch uint64
	room  *leg.Room
	leg   *buslegs.Leg
}

// serveBus waits for the bus and the account, then serves until ctx ends.
func (s *Service) serveBus(ctx context.Context) error {
	c, acc, err := s.env.ConnectAccount(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	audio, err := s.env.Connect(ctx)
	if err != nil {
		return err
	}
	defer audio.Close()
	audio.SetAccount(acc.ID)
	legs := buslegs.New(audioConn{audio}, audioSubjects(audio), s.log)
	s.mu.Lock()
	s.legs = legs
	s.mu.Unlock()
	defer s.closeBots()

	svc, err := bus.NewService(c, "media", s.env.Version, "legs and mixers of worker "+s.worker)
	if err != nil {
		return err
	}
	defer svc.Stop()
	err = errors.Join(
		bus.Serve(svc, contract.MediaLegOpen, s.legOpen, s.worker),
		bus.Serve(svc, contract.MediaLegSDP, s.legSDP, s.worker),
		bus.Serve(svc, contract.MediaLegSet, s.legSet, s.worker),
		bus.Serve(svc, contract.MediaLegClose, s.legClose, s.worker),
		bus.Serve(svc, contract.MediaTrunks, s.trunksSet, s.worker),
		bus.Serve(svc, contract.MediaInfo, s.info, s.worker),
	)
	if err != nil {
		return err
	}
	s.publisher(ctx, c)
	return ctx.Err()
}

func (s *Service) closeBots() {
	s.mu.Lock()
	legs, bots := s.legs, s.bots
	s.legs, s.bots = nil, map[string]*bot{}
	s.mu.Unlock()
	for _, b := range bots {
		b.leg.Close()
		s.host.Release(b.room)
	}
	legs.Close()
}

func (s *Service) legOpen(_ context.Context, r *bus.Request[contract.LegOpen]) (*contract.LegOpened, error) {
	q := &r.Body
	if err := s.termed(q.Term); err != nil {
		return nil, err
	}
	if q.Leg == "" || q.Room == "" || len(q.Leg) > 128 || len(q.Room) > 128 {
		return nil, contract.ErrBadRequest.With("a leg needs the id of the participant and a room, of 1 to 128 characters")
	}
	if err := s.admits(q.Leg); err != nil {
		return nil, err
	}
	if q.Transport == contract.TransportBus {
		return s.openBot(q)
	}
	if q.Transport != contract.TransportWebRTC && q.Transport != contract.TransportRTP && q.Transport != contract.TransportJami {
		return nil, contract.ErrBadRequest.With("transport %q: webrtc, rtp, jami and bus are known", q.Transport)
	}
	remote, err := remoteOf(q.Remote)
	if err != nil {
		return nil, err
	}
	o, err := s.host.Open(leg.Request{
		ID: q.Leg, Room: q.Room, Epoch: q.Epoch, WebRTC: q.Transport == contract.TransportWebRTC, Jami: q.Transport == contract.TransportJami,
		Offer: q.Offer, Was: q.Was, Remote: remote, Unproved: q.Unproved, CanSpeak: q.CanSpeak, Muted: q.Muted,
	})
	return opened(o, err)
}

// admits refuses a leg that is not here yet beyond media.max_legs, or while this process cannot keep its
// time. Two at once may both be the
// last one: the bound is what the machine is meant to bear, not what it can.
func (s *Service) admits(id string) error {
	most, late := s.env.Config.Media.MaxLegs, s.host.Late()
	if most == 0 && !late {
		return nil
	}
	if _, here := s.host.Leg(id); here {
		return nil
	}
	s.mu.Lock()
	bots, here := len(s.bots), s.bots[id] != nil
	s.mu.Unlock()
	switch {
	case here:
	case late:
		s.metrics.refused.WithLabelValues("late").Inc()
		return contract.ErrBusy.With("media worker %s cannot keep its time with the %d legs that it has; another worker may take them (parley join), or try again later", s.worker, bots+s.host.Len())
	case most > 0 && bots+s.host.Len() >= most:
		s.metrics.refused.WithLabelValues("max_legs").Inc()
		return contract.ErrBusy.With("media worker %s has %d legs, as many as it may (media.max_legs)", s.worker, most)
	}
	return nil
}

// remoteOf reads an address; empty is one that is not known.
func remoteOf(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, contract.ErrBadRequest.With("remote %q is not an IP address", s)
	}
	return a, nil
}

func (s *Service) openBot(q *contract.LegOpen) (*contract.LegOpened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.legs == nil {
		return nil, contract.ErrUnavailable
	}
	if b := s.bots[q.Leg]; b != nil {
		switch {
		case q.Epoch < b.epoch:
			return nil, contract.ErrStale
		case b.info.Room != q.Room:
			return nil, refusal(leg.ErrRoom)
		}
		b.epoch = q.Epoch
		b.set(&q.CanSpeak, &q.Muted)
		return &contract.LegOpened{Transport: b.info.Transport, Codec: b.info.Codec}, nil
	}
	room := s.host.Room(q.Room)
	g, err := s.legs.Open(q.Leg, q.Room, room.Mix, q.CanSpeak, q.Muted)
	if err != nil {
		s.host.Release(room)
		return nil, err
	}
	b := &bot{epoch: q.Epoch, room: room, leg: g, info: contract.LegInfo{
		Leg: q.Leg, Room: q.Room, Transport: string(contract.TransportBus), Connected: true, CanSpeak: q.CanSpeak, Muted: q.Muted,
	}}
	s.bots[q.Leg] = b
	return &contract.LegOpened{Transport: b.info.Transport}, nil
}

func (b *bot) set(canSpeak, muted *bool) {
	if canSpeak != nil {
		b.info.CanSpeak = *canSpeak
		b.leg.SetCanSpeak(*canSpeak)
	}
	if muted != nil {
		b.info.Muted = *muted
		b.leg.SetMuted(*muted)
	}
}

func (s *Service) legSDP(_ context.Context, r *bus.Request[contract.LegSDP]) (*contract.LegOpened, error) {
	q := &r.Body
	if err := s.termed(q.Term); err != nil {
		return nil, err
	}
	remote, err := remoteOf(q.Remote)
	if err != nil {
		return nil, err
	}
	if q.Answer {
		return opened(s.host.Answer(q.Leg, q.Epoch, q.SDP, remote))
	}
	return opened(s.host.Negotiate(q.Leg, q.Epoch, q.SDP, remote))
}

func (s *Service) legSet(_ context.Context, r *bus.Request[contract.LegSet]) (*contract.LegInfo, error) {
	q := &r.Body
	if err := s.termed(q.Term); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if b := s.bots[q.Leg]; b != nil {
		defer s.mu.Unlock()
		if q.Epoch < b.epoch {
			return nil, contract.ErrStale
		}
		b.epoch = q.Epoch
		b.set(q.CanSpeak, q.Muted)
		if q.Listen != nil {
			err := b.leg.SetListen(buslegs.Listen{
				Mix: q.Listen.Mix, Others: q.Listen.Others, Speakers: q.Listen.Speakers, TTL: time.Duration(q.Listen.TTLMs) * time.Millisecond,
			})
			if err != nil {
				return nil, contract.ErrBadRequest.With("%v", err)
			}
		}
		i := b.infoNow()
		return &i, nil
	}
	s.mu.Unlock()
	l, err := s.host.Set(q.Leg, q.Epoch, q.CanSpeak, q.Muted, q.Proved)
	if err != nil {
		return nil, refusal(err)
	}
	i := infoOf(l.Info())
	return &i, nil
}

func (s *Service) legClose(_ context.Context, r *bus.Request[contract.LegClose]) (*contract.None, error) {
	q := &r.Body
	if err := s.termed(q.Term); err != nil {
		return nil, err
	}
	s.mu.Lock()
	b := s.bots[q.Leg]
	if b != nil {
		if q.Epoch < b.epoch {
			s.mu.Unlock()
			return nil, contract.ErrStale
		}
		delete(s.bots, q.Leg)
	}
	s.mu.Unlock()
	if b != nil {
		b.leg.Close()
		s.host.Release(b.room)
		return &contract.None{}, nil
	}
	if err := s.host.CloseLeg(q.Leg, q.Epoch, q.Reason); err != nil {
		return nil, refusal(err)
	}
	return &contract.None{}, nil
}

// termed refuses what a conference orders that another one has taken the rooms over from.
func (s *Service) termed(term uint64) error {
	for {
		now := s.term.Load()
		if term < now {
			return contract.ErrStale.With("worker %s: another conference has taken the rooms over", s.worker)
		}
		if term == now || s.term.CompareAndSwap(now, term) {
			return nil
		}
	}
}

func (s *Service) info(_ context.Context, r *bus.Request[contract.MediaQuery]) (*contract.WorkerInfo, error) {
	if err := s.termed(r.Body.Term); err != nil {
		return nil, err
	}
	w := &contract.WorkerInfo{Worker: s.worker, Started: s.started, CPU: s.cpu.cores(), Addresses: []string{}}
	w.Legs, w.More = s.page(&r.Body)
	for _, a := range s.host.Addresses() {
		w.Addresses = append(w.Addresses, a.String())
	}
	return w, nil
}

func opened(o leg.Opened, err error) (*contract.LegOpened, error) {
	if err != nil {
		return nil, refusal(err)
	}
	return &contract.LegOpened{SDP: o.SDP, Transport: o.Transport, Codec: o.Codec}, nil
}

// refusal turns errors of the legs into those of the contract.
func refusal(err error) error {
	for _, x := range []struct {
		is error
		as *contract.Error
	}{
		{leg.ErrBusy, contract.ErrBusy}, {resume.ErrFull, contract.ErrBusy}, {leg.ErrStale, contract.ErrStale},
		{leg.ErrNoLeg, contract.ErrNotFound}, {leg.ErrRoom, contract.ErrExists}, {leg.ErrKind, contract.ErrExists},
		{leg.ErrClosed, contract.ErrUnavailable}, {sdp.ErrNoCodec, contract.ErrNoCodec}, {leg.ErrOffer, contract.ErrBadRequest},
		{sdp.ErrSize, contract.ErrBadRequest}, {sdp.ErrMalformed, contract.ErrBadRequest},
		{sdp.ErrNoAudio, contract.ErrBadRequest}, {sdp.ErrSecurity, contract.ErrBadRequest},
	} {
		if errors.Is(err, x.is) {
			return x.as.With("%v", err)
		}
	}
	return err
}
