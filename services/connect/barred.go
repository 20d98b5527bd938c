package connect

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/gate"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/sip"
)

// leaveTime bounds putting somebody out of a room.
const leaveTime = 5 * time.Second

// barred keeps accounts out of the rooms of those that banned them. Whom the main account
// banned gets to no room: package sip sees to that.
type barred struct {
	gates *gate.Set
	log   *zap.Logger
	wg    sync.WaitGroup

	mu   sync.Mutex
	seat map[string]seat // by participant
}

// seat is where somebody is who is watched.
type seat struct {
	room string
	stop func()
}

func newBarred(gates *gate.Set, log *zap.Logger) *barred {
	return &barred{gates: gates, log: log, seat: map[string]seat{}}
}

// bar refuses a caller whom the room's account banned; one that is banned later is put out.
func (p phones) bar(ctx context.Context, c sip.Call) (stop func(), err error) {
	face, err := p.face(ctx, c.Room)
	if err != nil || face.Account == "" {
		return func() {}, err
	}
	id, err := jami.ParseID(c.JamiID)
	if err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	keeper, err := p.barred.gates.Of(face.Account)
	if err != nil {
		return nil, err
	}
	stop, err = keeper.WatchID(id, func(why error) {
		p.barred.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
			defer cancel()
			if err := p.Leave(ctx, c.Room, c.ID, "banned"); err != nil {
				p.barred.log.Warn("a banned caller is still in the room", zap.String("room", c.Room), zap.String("participant", c.ID), zap.Error(err), zap.NamedError("why", why))
			}
		})
	})
	if err != nil {
		p.barred.log.Info("caller refused", zap.String("room", c.Room), zap.String("jami_id", c.JamiID), zap.Error(err))
		return nil, contract.ErrForbidden.With("%v", err)
	}
	return stop, nil
}

func (b *barred) note(room, participant string, stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seat[participant] = seat{room, stop}
}

// forget ends the watch over who did not come in.
func (b *barred) forget(participant string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.seat[participant]; ok {
		s.stop()
		delete(b.seat, participant)
	}
}

// heard ends the watch over who is in no room any more.
func (b *barred) heard(e *contract.RoomEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.seat {
		if s.room == e.Room && (e.Type == contract.EventClosed || e.Type == contract.EventLeft && e.Participant != nil && e.Participant.ID == id) {
			s.stop()
			delete(b.seat, id)
		}
	}
}

// close ends all watches and waits for those that put somebody out.
func (b *barred) close() {
	b.mu.Lock()
	for _, s := range b.seat {
		s.stop()
	}
	clear(b.seat)
	b.mu.Unlock()
	b.wg.Wait()
}
