// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

const (
	// keepRecent events are at hand for replay without JetStream.
	keepRecent = 512
	// keepUnconfirmed bounds the events that wait for JetStream: at 500 bytes
	// each, 4 MiB a room.
	keepUnconfirmed = 8192
	// confirmWithin is how long a confirmation may take before the stream is asked
	// how far it got.
	confirmWithin = 5 * time.Second
	// askTime bounds that question: events wait for its answer.
	askTime = 500 * time.Millisecond
)

// confirmCounter is the number of the last event that the stream has; it is set by
// the feed and read by the actor.
type confirmCounter = atomic.Uint64

// remember keeps an event for replay and until it is confirmed.
func (l *live) remember(e room.Event) {
	l.recent = append(l.recent, e)
	if n := len(l.recent) - 2*keepUnconfirmed; n > 0 { // a long journal
		l.drop(n + keepUnconfirmed)
	}
}

// trim forgets the oldest events that need not be kept. It moves the slice only
// now and then.
func (l *live) trim() {
	over := len(l.recent) - keepRecent
	if over < keepRecent {
		return
	}
	done, n := l.confirmed.Load(), 0
	for n < over && l.recent[n].Seq <= done {
		n++
	}
	if lost := len(l.recent) - n - keepUnconfirmed; lost > 0 {
		l.s.metrics.eventsLost.Add(float64(lost))
		n += lost
	}
	if n > 0 {
		l.drop(n)
	}
}

func (l *live) drop(n int) {
	k := copy(l.recent, l.recent[n:])
	clear(l.recent[k:])
	l.recent = l.recent[:k]
}

// publish sends the events that were not sent yet, in order. With the bus away
// they stay until it is back.
func (l *live) publish() {
	if l.asking || !l.s.bus.Connected() {
		return
	}
	from, _ := slices.BinarySearchFunc(l.recent, l.sent+1, func(e room.Event, seq uint64) int { return cmp.Compare(e.Seq, seq) })
	for i := from; i < len(l.recent); i++ {
		e := &l.recent[i]
		if err := l.send(e); err != nil {
			l.log.Warn("event not sent; it is sent again when the bus is back", zap.Uint64("seq", e.Seq), zap.Error(err))
			return
		}
		l.sent = e.Seq
	}
}

func (l *live) send(e *room.Event) error {
	ev, err := roomEvent(l.name, e)
	if err != nil {
		return err
	}
	body, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	// The time of creation tells a room from one of the same name that was
	// removed a moment ago.
	id := fmt.Sprintf("%s:%x:%d", l.name, l.r.Settings().Created.UnixNano(), e.Seq)
	return l.s.feed.Publish(l.asker, contract.RoomEvents.Subject(l.s.bus.Account(), l.name, string(e.Type)), id, l.name, e.Seq, body)
}

// filter matches all kept events of a room.
func (s *Service) filter(name string) string {
	return contract.RoomEvents.Subject(s.bus.Account(), name)
}

// chase looks, once a second, whether the stream confirms what was sent.
func (l *live) chase(now time.Time) {
	done := l.confirmed.Load()
	if done != l.atThen || done >= l.sent {
		l.atThen, l.progress = done, now
		l.trim()
		l.publish()
		return
	}
	if now.Sub(l.progress) > confirmWithin && l.s.bus.Connected() {
		l.progress = now
		l.resync()
	}
}

// resync asks the stream for its last event of the room and publishes again what
// comes after it: after a start, when the bus is back, and when a confirmation
// is missing. Events wait for the answer, at most askTime, so that they are stored
// in order.
func (l *live) resync() {
	if l.asking {
		return
	}
	l.asking = true
	s, name := l.s, l.name
	s.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		last, err := s.lastStored(ctx, name)
		if terr := s.rooms.Tell(name, func(_ context.Context, l *live) { l.resume(last, err) }); terr != nil {
			s.log.Warn("room did not hear from its stream", zap.String("room", name), zap.Error(terr))
		}
	})
}

// lastStored returns the number of the room's last event in the stream, 0 when
// there is none.
func (s *Service) lastStored(ctx context.Context, name string) (uint64, error) {
	m, err := s.feed.Last(ctx, s.filter(name))
	if err != nil || m == nil {
		return 0, err
	}
	var e contract.RoomEvent
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return 0, fmt.Errorf("stored event: %w", err)
	}
	return e.Seq, nil
}

// resume goes on with publishing after the stream's answer.
func (l *live) resume(last uint64, err error) {
	l.asking = false
	if err != nil {
		// JetStream is not there (yet). Delivery does not wait for it; chase
		// asks again.
		l.log.Debug("events are not confirmed", zap.Error(err))
		l.publish()
		return
	}
	if last > l.r.Seq() {
		l.log.Warn("the stream knows later events than the journal; numbers go on after them",
			zap.Uint64("stream", last), zap.Uint64("journal", l.r.Seq()))
		l.r.SkipTo(last)
		l.stale = true // the journal has to know
	}
	if last > l.confirmed.Load() {
		l.confirmed.Store(last)
	}
	l.sent = last
	l.trim()
	l.publish()
}

// confirmed is told by the stream about each event.
func (s *Service) confirmedEvent(name string, seq uint64, err error) {
	if err != nil {
		s.log.Debug("event not stored; it is sent again", zap.String("room", name), zap.Uint64("seq", seq), zap.Error(err))
		return
	}
	v, ok := s.confirms.Load(name)
	if !ok {
		return
	}
	c := v.(*confirmCounter)
	for old := c.Load(); old < seq && !c.CompareAndSwap(old, seq); old = c.Load() {
	}
}
