package jami

import (
	"bytes"
	"cmp"
	"maps"
	"strings"
)

// Active reports whether the contact was added and not removed since.
func (c Contact) Active() bool { return c.Added > c.Removed }

// Blocked reports whether the contact is banned, which counts where it is not active.
func (c Contact) Blocked() bool { return c.Banned && !c.Active() }

// Merge returns what two devices know of a contact together (§3.8): the later addition
// brings its conversation, the later removal whether it is a ban, and one confirmation
// is enough. Where both name the same time the greater value wins, so that the order in
// which devices tell does not matter; stock keeps what it has then.
func (c Contact) Merge(o Contact) Contact {
	if cmp.Or(cmp.Compare(o.Added, c.Added), strings.Compare(o.ConversationID, c.ConversationID)) > 0 {
		c.Added, c.ConversationID = o.Added, o.ConversationID
	}
	switch {
	case o.Removed > c.Removed:
		c.Removed, c.Banned = o.Removed, o.Banned
	case o.Removed == c.Removed:
		c.Banned = c.Banned || o.Banned
	}
	c.Confirmed = c.Confirmed || o.Confirmed
	return c
}

// Merge returns the request that came first (§3.8). Of two of the same second the one
// with a payload wins, which those of other devices lack, then the greater values.
func (r PendingRequest) Merge(o PendingRequest) PendingRequest {
	if cmp.Or(
		cmp.Compare(o.Received, r.Received),
		-cmp.Compare(len(o.Payload), len(r.Payload)),
		-bytes.Compare(o.Payload, r.Payload),
		-strings.Compare(o.ConversationID, r.ConversationID),
		-bytes.Compare(o.Device, r.Device),
	) < 0 {
		return o
	}
	return r
}

// AccountState is what the devices of an account agree on.
type AccountState struct {
	Devices  map[LongID]DeviceName
	Contacts map[ID]Contact
	Requests map[ID]PendingRequest // answered ones too: see Pending
}

// DeviceName is how a device is called, and by whom.
type DeviceName struct {
	Name  string
	Short ID
	// Own is set where the device itself says so, which goes before what others heard.
	Own bool
	// At is the Date of the [DeviceSync] that says so.
	At uint64
}

// merge takes the better name, and the short id from whoever knows it.
func (n DeviceName) merge(o DeviceName) DeviceName {
	short := n.Short
	if bytes.Compare(o.Short[:], short[:]) > 0 { // one is zero, or one lies
		short = o.Short
	}
	if cmp.Or(
		compareBool(o.Name != "", n.Name != ""),
		compareBool(o.Own, n.Own),
		cmp.Compare(o.At, n.At),
		strings.Compare(o.Name, n.Name),
	) > 0 {
		n = o
	}
	n.Short = short
	return n
}

// State returns what a message of the device from says (§3.9).
func (s *DeviceSync) State(from LongID) AccountState {
	st := AccountState{Contacts: s.Peers, Requests: s.Requests, Devices: make(map[LongID]DeviceName, len(s.Devices))}
	for id, d := range s.Devices {
		st.Devices[id] = DeviceName{Name: d.Name, Short: d.Short, Own: id == from, At: s.Date}
	}
	return st
}

// Merge returns what both states say. It is commutative, associative and idempotent:
// devices that told each other everything, in any order and any number of times, agree.
// Neither state is changed.
func (a AccountState) Merge(b AccountState) AccountState {
	return AccountState{
		Devices:  merged(a.Devices, b.Devices, DeviceName.merge),
		Contacts: merged(a.Contacts, b.Contacts, Contact.Merge),
		Requests: merged(a.Requests, b.Requests, PendingRequest.Merge),
	}
}

// Pending returns the requests that wait for an answer: not those of contacts, nor of
// who is blocked, nor what came no later than a removal, which is how one is declined.
func (a AccountState) Pending() map[ID]PendingRequest {
	out := make(map[ID]PendingRequest, len(a.Requests))
	for id, r := range a.Requests {
		c, known := a.Contacts[id]
		if !known || !c.Active() && !c.Banned && c.Removed < r.Received {
			out[id] = r
		}
	}
	return out
}

func merged[K comparable, V any](a, b map[K]V, merge func(V, V) V) map[K]V {
	out := make(map[K]V, max(len(a), len(b)))
	maps.Copy(out, a)
	for k, v := range b {
		if have, ok := out[k]; ok {
			v = merge(have, v)
		}
		out[k] = v
	}
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
