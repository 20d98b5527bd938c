package connect

import (
	"context"
	"errors"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/sip"
)

// phones lets the SIP server enter rooms over the bus.
type phones struct {
	bus        *bus.Conn
	signalling string // this connect process, as participants show it
}

func (p phones) Face(ctx context.Context, room string) (sip.Face, error) {
	f, err := bus.Call(ctx, p.bus, contract.RoomFaceCmd, &contract.RoomRef{Room: room})
	switch {
	case errors.Is(err, contract.ErrNotFound), errors.Is(err, contract.ErrBadRequest):
		return sip.Face{}, nil
	case err != nil:
		return sip.Face{}, err
	}
	return sip.Face{Exists: true, Auth: f.PIN || f.SIPAuth}, nil
}

func (p phones) Secrets(ctx context.Context, room, realm string) (string, string, error) {
	s, err := bus.Call(ctx, p.bus, contract.RoomSIPSecret, &contract.SIPSecret{Realm: realm}, room)
	if err != nil {
		return "", "", err
	}
	return s.HA1, s.HA1SHA256, nil
}

func (p phones) Enter(ctx context.Context, c sip.Call) (string, error) {
	j, err := bus.Call(ctx, p.bus, contract.RoomJoin, &contract.Join{
		Name: c.Name, Kind: contract.KindSIP, Verified: c.Verified, Source: c.Source,
		Transport: contract.TransportRTP, Offer: c.Offer, Signalling: p.signalling,
	}, c.Room, c.ID)
	if err != nil {
		return "", err
	}
	return j.SDP, nil
}

func (p phones) Negotiate(ctx context.Context, room, id, sdp string, answer bool) (string, error) {
	n, err := bus.Call(ctx, p.bus, contract.RoomNegotiate, &contract.Negotiate{SDP: sdp, Answer: answer}, room, id)
	if err != nil {
		return "", err
	}
	return n.SDP, nil
}

func (p phones) Leave(ctx context.Context, room, id, reason string) error {
	_, err := bus.Call(ctx, p.bus, contract.RoomLeave, &contract.Leave{Reason: reason}, room, id)
	return err
}

// phoneEvent lets what happens in a room reach the phones in it.
func phoneEvent(s *sip.Server, e *contract.RoomEvent) {
	switch e.Type {
	case contract.EventLeft:
		if e.Participant != nil {
			s.Hang(e.Participant.ID, e.Reason)
		}
	case contract.EventMedia:
		if e.Participant != nil && e.Participant.Kind == contract.KindSIP {
			s.Renegotiate(e.Participant.ID)
		}
	case contract.EventClosed:
		for _, id := range s.IDs() {
			if room, ok := s.Room(id); ok && room == e.Room {
				s.Hang(id, e.Reason)
			}
		}
	}
}

// errorCode returns the stable code of an error from the bus.
func errorCode(err error) string {
	if e, ok := errors.AsType[*contract.Error](err); ok {
		return e.Code
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return contract.ErrTimeout.Code
	}
	return contract.ErrInternal.Code
}

// reconcilePhones hangs up on phones whose seat is gone, and takes from the
// room those whose call is gone: both happen when this process or conference
// was away while the other acted.
func reconcilePhones(ctx context.Context, p phones, s *sip.Server) error {
	list, err := bus.Call(ctx, p.bus, contract.RoomListCmd, &contract.None{})
	if err != nil {
		return err
	}
	seats := map[string]bool{}
	for _, r := range list.Rooms {
		for _, part := range r.Participants {
			if part.Kind == contract.KindSIP && part.Signalling == p.signalling {
				seats[part.ID] = true
				if _, ok := s.Room(part.ID); !ok {
					if err := p.Leave(ctx, r.Name, part.ID, contract.ReasonLost); err != nil {
						return err
					}
				}
			}
		}
	}
	for _, id := range s.IDs() {
		if !seats[id] {
			s.Hang(id, contract.ReasonLost)
		}
	}
	return nil
}
