// SPDX-License-Identifier: Apache-2.0

package room

import (
	"fmt"
	"time"
)

// Caller is who commands.
type Caller struct {
	ID       string
	Operator bool // may everything
	Trusted  bool // may moderate without being in the room: a bot with that right
}

// moderates reports whether c may order others about.
func (r *Room) moderates(c Caller) bool {
	if c.Operator || c.Trusted {
		return true
	}
	m := r.members[c.ID]
	return m != nil && m.Role == Moderator
}

// Moderates reports whether c may moderate.
func (r *Room) Moderates(c Caller) bool { return r.moderates(c) }

// target finds whom a command is about: empty means the caller.
func (r *Room) target(c Caller, id string) (*Member, error) {
	if id == "" {
		id = c.ID
	}
	m, ok := r.members[id]
	if !ok {
		return nil, fmt.Errorf("%w: %q is not in the room", ErrNoMember, id)
	}
	return m, nil
}

// Leave ends somebody's stay. Who is not in, or leaves twice, is no error: a
// seat that is just being taken is given up.
func (r *Room) Leave(now time.Time, id, reason string) {
	if p := r.pending[id]; p != nil {
		p.cancelled = true
	}
	if m, ok := r.members[id]; ok {
		r.remove(now, m, "", reason)
	}
}

// Kick puts somebody out.
func (r *Room) Kick(now time.Time, c Caller, id string) error {
	if !r.moderates(c) {
		return fmt.Errorf("%w: only a moderator puts people out", ErrForbidden)
	}
	m, err := r.target(c, id)
	if err != nil {
		if p := r.pending[id]; p != nil {
			p.cancelled = true
			return nil
		}
		return err
	}
	if p := r.pending[m.ID]; p != nil {
		p.cancelled = true
	}
	r.remove(now, m, c.ID, ReasonKicked)
	return nil
}

// Mute mutes or unmutes. Who was muted by a moderator stays muted until a
// moderator lifts it; lifting another's own mute is not possible: nobody is
// made audible without knowing it.
func (r *Room) Mute(now time.Time, c Caller, id string, muted bool) (Member, error) {
	m, err := r.target(c, id)
	if err != nil {
		return Member{}, err
	}
	self, mod := m.ID == c.ID, r.moderates(c)
	switch {
	case !self && !mod:
		return Member{}, fmt.Errorf("%w: only a moderator mutes others", ErrForbidden)
	case self && !muted && m.MutedBy != "" && !mod:
		return Member{}, fmt.Errorf("%w: a moderator muted you; raise your hand", ErrForbidden)
	case !self && !muted && m.Muted && m.MutedBy == "":
		return Member{}, fmt.Errorf("%w: %s muted themselves and has to unmute", ErrForbidden, m.Name)
	}
	was := *m
	switch {
	case self && muted:
		m.OwnMute = true // which does not lift a moderator's
	case self:
		m.OwnMute, m.MutedBy = false, ""
	case muted:
		m.MutedBy = c.ID
	default:
		m.MutedBy = "" // which does not lift one's own
	}
	m.Muted = m.OwnMute || m.MutedBy != ""
	if *m == was {
		return was, nil
	}
	if m.Muted {
		m.Speaking, m.voiceShown = false, false
	}
	r.about(now, Changed, c.ID, m, "")
	r.setLeg(m)
	return *m, nil
}

// SetRole gives a role. The last word on moderators is the operator's: a
// moderator may lower itself and others alike.
func (r *Room) SetRole(now time.Time, c Caller, id string, role Role) (Member, error) {
	if !role.Valid() {
		return Member{}, fmt.Errorf("%w: a role is moderator, speaker or listener", ErrBad)
	}
	if !r.moderates(c) {
		return Member{}, fmt.Errorf("%w: only a moderator gives roles", ErrForbidden)
	}
	m, err := r.target(c, id)
	if err != nil {
		return Member{}, err
	}
	if m.Role == role {
		return *m, nil
	}
	m.Role = role
	if role == Listener {
		m.Speaking, m.voiceShown = false, false
	} else {
		m.Hand = nil // it has been taken
	}
	r.about(now, Changed, c.ID, m, "")
	r.setLeg(m)
	return *m, nil
}

// Hand raises the caller's hand or lowers it; a moderator lowers another's.
func (r *Room) Hand(now time.Time, c Caller, id string, raised bool) (Member, error) {
	m, err := r.target(c, id)
	if err != nil {
		return Member{}, err
	}
	if m.ID != c.ID && (raised || !r.moderates(c)) {
		return Member{}, fmt.Errorf("%w: one raises one's own hand; a moderator may lower it", ErrForbidden)
	}
	if raised == (m.Hand != nil) {
		return *m, nil
	}
	m.Hand = nil
	if raised {
		m.Hand = &now
	}
	r.about(now, Changed, c.ID, m, "")
	return *m, nil
}

// Lease limits.
const (
	MinLease = time.Second
	MaxLease = time.Minute
)

// Claim asks for the lease of a bot, renews or releases it. It returns the lease
// as it is then and what is left of it. A claim by who does not hold it is no
// error while it runs.
func (r *Room) Claim(now time.Time, bot, instance string, ttl time.Duration, release bool) (Lease, time.Duration, error) {
	if instance == "" || len(instance) > 128 {
		return Lease{}, 0, fmt.Errorf("%w: instance has 1 to 128 characters", ErrBad)
	}
	if !release && (ttl < MinLease || ttl > MaxLease) {
		return Lease{}, 0, fmt.Errorf("%w: ttl_ms is 1000 to 60000", ErrBad)
	}
	l := r.leases[bot]
	if l == nil {
		if release {
			return Lease{Bot: bot}, 0, nil
		}
		l = &Lease{Bot: bot}
		r.leases[bot] = l
	}
	held := l.Holder == instance && now.Before(l.expires)
	switch {
	case release && l.Holder == instance:
		l.Holder, l.TTL, l.expires = "", 0, time.Time{}
		r.out.Leases = append(r.out.Leases, *l)
	case release:
	case held:
		l.TTL, l.expires = ttl, now.Add(ttl)
	case l.Holder == "" || !now.Before(l.expires):
		// Also when it held the lease before: between the end of a term and now
		// it did not, and whoever compares epochs must see that.
		l.Holder, l.TTL, l.expires = instance, ttl, now.Add(ttl)
		l.Epoch++
		r.out.Leases = append(r.out.Leases, *l)
	}
	return *l, max(0, l.expires.Sub(now)), nil
}
