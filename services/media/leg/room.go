package leg

import (
	"time"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/wire"
)

// Room is a room's mixer with what its tick sends. It exists as long as somebody
// holds it.
type Room struct {
	Mix  *mix.Room
	h    *Host
	name string
	refs int // under Host.mu

	// The room's goroutine alone, during a tick.
	writers [1 + Pairs + maxRelays]batch
	at      int64
}

// Name returns the room's name.
func (r *Room) Name() string { return r.name }

// Room returns the mixer of a room, made when it is not there. Each call needs a
// [Host.Release].
func (h *Host) Room(name string) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[name]; r != nil {
		r.refs++
		return r
	}
	r := &Room{h: h, name: name, refs: 1}
	r.Mix = mix.NewRoom(mix.Config{
		Name: name, Loudest: h.cfg.Loudest, Flush: r.flush, Ticks: &h.ticks,
		Keep: h.cfg.Keep, OnPace: func(p mix.Pace) { h.paced(name, p) },
		OnVoice: func(member string, speaking bool, level int) { h.events.Voice(member, name, speaking, level) },
	})
	h.rooms[name] = r
	return r
}

// Release gives a room back; the last one ends its mixer. No member may be left.
func (h *Host) Release(r *Room) {
	h.mu.Lock()
	r.refs--
	last := r.refs == 0
	if last {
		delete(h.rooms, r.name)
	}
	h.mu.Unlock()
	if last {
		r.Mix.Close()
	}
}

// now is the wall clock in microseconds, read once a tick.
func (r *Room) now() int64 {
	if r.at == 0 {
		r.at = time.Now().UnixMicro()
	}
	return r.at
}

// writer returns the batch for a socket in this tick.
func (r *Room) writer(p *port) *wire.Writer {
	return r.writers[p.batch].writer(p)
}

// batch is a writer of a port that something may be queued on.
type batch struct {
	p *port
	w *wire.Writer // nil: nothing is
}

// writer returns the one for a port. Another port may have had the place, when it was a relay's.
func (b *batch) writer(p *port) *wire.Writer {
	if b.w != nil && b.p != p {
		b.flush()
	}
	if b.w == nil {
		b.p, b.w = p, p.getWriter()
	}
	return b.w
}

func (b *batch) flush() {
	if b.w == nil {
		return
	}
	b.w.Flush()
	b.p.putWriter(b.w)
	b.p, b.w = nil, nil
}

// flush ends a tick: everything queued is sent.
func (r *Room) flush() {
	for i := range r.writers {
		r.writers[i].flush()
	}
	r.at = 0
}
