// Package buslegs lets bots hear and speak over the bus: it publishes the mix and
// the loud speakers of a room as 20 ms frames and plays what a bot says.
//
// Nothing here slows the mixer: what it hands over goes through bounded rings, and
// what doesn't fit is lost and counted.
package buslegs

import (
	"time"

	"github.com/parley-jami/parley/services/media/mix"
)

// Header is the metadata of an audio message, by header name.
type Header map[string][]string

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
	// limit messages wait; more are dropped.
	Subscribe(subject string, limit int, fn func(*Message)) (stop func(), err error)
}

// Subjects names the audio subjects of a room.
type Subjects struct {
	Mix  func(room, format string) string
	From func(room, participant, format string) string
	Say  func(room, bot string) string
}

// Listen is what a bot wants to hear, until TTL after the last request.
type Listen struct {
	Mix      string        // format, empty: not wanted
	Speakers string        // format of each loud speaker apart, empty: not wanted
	TTL      time.Duration // 1 to 60 s; 10 s when 0
}

// Legs holds the bus legs of all rooms.
type Legs struct{ conn Conn }

// New makes it; Close ends it.
func New(conn Conn, subj Subjects) *Legs { return &Legs{conn: conn} }

// Open makes the leg of a bot in a room: id is the bot's participant id.
func (l *Legs) Open(id, roomName string, room *mix.Room, canSpeak, muted bool) (*Leg, error) {
	return &Leg{}, nil
}

// Close ends all legs and waits.
func (l *Legs) Close() {}

// Leg is one bot in a room.
type Leg struct{}

// SetMuted mutes or unmutes the bot.
func (g *Leg) SetMuted(muted bool) {}

// SetCanSpeak lets the bot speak or not.
func (g *Leg) SetCanSpeak(can bool) {}

// SetListen begins or renews what the bot hears.
func (g *Leg) SetListen(w Listen) error { return nil }

// Stats returns what was counted.
func (g *Leg) Stats() mix.Stats { return mix.Stats{} }

// Close ends the leg.
func (g *Leg) Close() {}
