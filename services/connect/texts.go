package connect

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device"
	"github.com/parley-jami/parley/services/connect/sip"
	"github.com/parley-jami/parley/services/connect/texts"
)

// A device answers a text at once (connect-and-calls §5.1). tellTime is for all that is tried,
// tellAnswer for the SIP channel.
const (
	tellTime   = 4 * time.Second
	tellAnswer = 3 * time.Second
)

// teller writes texts on the connections that are there.
type teller struct {
	manager *device.Manager
	phones  *sip.Server
	log     *zap.Logger
}

// say implements [contract.PeerSay].
func (t *teller) say(ctx context.Context, r *bus.Request[contract.PeerText]) (*contract.PeerTolds, error) {
	q := &r.Body
	own, err1 := jami.ParseID(r.Param(0))
	to, err2 := jami.ParseID(q.To)
	id, err3 := jami.ParseMessageID(q.ID)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	if q.Type == "" || len(q.Type) > contract.MaxMessageType || q.Body == "" || len(q.Body) > contract.MaxMessage {
		return nil, contract.ErrBadRequest.With("a text has a type and 1 to %d bytes", contract.MaxMessage)
	}
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := &contract.PeerTolds{Devices: []contract.PeerTold{}}
	for _, p := range t.manager.Connected(own, to) {
		if slices.Contains(q.Skip, p.Device.String()) {
			continue
		}
		wg.Go(func() {
			confirmed, err := t.write(ctx, own, p, id, sip.Message{Type: q.Type, Body: q.Body})
			if err != nil {
				t.log.Debug("text not written on a channel", zap.String("device", p.DeviceLong), zap.Error(err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out.Devices = append(out.Devices, contract.PeerTold{Device: p.DeviceLong, Short: p.Device.String(), Confirmed: confirmed})
		})
	}
	wg.Wait()
	return out, nil
}

// write writes to one device: on its SIP channel, which has an answer, else on the channel of
// newer daemons.
func (t *teller) write(ctx context.Context, own jami.ID, to channel.Peer, id uint64, m sip.Message) (confirmed bool, err error) {
	err = t.answered(ctx, own, to, id, m)
	if err == nil {
		return true, nil
	}
	long, err2 := jami.ParseLongID(to.DeviceLong)
	if err2 != nil {
		return false, errors.Join(err, err2)
	}
	c, err2 := t.manager.OpenOn(ctx, own, long, texts.Name(long))
	if err2 != nil {
		return false, errors.Join(err, err2)
	}
	packed, err2 := (&texts.Text{ID: id, Type: m.Type, Body: m.Body}).Pack()
	if err2 == nil {
		_, err2 = c.Write(packed)
	}
	return false, errors.Join(err2, c.Close())
}

func (t *teller) answered(ctx context.Context, own jami.ID, to channel.Peer, id uint64, m sip.Message) error {
	ctx, cancel := context.WithTimeout(ctx, tellAnswer)
	defer cancel()
	return t.phones.Write(ctx, own, to.DeviceLong, jami.MessageID(id), m)
}

// text takes a text that came on a channel of its own.
func (j *jamiRooms) text(ctx context.Context, account jami.ID, from channel.Peer, x *texts.Text) error {
	id := ""
	if x.ID != 0 {
		id = jami.MessageID(x.ID)
	}
	return j.Written(ctx, account, from, id, sip.Message{Type: x.Type, Body: x.Body})
}
