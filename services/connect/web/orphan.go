package web

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"
)

// orphanAfter is how long a page may take to come back before its seat is
// looked at. Audio that flows keeps the seat: the page may have lost nothing but
// its signalling.
const orphanAfter = 20 * time.Second

// orphansMax bounds the seats that are remembered; the room's own watch over
// lost audio finds the others.
const orphansMax = 8192

// orphans are seats whose socket has gone. Those that nobody resumed and whose
// audio never came are given up, so that half-made joins do not fill a room.
type orphans struct {
	s     *Server
	after time.Duration

	mu   sync.Mutex
	list []orphan // in order of time
	wake chan struct{}
}

type orphan struct {
	at  session
	due time.Time
}

func newOrphans(s *Server, after time.Duration) *orphans {
	return &orphans{s: s, after: after, wake: make(chan struct{}, 1)}
}

func (o *orphans) add(at session) {
	o.mu.Lock()
	if len(o.list) < orphansMax {
		o.list = append(o.list, orphan{at, time.Now().Add(o.after)})
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// next returns the first that is due, or how long to wait; -1: none.
func (o *orphans) next(now time.Time) (session, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		return session{}, -1
	}
	if d := o.list[0].due.Sub(now); d > 0 {
		return session{}, d
	}
	at := o.list[0].at
	o.list = o.list[1:]
	return at, 0
}

func (o *orphans) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		at, wait := o.next(time.Now())
		if wait == 0 {
			o.look(ctx, at)
			continue
		}
		if wait < 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-timer.C:
		}
	}
}

func (o *orphans) look(ctx context.Context, at session) {
	if o.s.hub.has(at) {
		return
	}
	params := []string{at.room, at.participant}
	data, err := o.s.node.Do(ctx, Command{Name: "room.get", Params: params, Body: struct{}{}})
	if err != nil {
		if refusal(err).Retry && ctx.Err() == nil {
			o.add(at)
		}
		return
	}
	var st seat
	if err := json.Unmarshal(data, &st); err != nil || st.Participant.ID != at.participant {
		return
	}
	if st.Participant.Connected { // who only listens is connected by its reports (RFC 3550 §6.4.2)
		return
	}
	_, err = o.s.node.Do(ctx, Command{Name: "room.leave", Params: params, Body: map[string]string{"reason": "lost"}})
	if err != nil && ctx.Err() == nil {
		o.s.log.Warn("a seat without a page could not be given up", zap.String("room", at.room), zap.Error(err))
	}
}
