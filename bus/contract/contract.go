// Package contract holds the Go types of everything that crosses the bus: the
// commands (request and reply), the events and the audio frames, each with the
// subject it travels on. It is the only thing that services share, and the
// AsyncAPI document is generated from it (see cmd/asyncapi).
//
// # Subjects
//
//	parley.v1.<account>.<service>.…                 inside the node
//	parley.v1.<account>.room.<room>.cmd.<caller>.…  commands to a room
//	parley.v1.<account>.room.<room>.event.…         what happens in a room
//	parley.v1.<account>.room.<room>.audio.…         audio for bots and from them
//	parley.v1.node.…                                before there is an account
//
// <account> is the Jami Id (40 hex), <room> a room name, <caller> the id of the
// participant or bot who asks; a bot's permissions pin that token to itself.
//
// # Commands
//
// A command is a NATS micro endpoint with JSON in both directions. A refusal is
// an [Error], in the body and in NATS micro's error headers. The header
// [HeaderKey] carries the idempotency key: a command repeated with the same key
// has one effect and the same reply, for two minutes. [HeaderTimeout] says how long
// the caller waits: what was not begun by then is not done.
//
// # Events
//
// Only the owner of a subject publishes its events. An event states a fact.
package contract

import (
	"fmt"
	"reflect"
	"strings"
)

// Header names on bus messages.
const (
	HeaderKey      = "Parley-Key"      // idempotency key of a command
	HeaderTimeout  = "Parley-Timeout"  // how long the caller of a command waits, in ms; 5000 without it
	HeaderSeq      = "Parley-Seq"      // audio: frame number of this source, +1 each 20 ms
	HeaderRTPTime  = "Parley-RTP-Time" // audio: RTP timestamp at 48 kHz
	HeaderWall     = "Parley-Wall"     // audio: wall clock in unix microseconds
	HeaderSpeaker  = "Parley-Speaker"  // audio: participant id
	HeaderLevel    = "Parley-Level"    // audio: level in -dBov, 0 (loudest) to 127 (silence), RFC 6464
	HeaderVoice    = "Parley-Voice"    // audio: "1" when voice activity was seen
	HeaderLost     = "Parley-Lost"     // audio: frames lost directly before this one
	HeaderFormat   = "Parley-Format"   // audio: one of the Format… constants
	HeaderClear    = "Parley-Clear"    // audio say: "1" drops what is queued, before this payload
	HeaderInstance = "Parley-Instance" // replica of a bot, as given to its lease
	HeaderEpoch    = "Parley-Epoch"    // lease epoch of that replica
)

// Prefix starts every subject; the version changes only when a subject or a
// field changes its meaning.
const Prefix = "parley.v1."

// NodeAccount stands in the account's place for subjects that exist before, or
// apart from, an account.
const NodeAccount = "node"

// Kind says how a definition is used on the bus.
type Kind string

// The kinds of definitions.
const (
	KindCommand Kind = "command"
	KindEvent   Kind = "event"
	KindAudio   Kind = "audio"
)

// Def describes one subject. Patterns name their variable tokens in braces, in
// the order in which [Def.Subject] takes them.
type Def struct {
	Kind    Kind
	Service string // the process that serves the command or publishes the event
	Name    string // dotted, unique: "room.join"
	Pattern string // "parley.v1.{account}.room.{room}.cmd.{caller}.join"
	Doc     string
	// Right is what a bot must have been granted to reach the subject; empty
	// means that no bot reaches it.
	Right Right
	// Query marks a command without an effect: repeated it is done again, and its
	// replies are not kept.
	Query   bool
	Request reflect.Type
	Reply   reflect.Type // nil for events
}

// Params returns the names of the variable tokens in order.
func (d *Def) Params() []string {
	var out []string
	for _, tok := range strings.Split(d.Pattern, ".") {
		if strings.HasPrefix(tok, "{") {
			out = append(out, strings.Trim(tok, "{}"))
		}
	}
	return out
}

// Subject fills the variable tokens in order; "*" is allowed for any of them,
// and missing trailing ones become "*". It panics on too many: that is a
// mistake of the caller, never of the data.
func (d *Def) Subject(params ...string) string {
	toks := strings.Split(d.Pattern, ".")
	n := 0
	for i, tok := range toks {
		if !strings.HasPrefix(tok, "{") {
			continue
		}
		if n < len(params) {
			toks[i] = params[n]
		} else {
			toks[i] = "*"
		}
		n++
	}
	if len(params) > n {
		panic(fmt.Sprintf("contract: %s takes %d tokens, got %d", d.Name, n, len(params)))
	}
	return strings.Join(toks, ".")
}

// For is the subject as a bot of a room uses it: with the account, the room, and the bot's
// own name where who asks or listens is named; "*" in the other tokens.
func (d *Def) For(account, room, bot string) string {
	params := d.Params()
	for i, p := range params {
		switch p {
		case "account":
			params[i] = account
		case "room":
			params[i] = room
		case "caller", "bot", "listener":
			params[i] = bot
		default:
			params[i] = "*"
		}
	}
	return d.Subject(params...)
}

// Match returns the variable tokens of subject, or false when it is not of this
// definition.
func (d *Def) Match(subject string) ([]string, bool) {
	pat, sub := strings.Split(d.Pattern, "."), strings.Split(subject, ".")
	if len(pat) != len(sub) {
		return nil, false
	}
	var out []string
	for i, tok := range pat {
		if strings.HasPrefix(tok, "{") {
			out = append(out, sub[i])
		} else if tok != sub[i] {
			return nil, false
		}
	}
	return out, true
}

// Command is a request with the reply it gets.
type Command[Q, A any] struct{ *Def }

// Event is a fact that is published and not answered.
type Event[E any] struct{ *Def }

// Audio is a subject with a binary payload and headers.
type Audio struct{ *Def }

var defs []*Def

// All returns every definition, in the order of the source.
func All() []*Def { return defs }

func command[Q, A any](service, name, pattern, doc string, right Right) Command[Q, A] {
	d := &Def{Kind: KindCommand, Service: service, Name: name, Pattern: Prefix + pattern, Doc: doc, Right: right,
		Request: reflect.TypeFor[Q](), Reply: reflect.TypeFor[A]()}
	defs = append(defs, d)
	return Command[Q, A]{d}
}

// query is a command without an effect.
func query[Q, A any](service, name, pattern, doc string, right Right) Command[Q, A] {
	c := command[Q, A](service, name, pattern, doc, right)
	c.Query = true
	return c
}

func event[E any](service, name, pattern, doc string, right Right) Event[E] {
	d := &Def{Kind: KindEvent, Service: service, Name: name, Pattern: Prefix + pattern, Doc: doc, Right: right,
		Request: reflect.TypeFor[E]()}
	defs = append(defs, d)
	return Event[E]{d}
}

func audio(service, name, pattern, doc string, right Right) Audio {
	d := &Def{Kind: KindAudio, Service: service, Name: name, Pattern: Prefix + pattern, Doc: doc, Right: right}
	defs = append(defs, d)
	return Audio{d}
}

// None is an empty request or reply.
type None struct{}
