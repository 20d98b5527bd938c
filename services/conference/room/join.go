// SPDX-License-Identifier: Apache-2.0

package room

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxName is how many characters a display name may have.
const MaxName = 64

// Request asks for a seat.
type Request struct {
	ID         string
	Name       string
	Kind       Kind
	PIN        string
	Token      string // the moderator token, if the caller has it
	Verified   bool   // the PIN was proved by SIP digest
	Trusted    bool   // a bot that identity let in: no PIN, no rendezvous
	Called     bool   // by who may let people in: no PIN, no rendezvous
	Moderates  bool   // a bot with that right, or somebody who is always a moderator
	Mute       bool
	Leg        string // "webrtc", "rtp", "jami", "bus"
	Signalling string
	Signalled  Signalled
	JamiID     string // proved; empty: of nobody
	Device     string // long id of the device, of a Jami peer
	Source     string // IP that the signalling comes from
	Offer      string
	Rendezvous bool // the account takes calls
}

// pending is a seat whose leg is being opened.
type pending struct {
	m         Member
	offer     [32]byte
	cancelled bool
}

// Ticket is a seat that waits for its leg: [Room.Seat] takes it, [Room.Abort]
// gives it back.
type Ticket struct {
	Member Member
	Again  bool // the member was in before; its seat is kept
	Fresh  bool // its leg is of another offer and has to go first
}

// Name checks a display name and returns it without blanks around it. It refuses
// control characters and the marks that turn the direction of text, which would
// let a name disguise itself in a roster.
func Name(s string) (string, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "" || !utf8.ValidString(s) || utf8.RuneCountInString(s) > MaxName:
		return "", fmt.Errorf("%w: a name has 1 to %d characters", ErrBad, MaxName)
	case strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsControl(c) || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 || c == 0x2028 || c == 0x2029
	}):
		return "", fmt.Errorf("%w: a name has no control characters", ErrBad)
	}
	return s, nil
}

// same compares secrets in a time that does not depend on where they differ.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// IsModerator reports whether token is the room's moderator token.
func (r *Room) IsModerator(token string) bool {
	return token != "" && r.set.Token != "" && same(token, r.set.Token)
}

// Admit checks a request and reserves the seat. Who is in already gets the seat
// it has, without being asked for a PIN again: ids are given out by the node.
func (r *Room) Admit(now time.Time, q Request) (Ticket, error) {
	if r.pending[q.ID] != nil {
		return Ticket{}, ErrJoining
	}
	name, err := Name(q.Name)
	if err != nil {
		return Ticket{}, err
	}
	p := &pending{offer: sha256.Sum256([]byte(q.Offer))}
	if m, ok := r.members[q.ID]; ok {
		p.m = *m
		p.m.Leg, p.m.Signalling, p.m.Source, p.m.Signalled = q.Leg, q.Signalling, q.Source, q.Signalled
		r.pending[q.ID] = p
		return Ticket{Member: p.m, Again: true, Fresh: !m.missing && m.offer != p.offer && q.Offer != ""}, nil
	}
	mod := r.IsModerator(q.Token)
	if err := r.gate(q, mod); err != nil {
		return Ticket{}, err
	}
	role := r.set.DefaultRole
	switch {
	case mod || q.Moderates:
		role = Moderator
	case q.Trusted:
		role = Speaker // NATS refuses the frames of a bot that may not speak
	}
	p.m = Member{ID: q.ID, Name: name, Kind: q.Kind, JamiID: q.JamiID, Device: q.Device, Role: role, Muted: q.Mute, OwnMute: q.Mute, Leg: q.Leg, Joined: now, Signalling: q.Signalling, Source: q.Source, Signalled: q.Signalled}
	r.pending[q.ID] = p
	return Ticket{Member: p.m}, nil
}

// gate is the order in which a newcomer is refused: what it cannot change
// first, so that a PIN is never confirmed to somebody who gets no seat.
func (r *Room) gate(q Request, mod bool) error {
	free := mod || q.Trusted || q.Called
	switch {
	case !free && !q.Rendezvous:
		return ErrRendezvous
	case r.set.Locked && !free:
		return ErrLocked
	case r.set.Max > 0 && len(r.members)+r.newPending() >= r.set.Max && !mod:
		return ErrFull
	case r.set.PIN == "" || free || q.Verified:
		return nil
	case q.PIN == "":
		return ErrPINRequired
	case !same(q.PIN, r.set.PIN):
		return ErrPINWrong
	}
	return nil
}

// newPending counts the reserved seats of those who are not in yet.
func (r *Room) newPending() int {
	n := 0
	for id := range r.pending {
		if r.members[id] == nil {
			n++
		}
	}
	return n
}

// Opened is what media answered.
type Opened struct {
	Worker, Transport, Codec string
	Source                   string    // where the signalling comes from now; empty: as before
	Device                   string    // that took our call; empty: as before
	Signalled                Signalled // of whom took our call; zero: as before
}

// Seat takes the reserved seat: the leg is open. ErrGone says that the
// participant left, or was put out, meanwhile: the leg has been ordered closed.
func (r *Room) Seat(now time.Time, id string, o Opened) (Member, error) {
	p, ok := r.pending[id]
	delete(r.pending, id)
	if !ok || p.cancelled {
		r.order(Order{Verb: LegClose, Leg: id, Worker: o.Worker, Reason: ReasonLeft})
		return Member{}, ErrGone
	}
	m, again := r.members[id]
	if !again {
		m = &p.m
		if o.Source != "" {
			m.Source = o.Source
		}
		if o.Device != "" {
			m.Device = o.Device
		}
		if o.Signalled != (Signalled{}) {
			p.m.Signalled = o.Signalled
		}
		r.put(m)
	}
	was := *m
	m.Leg, m.Signalling, m.Source, m.Signalled, m.offer = p.m.Leg, p.m.Signalling, p.m.Source, p.m.Signalled, p.offer
	r.opened(now, m, o)
	switch {
	case !again:
		r.about(now, Joined, "", m, "")
	case was.Worker != m.Worker || was.Transport != m.Transport || was.Codec != m.Codec ||
		was.Connected != m.Connected || was.Signalling != m.Signalling || was.Leg != m.Leg:
		r.about(now, Changed, "", m, "")
	}
	if again && (was.Muted != p.m.Muted || was.Role != p.m.Role) {
		r.setLeg(m) // it changed while the leg was being opened
	}
	return *m, nil
}

// opened notes a leg that was opened or opened again.
func (r *Room) opened(now time.Time, m *Member, o Opened) {
	if m.former == o.Worker {
		m.former = ""
	}
	if m.Worker != "" && m.Worker != o.Worker {
		r.leaveFormer(m)
		m.former = m.Worker
	}
	m.Worker, m.Transport, m.legAt = o.Worker, o.Transport, now
	m.missing, m.told, m.lost, m.packets = false, false, false, 0
	if o.Codec != "" {
		m.Codec = o.Codec
	}
	if m.Leg == TransportBus {
		m.Connected, m.deadline = true, time.Time{}
		r.leaveFormer(m)
		return
	}
	m.Connected, m.deadline = false, now.Add(ConnectTime)
}

// Abort gives a reserved seat back. Who was in stays in.
func (r *Room) Abort(id string) { delete(r.pending, id) }
