package connect

import (
	"context"
	"errors"
	"mime"
	"slices"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/confinfo"
	"github.com/parley-jami/parley/services/connect/sip"
)

// obey carries out what a participant says, one after the other. Whether it may, conference
// decides; a refusal is no news to a stock peer, which is told none.
func (r *jamiRoom) obey(ctx context.Context, s *jamiSeat) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.heard:
			octx, cancel := context.WithTimeout(ctx, orderTime)
			err := r.carryOut(octx, s.id, m.Message)
			cancel()
			if ctx.Err() != nil {
				return
			}
			m.done()
			if err != nil {
				r.in.log.Info("what a Jami peer said was not carried out", zap.String("room", r.name), zap.String("participant", s.id),
					zap.String("type", m.Type), zap.Error(err))
			}
		}
	}
}

func (r *jamiRoom) carryOut(ctx context.Context, id string, m sip.Message) error {
	typ, _, err := mime.ParseMediaType(m.Type)
	if err != nil {
		return err
	}
	switch typ {
	case "text/plain":
		if m.Body == "" || !utf8.ValidString(m.Body) { // §5.1: dropped
			return nil
		}
		_, err = bus.Call(ctx, r.in.bus, contract.RoomChat, &contract.ChatPost{Body: m.Body}, r.name, id)
	case "application/conforder+json":
		var orders []confinfo.Order
		if orders, err = confinfo.Orders([]byte(m.Body)); err != nil {
			return err
		}
		for i := range orders {
			err = errors.Join(err, r.order(ctx, id, &orders[i]))
		}
	case confinfo.ControlType:
		err = r.control(ctx, id, confinfo.ParseControl(m.Body))
	case confinfo.KeyType:
		if key, ok := confinfo.ParseKey(m.Body); ok {
			_, err = bus.Call(ctx, r.in.bus, contract.RoomPress, &contract.KeyPress{Digit: key}, r.name, id)
		}
	}
	return err
}

// control takes what a participant says of its own sound. Who speaks, the node hears itself.
func (r *jamiRoom) control(ctx context.Context, id string, c confinfo.Control) error {
	if c.Recording != nil {
		r.mu.Lock()
		if *c.Recording {
			r.recording[id] = true
		} else {
			delete(r.recording, id)
		}
		r.mu.Unlock()
		poke(r.dirty)
	}
	if c.Muted == nil {
		return nil
	}
	_, err := bus.Call(ctx, r.in.bus, contract.RoomMute, &contract.MuteChange{Muted: *c.Muted}, r.name, id)
	return err
}

// order carries out one order of a participant on all whom it is about.
func (r *jamiRoom) order(ctx context.Context, by string, o *confinfo.Order) error {
	r.mu.Lock()
	me := r.roster[by]
	moderates := me != nil && me.Role == contract.RoleModerator
	var whom []string
	for id, p := range r.roster {
		if e := entry(p, "", false); about(o, &e) {
			whom = append(whom, id)
		}
	}
	slices.Sort(whom)
	switch o.Verb {
	case confinfo.Layout, confinfo.Active:
		if moderates {
			r.showLocked(o, whom)
		}
		r.mu.Unlock()
		poke(r.dirty)
		return nil
	}
	r.mu.Unlock()
	var err error
	for _, id := range whom {
		switch o.Verb {
		case confinfo.Mute:
			_, e := bus.Call(ctx, r.in.bus, contract.RoomMute, &contract.MuteChange{Participant: id, Muted: o.On}, r.name, by)
			err = errors.Join(err, e)
		case confinfo.Hand:
			_, e := bus.Call(ctx, r.in.bus, contract.RoomHand, &contract.HandChange{Participant: id, Raised: o.On}, r.name, by)
			err = errors.Join(err, e)
		case confinfo.Hangup:
			_, e := bus.Call(ctx, r.in.bus, contract.RoomKick, &contract.Target{Participant: id}, r.name, by)
			err = errors.Join(err, e)
		}
	}
	return err
}

// showLocked notes what is shown large. There is no picture yet: Jami peers see the choice in
// their list. The caller holds r.mu.
func (r *jamiRoom) showLocked(o *confinfo.Order, whom []string) {
	switch {
	case o.Verb == confinfo.Layout:
		if r.layout = o.Layout; r.layout == 0 { // §4.4: the grid has no active stream
			r.active = ""
		}
	case o.On && len(whom) > 0:
		r.active = whom[0]
	case !o.On:
		r.active = ""
	}
}
