// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/guard"
	"github.com/parley-jami/parley/services/conference/room"
	"github.com/parley-jami/parley/services/conference/store"
)

// mailbox is how many messages wait for a room; a worker with 1,000 legs tells of
// all of them at once when it starts.
const mailbox = 4096

// orderlyTime is how long, after an orderly end, members wait for a media worker
// that may still have their legs.
const orderlyTime = 10 * time.Second

// live is a room in memory. All of it belongs to the room's actor, but for j.Sync.
type live struct {
	s    *Service
	name string
	r    *room.Room
	j    *store.Journal
	pins *guard.Guard
	log  *zap.Logger

	recent    []room.Event    // oldest first; all that are unconfirmed and keepRecent more
	confirmed *confirmCounter // JetStream has all up to here
	sent      uint64          // published up to here, in order
	progress  time.Time       // when confirmed moved last, or had no need to
	atThen    uint64          // confirmed at that time
	asking    bool            // the stream is being asked how far it got: nothing is published meanwhile

	mark    uint64 // of the last journal record
	base    int64  // size of the journal after its last rewrite
	stale   bool   // a write failed
	removed bool

	asker      context.Context //nolint:containedctx // of the command that is carried out, for its trace
	conversing bool            // the id of the conversation is being asked for
	conversed  chan struct{}   // closed when that ended
	chats      map[string]*bucket
	calls      map[string]calling // who is called and has not answered
	wishes     map[string]wish    // of bots

	orderly bool // the last life ended in order
	born    time.Time
	quality map[string]*quality
	half    int // seats that wait for audio, as the service was told
	places  places
	lists   int       // how many participants newcomers may be told of now
	listsAt time.Time // when that was
	aim     string    // where the last leg was sent, who may not be there yet
	aimed   time.Time // when
	at      []string  // the same workers, as trunks was told
}

// load is the actor's Start: the room from its files.
func (s *Service) load(_ context.Context, name string) (*live, error) {
	if err := s.known(name); err != nil {
		return nil, err
	}
	set, err := s.dir.Settings(name)
	if err != nil {
		return nil, refusal(err)
	}
	l := &live{s: s, name: name, r: room.New(set), pins: guard.New(), log: s.log.With(zap.String("room", name)),
		quality: map[string]*quality{}, chats: map[string]*bucket{}, calls: map[string]calling{}, wishes: map[string]wish{}, born: s.now(), asker: context.Background(), confirmed: new(confirmCounter)}
	if l.j, err = s.dir.Journal(name, l.replayRecord); err != nil {
		return nil, refusal(err)
	}
	l.base = l.j.Size()
	s.epochOf(l.r)
	l.orderly = l.r.Start(s.now())
	if err := l.writeEpoch(); err != nil {
		l.log.Error("the room's journal cannot be written; its roster would not survive a restart", zap.Error(err))
	}
	l.r.Each(func(m *room.Member) { l.metric(m.Kind, 1) })
	l.countHalf()
	l.sent, l.progress = l.r.Seq(), s.now()
	s.confirms.Store(name, l.confirmed)
	if n := l.r.Len(); n > 0 {
		l.log.Info("room is back", zap.Int("participants", n), zap.Uint64("seq", l.r.Seq()), zap.Uint64("epoch", l.r.Epoch()))
	}
	l.resync()
	for _, m := range l.r.Members() { // in the order of joining
		l.places.note(m.ID, m.Worker)
	}
	l.spread()
	s.workers.expect(l.places.workers)
	s.workers.again(s) // legs may have changed while the room was not in memory
	return l, nil
}

// unload is the actor's Stop.
func (s *Service) unload(_ context.Context, _ string, l *live) {
	if l.stale && !l.removed {
		if err := l.rewrite(); err != nil {
			l.log.Error("the room's journal cannot be written; its roster is lost", zap.Error(err))
		}
	}
	l.s.confirms.Delete(l.name)
	l.s.quiet.Delete(l.name)
	if err := l.j.Close(); err != nil {
		l.log.Warn("journal close", zap.Error(err))
	}
	l.uncount()
}

// commit lets out what the room decided: to the journal, to the bus, to media. The
// mark is for [live.sync]. A journal that cannot be written does not stop the room;
// the error is for commands that promise the disk.
func (l *live) commit() (mark uint64, err error) {
	o := l.r.Take()
	if len(o.Events) == 0 && len(o.Orders) == 0 && len(o.Leases) == 0 {
		return l.mark, nil
	}
	defer l.s.copies.changed(l.name)
	if !l.removed {
		was := l.stale
		mark, err = l.write(&o)
		if err != nil && !was {
			l.log.Error("the room's journal cannot be written; the room goes on without; look at the disk", zap.Error(err))
		}
	}
	for _, e := range o.Events {
		l.remember(e)
		l.trim()
		l.tell(e)
	}
	l.publish()
	for _, ord := range o.Orders {
		q := l.s.orders
		if ord.Former {
			q = l.s.formers
		}
		q.put(l.name, l.r.Epoch(), ord)
	}
	l.spread()
	if !l.removed && !l.stale {
		if rerr := l.rewriteIfLong(); rerr != nil {
			l.log.Error("the room's journal cannot be written anew", zap.Error(rerr))
		}
	}
	return mark, err
}

// tell writes the line that an operator wants of an event.
func (l *live) tell(e room.Event) {
	l.s.metrics.events.WithLabelValues(string(e.Type)).Inc()
	if e.Member != nil && e.Type != room.Left {
		l.places.note(e.Member.ID, e.Member.Worker)
	}
	switch e.Type {
	case room.Joined:
		l.metric(e.Member.Kind, 1)
		l.countHalf1(e.Member)
		l.log.Info("joined", zap.String("participant", e.Member.ID), zap.String("name", e.Member.Name),
			zap.String("kind", string(e.Member.Kind)), zap.String("role", string(e.Member.Role)), zap.Int("participants", l.r.Len()))
	case room.Left:
		l.metric(e.Member.Kind, -1)
		delete(l.quality, e.Member.ID)
		delete(l.wishes, e.Member.ID)
		l.places.note(e.Member.ID, "")
		l.log.Info("left", zap.String("participant", e.Member.ID), zap.String("name", e.Member.Name),
			zap.String("reason", e.Reason), zap.String("by", e.By), zap.Int("participants", l.r.Len()))
	case room.Setting:
		l.log.Info("settings changed", zap.String("by", e.By), zap.Bool("locked", e.Settings.Locked))
	case room.Media:
		l.log.Warn("audio has to be negotiated again", zap.String("participant", e.Member.ID), zap.String("reason", e.Reason))
	case room.Closed:
		l.log.Info("room closed", zap.String("by", e.By), zap.String("reason", e.Reason))
	}
}

func (l *live) metric(k room.Kind, d float64) {
	l.s.metrics.participants.WithLabelValues(string(k)).Add(d)
}

// countHalf tells the service how many seats wait for audio here.
func (l *live) countHalf() {
	h := l.r.HalfOpen()
	l.s.halfOpen.Add(int64(h - l.half))
	l.half = h
}

// countHalf1 counts a newcomer until the next tick counts all.
func (l *live) countHalf1(m *room.Member) {
	if !m.Connected {
		l.half++
		l.s.halfOpen.Add(1)
	}
}

// uncount takes the room out of the metrics.
func (l *live) uncount() {
	l.r.Each(func(m *room.Member) { l.metric(m.Kind, -1) })
	l.s.halfOpen.Add(-int64(l.half))
	l.half = 0
}

// tick is once a second.
func (l *live) tick(now time.Time) {
	alive := l.s.workers.alive
	if l.orderly && now.Sub(l.born) > orderlyTime {
		l.orderly = false
		for _, m := range l.r.Members() {
			if !alive(m.Worker) {
				l.r.Leave(now, m.ID, room.ReasonShutdown)
			}
		}
	}
	l.forgetWriters(now)
	l.forgetCalls(now)
	l.r.Tick(now, alive)
	l.countHalf()
	if _, err := l.commit(); err != nil {
		return // said by commit
	}
	if l.stale {
		if err := l.rewrite(); err == nil {
			l.log.Info("the room's journal can be written again")
		}
	}
	l.chase(now)
}

// quiet reports whether a tick has nothing to do for the room until something is asked of it.
func (l *live) quiet() bool {
	return l.r.Len() == 0 && l.r.Settings().Conversation != "" && l.confirmed.Load() >= l.sent && l.sent == l.r.Seq() &&
		len(l.chats)+len(l.calls)+l.half == 0 && !l.orderly && !l.stale && !l.asking && !l.removed
}

// ask runs fn on the room's actor and, where fn wants it, waits for the disk.
func ask[A any](ctx context.Context, s *Service, name string, fn func(l *live) (A, error)) (A, error) {
	var zero A
	if err := s.known(name); err != nil {
		return zero, err
	}
	a, err := actor.Ask(ctx, s.rooms, name, func(_ context.Context, l *live) (A, error) {
		s.quiet.Delete(name)
		l.asker = ctx
		defer func() { l.asker = context.Background() }()
		return fn(l)
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return zero, contract.ErrTimeout.With("room %s did not answer in time", name)
	case err != nil:
		return zero, refusal(err)
	}
	return a, nil
}

// durable is an answer that may be given when the journal is on disk up to mark.
type durable[A any] struct {
	a    A
	j    *store.Journal
	mark uint64
}

// askDurable is [ask] for commands whose effect is on the disk before the answer.
// The room goes on while the disk writes; those who wait at once share a write.
func askDurable[A any](ctx context.Context, s *Service, name string, fn func(l *live) (A, error)) (A, error) {
	d, err := ask(ctx, s, name, func(l *live) (durable[A], error) {
		a, err := fn(l)
		if err != nil {
			return durable[A]{}, err
		}
		mark, err := l.commit()
		if err != nil {
			return durable[A]{}, contract.ErrStorage.With("it was done, but would not survive a restart of the node: %v", err)
		}
		return durable[A]{a, l.j, mark}, nil
	})
	if err != nil {
		return d.a, err
	}
	if err := d.j.Sync(d.mark); err != nil {
		return d.a, contract.ErrStorage.With("it was done, but would not survive a failure of the machine: %v", err)
	}
	s.copies.settle(ctx, name)
	return d.a, nil
}
