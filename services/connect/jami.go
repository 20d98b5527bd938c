package connect

import (
	"context"
	"errors"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/confinfo"
	"github.com/parley-jami/parley/services/connect/sip"
)

// jamiRooms are the rooms with Jami participants of this process: who sits there is told the
// state of the room and the chat, and its orders are obeyed (connect-and-calls §4, §5.1).
type jamiRooms struct {
	bus      *bus.Conn
	fallback string // room of the main account
	log      *zap.Logger
	say      func(ctx context.Context, participant string, m sip.Message) error

	ctx  context.Context //nolint:containedctx // ends what the rooms do
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	rooms map[string]*jamiRoom
}

func newJamiRooms(conn *bus.Conn, fallback string, log *zap.Logger) *jamiRooms {
	j := &jamiRooms{bus: conn, fallback: fallback, log: log, rooms: map[string]*jamiRoom{}}
	j.ctx, j.stop = context.WithCancel(context.Background())
	return j
}

// close ends all and waits.
func (j *jamiRooms) close() {
	j.stop()
	j.wg.Wait()
}

// Called implements [sip.Callers]: the main account's room is the one that is there from the
// start; of another account it is its room, the first by name where it has several.
func (j *jamiRooms) Called(ctx context.Context, account jami.ID) (sip.Called, error) {
	id := account.String()
	own, err := accountOf(ctx, j.bus, id)
	if err != nil {
		return sip.Called{}, err
	}
	out := sip.Called{Room: j.fallback, Device: own.DeviceShort}
	if id == j.bus.Account() {
		if out.Room == "" {
			return sip.Called{}, contract.ErrNotFound.With("setting rooms.default names no room for who calls the account")
		}
		return out, nil
	}
	rooms, err := bus.Rooms(ctx, j.bus)
	if err != nil {
		return sip.Called{}, err
	}
	out.Room = ""
	for k := range rooms {
		if r := &rooms[k]; r.Account == id && (out.Room == "" || r.Name < out.Room) {
			out.Room = r.Name
		}
	}
	if out.Room == "" {
		return sip.Called{}, contract.ErrNotFound.With("account %s has no room; make one", id)
	}
	return out, nil
}

// Entered implements [sip.Callers].
func (j *jamiRooms) Entered(room, participant string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ctx.Err() != nil {
		return
	}
	r := j.rooms[room]
	if r == nil {
		r = newJamiRoom(j, room)
		j.rooms[room] = r
		j.wg.Go(func() { r.run(j.ctx) })
	}
	r.enter(participant)
}

// Heard implements [sip.Callers].
func (j *jamiRooms) Heard(room, participant string, m sip.Message, done func()) {
	if r := j.room(room); r != nil {
		r.heard(participant, heard{m, done})
		return
	}
	done()
}

// Written implements [sip.Callers]: identity knows whose messages the account takes.
func (j *jamiRooms) Written(ctx context.Context, account jami.ID, from channel.Peer, id string, m sip.Message) error {
	_, err := bus.Call(ctx, j.bus.For(account.String()), contract.MessageTake,
		&contract.MessageHeard{From: from.Account.String(), Device: from.DeviceLong, ID: id, Type: m.Type, Body: m.Body})
	if e, ok := errors.AsType[*contract.Error](err); ok && errors.Is(e, contract.ErrBadRequest) { // it stays so
		j.log.Info("message passed over", zap.Stringer("jami_id", from.Account), zap.Error(err))
		return nil
	}
	return err
}

func (j *jamiRooms) room(name string) *jamiRoom {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rooms[name]
}

// event lets what happens in a room reach the Jami participants in it. It does not wait.
func (j *jamiRooms) event(e *contract.RoomEvent) {
	if r := j.room(e.Room); r != nil && e.Type != contract.EventQuality {
		r.event(e)
	}
}

// resync has all rooms read their rosters again: events may have been missed.
func (j *jamiRooms) resync() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.rooms {
		r.lose()
	}
}

// forget ends a room that has no Jami participants any more; false: it has one.
func (j *jamiRooms) forget(r *jamiRoom) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seats) > 0 {
		return false
	}
	delete(j.rooms, r.name)
	return true
}

// entry is a participant as a state shows it. Who has no Jami Id is shown by its name, which
// cannot be taken for an account.
func entry(p *contract.Participant, active string, recording bool) confinfo.Participant {
	uri, device := p.JamiID, p.JamiDevice
	if uri == "" {
		uri = strings.ReplaceAll(p.Name, "@", " ") + " (" + string(p.Kind) + ")"
	}
	if device == "" {
		device = p.ID
	}
	return confinfo.Participant{
		URI: confinfo.URI(uri), Device: device, SinkID: confinfo.Sink(p.ID), Active: active == p.ID, W: 10, H: 10, VideoMuted: true,
		AudioLocalMuted: p.Muted && p.MutedBy == "", AudioModeratorMuted: p.MutedBy != "",
		IsModerator: p.Role == contract.RoleModerator, HandRaised: p.Hand != nil, VoiceActivity: p.Speaking, Recording: recording,
	}
}

// about reports whether an order is about the participant that an entry shows.
func about(o *confinfo.Order, e *confinfo.Participant) bool {
	return confinfo.URI(o.Account) == e.URI && (o.Device == "" || o.Device == e.Device) && (o.Stream == "" || o.Stream == e.SinkID)
}
