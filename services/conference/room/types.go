// SPDX-License-Identifier: Apache-2.0

// Package room is the state of one room as a pure state machine: commands go
// in, facts ([Event]) and orders to media ([Order]) come out. It knows no bus, no
// file, no goroutine and no clock: every method takes the time. A Room belongs to
// one goroutine.
//
// Every change of the roster is an event, and an event carries the whole member
// it changed. So the journal of events is the state: [Room.Apply] of all of them
// after a [Snapshot] gives the room back.
package room

import (
	"encoding/json"
	"time"
)

// Role is what a member may do.
type Role string

// The roles, from most to least.
const (
	Moderator Role = "moderator"
	Speaker   Role = "speaker"
	Listener  Role = "listener"
)

// Valid reports whether r is one of the three roles.
func (r Role) Valid() bool { return r == Moderator || r == Speaker || r == Listener }

// Kind is what a member came with.
type Kind string

// The kinds of members.
const (
	Browser Kind = "browser"
	SIP     Kind = "sip"
	Jami    Kind = "jami"
	Bot     Kind = "bot"
)

// TransportBus is the transport of a bot's leg.
const TransportBus = "bus"

// How long a seat is kept for somebody whose audio does not come.
const (
	// ConnectTime is from the answer to a join, or from the loss of a leg with
	// its worker, to the first packet.
	ConnectTime = 30 * time.Second
	// BrowserGrace is longer than a page needs to notice and to come back.
	BrowserGrace = 30 * time.Second
	// LostGrace is for phones and Jami peers, which do not come back by themselves. With the 10 s
	// of silence before, who vanishes is gone in less than 20 s.
	LostGrace = 7 * time.Second
	// BotGrace is how long a bot without a lease keeps its seat while nothing is
	// connected to the bus in its name.
	BotGrace = 15 * time.Second
	// LeaseGrace is how long after its last renewal a leased bot keeps its seat.
	LeaseGrace = 30 * time.Second
)

// Large is from how many members on changes of voice are coalesced to one a
// second for each member.
const Large = 100

// Settings is what an operator or moderator decided; it is kept apart from the
// roster and is on disk before it is acknowledged.
type Settings struct {
	Name         string    `json:"name"`
	Title        string    `json:"title"`
	PIN          string    `json:"pin,omitempty"`
	Locked       bool      `json:"locked,omitempty"`
	SIPAuth      bool      `json:"sip_auth,omitempty"`
	DefaultRole  Role      `json:"default_role"`
	Max          int       `json:"max,omitempty"`
	Token        string    `json:"moderator_token"` // 128 random bits, hex
	Created      time.Time `json:"created"`
	Conversation string    `json:"conversation,omitempty"`
	// NewChat says that swarm has still to put aside what was said in an earlier
	// room of this name; Conversation is empty then.
	NewChat bool   `json:"new_chat,omitempty"`
	Account string `json:"account,omitempty"` // Jami Id; empty: the node's main account
}

// Public returns s without its secrets; HasPIN tells of one.
func (s Settings) Public() Public {
	return Public{s.Name, s.Title, s.PIN != "", s.Locked, s.SIPAuth, s.DefaultRole, s.Max, s.Account}
}

// Public is what everybody in the room may know of its settings.
type Public struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	HasPIN      bool   `json:"has_pin,omitempty"`
	Locked      bool   `json:"locked,omitempty"`
	SIPAuth     bool   `json:"sip_auth,omitempty"`
	DefaultRole Role   `json:"default_role"`
	Max         int    `json:"max,omitempty"`
	Account     string `json:"account,omitempty"`
}

// Member is somebody in the room.
type Member struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Kind       Kind       `json:"kind"`
	JamiID     string     `json:"jami_id,omitempty"`     // proved by the device's certificates
	Device     string     `json:"jami_device,omitempty"` // long id of that device, of a Jami peer
	Role       Role       `json:"role"`
	Muted      bool       `json:"muted,omitempty"`
	OwnMute    bool       `json:"own_mute,omitempty"` // muted by oneself; Muted is this or MutedBy
	MutedBy    string     `json:"muted_by,omitempty"` // moderator who muted
	Speaking   bool       `json:"speaking,omitempty"`
	Hand       *time.Time `json:"hand,omitempty"`
	Leg        string     `json:"leg"`       // transport asked for: "webrtc", "rtp", "jami", "bus"
	Transport  string     `json:"transport"` // as it came out: "webrtc", "rtp", "srtp", "jami", "bus"
	Codec      string     `json:"codec,omitempty"`
	Joined     time.Time  `json:"joined"`
	Connected  bool       `json:"connected,omitempty"`
	Worker     string     `json:"worker"`
	Signalling string     `json:"signalling,omitempty"`
	Source     string     `json:"source,omitempty"` // IP that the signalling comes from
	Signalled  Signalled  `json:"signalled,omitzero"`

	// What follows is not kept: it is known again from media after a start.
	offer      [32]byte  // hash of the offer that the leg answered
	missing    bool      // the worker has no such leg
	told       bool      // and the member was told to negotiate it again
	lost       bool      // the worker said that no packets come
	packets    uint64    // received, in the last statistics
	deadline   time.Time // leaves with "lost" unless audio comes before; zero: none
	away       time.Time // a bot: not connected to the bus since then; zero: connected, or not known
	legAt      time.Time // when the leg was opened last
	former     string    // worker of the leg before, which goes on until this one is connected
	movedAt    time.Time // when the member was last told to go to another worker
	voiceAt    time.Time // last voice event
	voiceShown bool      // Speaking in that event
}

// Signalled is what a member's signalling came over, as connect told it at the join. The zero
// value is a bot's, or not known.
type Signalled struct {
	Over   string `json:"over"`
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	TLS    string `json:"tls,omitempty"`
	Suite  string `json:"suite,omitempty"`
}

// CanSpeak reports whether the member's role lets it be heard.
func (m *Member) CanSpeak() bool { return m.Role != Listener }

// Missing reports whether media has lost the member's leg, so that it has to be
// negotiated again.
func (m *Member) Missing() bool { return m.missing }

// Type says what happened.
type Type string

// The events of a room, as on the bus.
const (
	Joined  Type = "joined"
	Left    Type = "left"
	Changed Type = "changed"
	Voice   Type = "voice"
	Setting Type = "room"
	Chat    Type = "chat"
	Digit   Type = "digit"
	Media   Type = "media"
	Closed  Type = "closed"
)

// Reasons of [Left], [Media] and [Closed].
const (
	ReasonLeft     = "left"
	ReasonKicked   = "kicked"
	ReasonLost     = "lost"
	ReasonShutdown = "shutdown"
	ReasonRemoved  = "removed"
	ReasonRevoked  = "revoked"
	ReasonBanned   = "banned"
	ReasonMedia    = "media_restarted"
	ReasonMoved    = "moved"
)

// Event is one fact. Seq counts without gaps from 1.
type Event struct {
	Seq      uint64          `json:"seq"`
	Time     time.Time       `json:"time"`
	Type     Type            `json:"type"`
	By       string          `json:"by,omitempty"`
	Member   *Member         `json:"member,omitempty"`
	Settings *Public         `json:"settings,omitempty"`
	Chat     json.RawMessage `json:"chat,omitempty"`
	Digit    string          `json:"digit,omitempty"`
	Reason   string          `json:"reason,omitempty"`
}

// Verb is what media is to do with a leg.
type Verb int

// The orders to media.
const (
	LegSet   Verb = iota // CanSpeak and Muted as given
	LegOpen              // a bot's leg that the worker has lost
	LegClose             // with Reason
)

// Order is what media is told. Orders of one leg replace one another: only the
// last one counts.
type Order struct {
	Verb     Verb
	Leg      string
	Worker   string
	CanSpeak bool
	Muted    bool
	Reason   string
	Former   bool // of a LegClose: the leg goes on at another worker, so this replaces no other order
}

// Lease says which replica of a bot serves.
type Lease struct {
	Bot     string        `json:"bot"`
	Holder  string        `json:"holder"` // empty: released
	Epoch   uint64        `json:"epoch"`
	TTL     time.Duration `json:"ttl"`
	expires time.Time
}

// Outcome is what a command led to and nobody has taken yet.
type Outcome struct {
	Events []Event
	Orders []Order
	Leases []Lease // whose holder changed: to be kept
}
