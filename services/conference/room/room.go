// SPDX-License-Identifier: Apache-2.0

package room

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"time"
)

// Room is one room. It is made by [New] and belongs to one goroutine.
type Room struct {
	set     Settings
	seq     uint64
	epoch   uint64
	closed  bool // the last event is Closed with shutdown
	members map[string]*Member
	ordered []*Member // the same, as they joined
	pending map[string]*pending
	leases  map[string]*Lease
	busLife string    // of the bus that told last who is connected
	busAt   time.Time // when it did
	out     Outcome
}

// New returns an empty room.
func New(s Settings) *Room {
	return &Room{set: s, members: map[string]*Member{}, pending: map[string]*pending{}, leases: map[string]*Lease{}}
}

// Snapshot is the whole state beside the settings.
type Snapshot struct {
	Seq     uint64   `json:"seq"`
	Epoch   uint64   `json:"epoch"`
	Closed  bool     `json:"closed,omitempty"`
	Members []Member `json:"members"`
	Leases  []Lease  `json:"leases,omitempty"`
}

// Snapshot returns the state, members in the order in which they joined.
func (r *Room) Snapshot() Snapshot {
	s := Snapshot{Seq: r.seq, Epoch: r.epoch, Closed: r.closed, Members: r.Members()}
	for _, k := range slices.Sorted(maps.Keys(r.leases)) {
		s.Leases = append(s.Leases, *r.leases[k])
	}
	return s
}

// Restore sets the state from a snapshot.
func (r *Room) Restore(s Snapshot) {
	r.seq, r.epoch, r.closed = s.Seq, s.Epoch, s.Closed
	clear(r.members)
	r.ordered = r.ordered[:0]
	for _, m := range s.Members {
		r.put(&m)
	}
	clear(r.leases)
	for _, l := range s.Leases {
		r.ApplyLease(l)
	}
}

// Apply repeats an event of the journal. Events that the state has already are
// passed over.
func (r *Room) Apply(e Event) {
	if e.Seq <= r.seq {
		return
	}
	r.seq = e.Seq
	r.closed = e.Type == Closed && e.Reason == ReasonShutdown
	if e.Member == nil {
		return
	}
	if e.Type == Left {
		r.drop(e.Member.ID)
		return
	}
	m := *e.Member
	r.put(&m)
}

// put takes a member in, in place of the one with that id.
func (r *Room) put(m *Member) {
	r.drop(m.ID)
	r.members[m.ID] = m
	i, _ := slices.BinarySearchFunc(r.ordered, m, earlier) // mostly the last place
	r.ordered = slices.Insert(r.ordered, i, m)
}

// drop forgets a member.
func (r *Room) drop(id string) {
	m := r.members[id]
	if m == nil {
		return
	}
	delete(r.members, id)
	if i, found := slices.BinarySearchFunc(r.ordered, m, earlier); found {
		r.ordered = slices.Delete(r.ordered, i, i+1)
	}
}

// earlier orders members as they joined.
func earlier(a, b *Member) int {
	if c := a.Joined.Compare(b.Joined); c != 0 {
		return c
	}
	return cmp.Compare(a.ID, b.ID)
}

// ApplyLease repeats a lease of the journal.
func (r *Room) ApplyLease(l Lease) { r.leases[l.Bot] = &l }

// Start begins a new life of the room's actor after a restore: its epoch is
// higher than all before, and who holds a lease has a whole term to renew it. It
// reports whether the last life ended in order.
func (r *Room) Start(now time.Time) (orderly bool) {
	r.epoch++
	for _, l := range r.leases {
		l.expires = now.Add(l.TTL)
	}
	for _, m := range r.members {
		m.voiceShown = m.Speaking
	}
	return r.closed
}

// SetEpoch repeats an epoch of the journal.
func (r *Room) SetEpoch(n uint64) { r.epoch = max(r.epoch, n) }

// SkipTo makes the next event's number higher than seq. It is for a journal that
// could not be written (a full disk) while the events went out.
func (r *Room) SkipTo(seq uint64) { r.seq = max(r.seq, seq) }

// Settings returns the settings.
func (r *Room) Settings() Settings { return r.set }

// Seq returns the number of the last event.
func (r *Room) Seq() uint64 { return r.seq }

// Epoch returns the number of the actor's life.
func (r *Room) Epoch() uint64 { return r.epoch }

// Len returns how many are in.
func (r *Room) Len() int { return len(r.members) }

// HalfOpen returns how many seats wait for audio.
func (r *Room) HalfOpen() int {
	n := len(r.pending)
	for _, m := range r.members {
		if !m.Connected {
			n++
		}
	}
	return n
}

// Member returns a copy of the member with that id.
func (r *Room) Member(id string) (Member, bool) {
	m, ok := r.members[id]
	if !ok {
		return Member{}, false
	}
	return *m, true
}

// Members returns copies of all, in the order in which they joined.
func (r *Room) Members() []Member {
	out := make([]Member, 0, len(r.members))
	for _, m := range r.ordered {
		out = append(out, *m)
	}
	return out
}

// InOrder yields every member, in the order in which they joined. Who reads must not change or keep them.
func (r *Room) InOrder() iter.Seq[*Member] { return slices.Values(r.ordered) }

// Take returns what happened since the last Take.
func (r *Room) Take() Outcome {
	o := r.out
	r.out = Outcome{}
	return o
}

func (r *Room) emit(now time.Time, e Event) {
	r.seq++
	r.closed = e.Type == Closed && e.Reason == ReasonShutdown
	e.Seq, e.Time = r.seq, now
	r.out.Events = append(r.out.Events, e)
}

func (r *Room) about(now time.Time, t Type, by string, m *Member, reason string) {
	c := *m
	r.emit(now, Event{Type: t, By: by, Member: &c, Reason: reason})
}

func (r *Room) order(o Order) { r.out.Orders = append(r.out.Orders, o) }

func (r *Room) setLeg(m *Member) {
	r.order(Order{Verb: LegSet, Leg: m.ID, Worker: m.Worker, CanSpeak: m.CanSpeak(), Muted: m.Muted})
}

// remove puts somebody out and orders its leg closed.
func (r *Room) remove(now time.Time, m *Member, by, reason string) {
	r.drop(m.ID)
	m.Speaking = false
	r.about(now, Left, by, m, reason)
	r.order(Order{Verb: LegClose, Leg: m.ID, Worker: m.Worker, Reason: reason})
	r.leaveFormer(m)
}

// SetSettings takes settings that have been written to disk.
func (r *Room) SetSettings(now time.Time, by string, s Settings) {
	r.set = s
	p := s.Public()
	r.emit(now, Event{Type: Setting, By: by, Settings: &p})
}

// SetConversation notes the id of the room's conversation; nobody is told.
func (r *Room) SetConversation(id string) { r.set.Conversation, r.set.NewChat = id, false }

// Said notes a chat message that has been committed.
func (r *Room) Said(now time.Time, by string, chat json.RawMessage) {
	r.emit(now, Event{Type: Chat, By: by, Chat: chat})
}

// Close tells all that the room ends: for good (removed: everybody is put out),
// or with the process (shutdown: the roster is kept for the next start).
func (r *Room) Close(now time.Time, by, reason string) {
	if reason != ReasonShutdown {
		for _, m := range r.Members() {
			r.remove(now, r.members[m.ID], by, reason)
		}
		for _, p := range r.pending {
			p.cancelled = true
		}
	}
	r.emit(now, Event{Type: Closed, By: by, Reason: reason})
}

// Each calls fn for every member, in no order. fn must not change or keep them.
func (r *Room) Each(fn func(m *Member)) {
	for _, m := range r.members {
		fn(m)
	}
}
