// Package buslegs lets bots hear and speak over the bus: it publishes the mix and
// the loud speakers of a room as 20 ms frames and plays what a bot says.
//
// Hearing. A bot asks for formats with [Leg.SetListen], for a time that it renews.
// What several bots of a room want alike is resampled, encoded and published once.
// The mix is the same for all: it holds everybody, the bot's own voice too. The
// others are the mix without the bot's own voice, made for each bot that asks.
// Frames come while somebody is heard; a pause is a jump of the sequence number.
//
// Speaking. What a bot says goes into a queue of 10 s; what doesn't fit is refused
// and counted. Who is muted or may not speak has everything refused.
//
// Nothing here slows the mixer: what it hands over goes through a ring of 16
// frames for each room, and what doesn't fit is lost and counted in the header.
package buslegs

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/mix"
)

// Header is the metadata of an audio message, by header name.
type Header map[string][]string

// Names of the headers; they are those of the bus's contract.
const (
	headerSeq     = "Parley-Seq"
	headerRTPTime = "Parley-RTP-Time"
	headerWall    = "Parley-Wall"
	headerSpeaker = "Parley-Speaker"
	headerLevel   = "Parley-Level"
	headerVoice   = "Parley-Voice"
	headerLost    = "Parley-Lost"
	headerFormat  = "Parley-Format"
	headerClear   = "Parley-Clear"
	headerEpoch   = "Parley-Epoch"
)

func (h Header) get(name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Message is what arrived on a bot's say subject.
type Message struct {
	Subject string
	Header  Header
	Data    []byte
	// Reply answers, or is nil when the sender wants none.
	Reply func(queuedMs, dropped int)
}

// Conn is what buslegs needs of the bus; a connection of its own, so that
// audio may be dropped without touching commands.
type Conn interface {
	// Publish must not block for long; an error counts as a lost frame.
	Publish(subject string, h Header, data []byte) error
	// Subscribe calls fn for each message, in order, until stop is called. At most
	// limit messages wait; more are dropped. stop doesn't wait for fn.
	Subscribe(subject string, limit int, fn func(*Message)) (stop func(), err error)
}

// Subjects names the audio subjects of a room.
type Subjects struct {
	Mix    func(room, format string) string
	Others func(room, bot, format string) string
	From   func(room, participant, format string) string
	Say    func(room, bot string) string
}

// Listen is what a bot wants to hear, until TTL after the last request.
type Listen struct {
	Mix      string        // format, empty: not wanted
	Others   string        // format of the mix without the bot's own voice, empty: not wanted
	Speakers string        // format of each loud speaker apart, empty: not wanted
	TTL      time.Duration // 1 to 60 s; 10 s when 0
}

// Bounds of [Listen].TTL.
const (
	defaultTTL = 10 * time.Second
	minTTL     = time.Second
	maxTTL     = time.Minute
)

// Errors of [Leg.SetListen].
var (
	ErrTTL    = errors.New("buslegs: how long to listen must be 1,000 to 60,000 ms")
	errClosed = errors.New("buslegs: closed")
)

// Legs holds the bus legs of all rooms. It is safe for concurrent use.
type Legs struct {
	conn Conn
	subj Subjects
	log  *zap.Logger

	mu     sync.Mutex // guards what follows
	rooms  map[*mix.Room]*outlet
	closed bool
}

// New makes it; Close ends it.
func New(conn Conn, subj Subjects, log *zap.Logger) *Legs {
	return &Legs{conn: conn, subj: subj, log: log, rooms: map[*mix.Room]*outlet{}}
}

// Open makes the leg of a bot in a room: id is the bot's participant id.
func (l *Legs) Open(id, roomName string, room *mix.Room, canSpeak, muted bool) (*Leg, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	g := &Leg{legs: l, id: id, room: room, canSpeak: canSpeak, muted: muted}
	g.queue.leg = g
	m, err := room.AddSource(id, &g.queue, canSpeak, muted)
	if err != nil {
		return nil, err
	}
	g.member = m
	g.queue.setOpen(canSpeak && !muted)
	if g.stop, err = l.conn.Subscribe(l.subj.Say(roomName, id), sayPending, g.queue.say); err != nil {
		m.Close()
		return nil, fmt.Errorf("what %s says: %w", id, err)
	}
	o := l.rooms[room]
	if o == nil {
		o = newOutlet(l.conn, l.subj, roomName, room)
		l.rooms[room] = o
	}
	o.legs[g] = true
	g.out = o
	return g, nil
}

// Close ends all legs and waits.
func (l *Legs) Close() {
	l.mu.Lock()
	l.closed = true
	var all []*Leg
	for _, o := range l.rooms {
		for g := range o.legs {
			all = append(all, g)
		}
	}
	l.mu.Unlock()
	for _, g := range all {
		g.Close()
	}
}

// Leg is one bot in a room. It is safe for concurrent use.
type Leg struct {
	legs   *Legs
	id     string
	room   *mix.Room
	member *mix.Member
	queue  queue
	out    *outlet
	stop   func()

	mu              sync.Mutex // guards what follows
	canSpeak, muted bool
	closed          bool
}

// SetMuted mutes or unmutes the bot.
func (g *Leg) SetMuted(muted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.muted = muted
	g.member.SetMuted(muted)
	g.queue.setOpen(g.canSpeak && !g.muted)
}

// SetCanSpeak lets the bot speak or not.
func (g *Leg) SetCanSpeak(can bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.canSpeak = can
	g.member.SetCanSpeak(can)
	g.queue.setOpen(g.canSpeak && !g.muted)
}

// SetListen begins, changes or renews what the bot hears.
func (g *Leg) SetListen(w Listen) error {
	if w.TTL == 0 {
		w.TTL = defaultTTL
	}
	if w.TTL < minTTL || w.TTL > maxTTL {
		return ErrTTL
	}
	for _, f := range []string{w.Mix, w.Others, w.Speakers} {
		if f != "" && formatOf(f) < 0 {
			return fmt.Errorf("buslegs: unknown format %q; it is one of opus, s16le-16000, s16le-24000, s16le-48000", f)
		}
	}
	g.out.listen(g, w, time.Now())
	return nil
}

// Stats returns what was counted of the bot's voice.
func (g *Leg) Stats() mix.Stats {
	s := g.member.Stats()
	queued, refused, taken := g.queue.counts()
	s.BufferMs, s.Dropped, s.Received = float64(queued), s.Dropped+refused, taken
	return s
}

// Close ends the leg.
func (g *Leg) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	g.mu.Unlock()
	g.stop()
	g.queue.setOpen(false)
	g.member.Close()

	l := g.legs
	l.mu.Lock()
	delete(g.out.legs, g)
	last := len(g.out.legs) == 0
	if last {
		delete(l.rooms, g.room)
	}
	l.mu.Unlock()
	g.out.forget(g)
	if last {
		g.out.close()
	}
}
