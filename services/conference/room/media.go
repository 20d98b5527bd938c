// SPDX-License-Identifier: Apache-2.0

package room

import (
	"slices"
	"time"
)

// Leg is a leg as its worker sees it.
type Leg struct {
	ID        string
	Transport string
	Codec     string
	Connected bool
	CanSpeak  bool
	Muted     bool
	Speaking  bool
	Packets   uint64 // received
}

// Reopened notes that the leg of a member was negotiated again.
func (r *Room) Reopened(now time.Time, id string, o Opened, fresh bool) (Member, error) {
	m, ok := r.members[id]
	if !ok {
		r.order(Order{Verb: LegClose, Leg: id, Worker: o.Worker, Reason: ReasonLeft})
		return Member{}, ErrGone
	}
	was := *m
	if o.Source != "" {
		m.Source = o.Source
	}
	if fresh {
		r.opened(now, m, o)
	} else {
		m.Worker, m.Transport = o.Worker, o.Transport
		if o.Codec != "" {
			m.Codec = o.Codec
		}
	}
	if was.Worker != m.Worker || was.Transport != m.Transport || was.Codec != m.Codec || was.Connected != m.Connected {
		r.about(now, Changed, "", m, "")
	}
	if fresh {
		r.setLeg(m) // what was ordered while it was being opened
	}
	return *m, nil
}

// LegState takes what a worker says of a leg on its own: "connected", "lost" or
// "closed". Who is lost keeps the seat for a while.
func (r *Room) LegState(now time.Time, worker, id, state string) {
	m, ok := r.members[id]
	if !ok || m.Worker != worker { // of one who has moved on
		return
	}
	switch state {
	case "connected":
		m.deadline, m.missing, m.told, m.lost = time.Time{}, false, false, false
		if !m.Connected {
			m.Connected = true
			r.about(now, Changed, "", m, "")
		}
		r.leaveFormer(m)
	case "lost", "closed":
		if state == "closed" {
			m.missing = true
		}
		r.lost(now, m)
	}
}

// lost starts the time that somebody without audio has to come back.
func (r *Room) lost(now time.Time, m *Member) {
	if m.deadline.IsZero() {
		grace := LostGrace
		if m.Kind == Browser {
			grace = BrowserGrace
		}
		m.deadline = now.Add(grace)
	}
	m.lost = true
	if m.Connected || m.Speaking {
		m.Connected, m.Speaking, m.voiceShown = false, false, false
		r.about(now, Changed, "", m, "")
	}
}

// At reports whether somebody has a leg at a worker: while he moves, at two.
func (r *Room) At(worker, id string) bool {
	m, ok := r.members[id]
	return ok && (m.Worker == worker || m.former != "" && m.former == worker)
}

// Heard takes a change of voice activity.
func (r *Room) Heard(now time.Time, id string, speaking bool) {
	m, ok := r.members[id]
	if !ok || speaking && (m.Muted || !m.CanSpeak()) {
		return
	}
	m.Speaking = speaking
	r.showVoice(now, m)
}

// showVoice tells of voice activity, in large rooms at most once a second for
// each member.
func (r *Room) showVoice(now time.Time, m *Member) {
	if m.Speaking == m.voiceShown || len(r.members) > Large && now.Sub(m.voiceAt) < time.Second {
		return
	}
	m.voiceShown, m.voiceAt = m.Speaking, now
	r.about(now, Voice, "", m, "")
}

// Pressed notes a telephone-event.
func (r *Room) Pressed(now time.Time, id, digit string) {
	if m, ok := r.members[id]; ok {
		c := *m
		r.emit(now, Event{Type: Digit, Member: &c, Digit: digit})
	}
}

// Stats takes what changed of a leg; it reports whether the leg is a member's.
func (r *Room) Stats(now time.Time, worker string, l Leg) bool {
	m, ok := r.members[l.ID]
	if !ok || m.Worker != worker {
		return false
	}
	if r.learn(m, l) {
		r.about(now, Changed, "", m, "")
	}
	return true
}

// learn takes transport, codec and the first packet from a leg and reports
// whether something changed.
func (r *Room) learn(m *Member, l Leg) bool {
	was := *m
	if l.Transport != "" {
		m.Transport = l.Transport
	}
	if l.Codec != "" {
		m.Codec = l.Codec
	}
	// A leg that was lost is still "connected" to its worker: only a packet
	// after that brings it back.
	if l.Connected && !m.Connected && !m.missing && (!m.lost || l.Packets > m.packets) {
		m.Connected, m.lost, m.deadline = true, false, time.Time{}
		r.leaveFormer(m)
	}
	m.packets = l.Packets
	return was.Transport != m.Transport || was.Codec != m.Codec || was.Connected != m.Connected
}

// Reconcile compares the room with all the legs of a worker, as they were at asked
// or later. A bot's missing leg is opened again; who else lost the leg is told to
// negotiate it again and keeps the seat meanwhile. Legs of nobody are closed.
// With orderly, members without a leg leave at once: the process ended in order
// before, and they were told.
func (r *Room) Reconcile(now, asked time.Time, worker string, legs []Leg, orderly bool) {
	there := make(map[string]bool, len(legs))
	for _, l := range legs {
		there[l.ID] = true
		m, ok := r.members[l.ID]
		if !ok {
			if r.pending[l.ID] == nil {
				r.order(Order{Verb: LegClose, Leg: l.ID, Worker: worker, Reason: ReasonLeft})
			}
			continue
		}
		r.match(now, asked, m, worker, l)
	}
	for _, m := range r.Members() {
		if m.Worker != worker || there[m.ID] || r.pending[m.ID] != nil || m.legAt.After(asked) {
			continue
		}
		r.miss(now, r.members[m.ID], orderly)
	}
}

// match brings a member and its leg in line.
func (r *Room) match(now, asked time.Time, m *Member, worker string, l Leg) {
	if m.Worker != worker {
		if !m.legAt.After(asked) && (m.former != worker || m.Connected) {
			r.order(Order{Verb: LegClose, Leg: l.ID, Worker: worker, Reason: ReasonLeft, Former: true})
		}
		return
	}
	m.missing, m.told = false, false
	changed := r.learn(m, l)
	if !m.Connected && m.deadline.IsZero() {
		m.deadline = now.Add(ConnectTime) // after a restart nobody else knows when it ends
	}
	if changed {
		r.about(now, Changed, "", m, "")
	}
	if l.Muted != m.Muted || l.CanSpeak != m.CanSpeak() {
		r.setLeg(m)
	}
	r.Heard(now, m.ID, l.Speaking)
}

// miss deals with a member whose worker has no leg for it.
func (r *Room) miss(now time.Time, m *Member, orderly bool) {
	switch {
	case m.Leg == TransportBus && !orderly:
		r.order(Order{Verb: LegOpen, Leg: m.ID, Worker: m.Worker, CanSpeak: m.CanSpeak(), Muted: m.Muted})
	case orderly:
		r.remove(now, m, "", ReasonShutdown)
	case !m.told:
		m.missing, m.told, m.Connected, m.Speaking, m.voiceShown = true, true, false, false, false
		m.deadline = now.Add(ConnectTime)
		r.about(now, Media, "", m, ReasonMedia)
	}
}

// Moved tells the room that a worker is gone for good and another one takes
// over: bots' legs are opened there, others negotiate again. Who speaks goes first: his voice is missed by
// all, and at a worker that is only cut off from here it would be heard by those whom it still reaches.
func (r *Room) Moved(now time.Time, from, to string) {
	all := r.Members()
	slices.SortStableFunc(all, func(a, b Member) int {
		switch {
		case a.Speaking == b.Speaking:
			return 0
		case a.Speaking:
			return -1
		}
		return 1
	})
	for _, c := range all {
		if c.Worker != from || r.pending[c.ID] != nil {
			continue
		}
		m := r.members[c.ID]
		if m.Leg == TransportBus {
			m.Worker = to
			r.about(now, Changed, "", m, "")
		}
		r.miss(now, m, false)
	}
}

// moveAgain is how long who is told to go to another worker has for it.
const moveAgain = 10 * time.Second

// Move has at most n members go from a worker that is still there to others, and returns how many
// are there yet. Bots' legs are opened at to; others are told to negotiate again, upon which conference
// chooses their worker. The old legs go on until the new ones are connected.
func (r *Room) Move(now time.Time, from, to string, n int) (left int) {
	for _, c := range r.Members() {
		m := r.members[c.ID]
		if m.Worker != from || r.pending[m.ID] != nil {
			continue
		}
		left++
		if n == 0 || now.Sub(m.movedAt) < moveAgain {
			continue
		}
		n--
		m.movedAt = now
		if m.Leg != TransportBus {
			r.about(now, Media, "", m, ReasonMoved)
			continue
		}
		m.former, m.Worker = m.Worker, to
		r.about(now, Changed, "", m, "")
		r.order(Order{Verb: LegOpen, Leg: m.ID, Worker: to, CanSpeak: m.CanSpeak(), Muted: m.Muted})
		r.leaveFormer(m)
	}
	return left
}

// leaveFormer ends the leg that the member had before.
func (r *Room) leaveFormer(m *Member) {
	if m.former == "" {
		return
	}
	r.order(Order{Verb: LegClose, Leg: m.ID, Worker: m.former, Reason: ReasonMoved, Former: true})
	m.former = ""
}

// Tick does what time brings: seats run out, coalesced voice is shown. It is
// called about once a second. alive tells whether a worker answers: while it does
// not, nobody on it is put out, for nobody can come back.
func (r *Room) Tick(now time.Time, alive func(worker string) bool) {
	var out []*Member
	for _, m := range r.members {
		if r.leaseOver(now, m) {
			out = append(out, m)
			continue
		}
		r.showVoice(now, m)
		switch {
		case m.deadline.IsZero() || r.pending[m.ID] != nil:
		case !alive(m.Worker):
			m.deadline = later(m.deadline, now.Add(LostGrace))
		case !now.Before(m.deadline):
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *Member) int { return a.Joined.Compare(b.Joined) })
	for _, m := range out {
		r.remove(now, m, "", ReasonLost)
	}
}

// busGap is how long the bus may be silent before what it said does not count
// any more: bots had no way to stay connected meanwhile.
const busGap = 5 * time.Second

// Connections takes what the bus tells once a second: who is connected to it. A bot
// that has not been for grace leaves, unless it has a lease, which says more. After a
// silence, or of another life of the bus, the time begins anew.
func (r *Room) Connections(now time.Time, life string, has func(id string) bool, grace time.Duration) {
	anew := life != r.busLife || now.Sub(r.busAt) > busGap
	r.busLife, r.busAt = life, now
	for _, m := range r.members {
		l := r.leases[m.ID]
		switch {
		case m.Kind != Bot || m.Leg != TransportBus:
		case has(m.ID):
			m.away = time.Time{}
		case anew || m.away.IsZero():
			m.away = now
		case now.Sub(m.away) >= grace && (l == nil || l.Holder == ""):
			r.remove(now, m, "", ReasonLost)
		}
	}
}

// leaseOver reports whether m is a bot that took a lease and let it run out long
// ago: all its replicas are dead.
func (r *Room) leaseOver(now time.Time, m *Member) bool {
	if m.Kind != Bot {
		return false
	}
	l := r.leases[m.ID]
	return l != nil && l.Holder != "" && now.After(l.expires.Add(LeaseGrace))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
