// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/parley-jami/parley/services/conference/room"
)

// record is one line of a room's journal; one field is set.
type record struct {
	Snapshot *room.Snapshot `json:"snapshot,omitempty"`
	Event    *room.Event    `json:"event,omitempty"`
	Lease    *room.Lease    `json:"lease,omitempty"`
	Epoch    uint64         `json:"epoch,omitempty"`
}

// rewriteFrom is the size in bytes from which a journal is written anew as a
// snapshot; beyond, it may grow to four times what the last snapshot took, so that
// the cost of a join does not depend on how many are in.
const rewriteFrom = 1 << 20

// replayRecord takes a record of the journal into the room.
func (l *live) replayRecord(b []byte) error {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	switch {
	case r.Snapshot != nil:
		l.r.Restore(*r.Snapshot)
		l.recent = l.recent[:0]
	case r.Event != nil:
		l.r.Apply(*r.Event)
		l.remember(*r.Event)
	case r.Lease != nil:
		l.r.ApplyLease(*r.Lease)
	case r.Epoch != 0:
		l.r.SetEpoch(r.Epoch)
	default:
		return errors.New("an empty record")
	}
	return nil
}

// write puts what happened into the journal. It returns the mark to sync.
func (l *live) write(o *room.Outcome) (uint64, error) {
	recs := make([][]byte, 0, len(o.Events)+len(o.Leases))
	add := func(r record) error {
		b, err := json.Marshal(r)
		if err == nil {
			recs = append(recs, b)
		}
		return err
	}
	for i := range o.Events {
		if err := add(record{Event: &o.Events[i]}); err != nil {
			return 0, fmt.Errorf("room %s: %w", l.name, err)
		}
	}
	for i := range o.Leases {
		if err := add(record{Lease: &o.Leases[i]}); err != nil {
			return 0, fmt.Errorf("room %s: %w", l.name, err)
		}
	}
	if len(recs) == 0 {
		return l.mark, nil
	}
	if l.stale { // something is missing in the file: only a snapshot mends it
		return 0, l.rewrite()
	}
	mark, err := l.j.Append(recs...)
	if err != nil {
		l.stale = true
		return 0, err
	}
	l.mark = mark
	return mark, nil
}

// writeEpoch notes the new life of the actor.
func (l *live) writeEpoch() error {
	b, err := json.Marshal(record{Epoch: l.r.Epoch()})
	if err == nil {
		l.mark, err = l.j.Append(b)
	}
	if err != nil {
		l.stale = true
		return fmt.Errorf("room %s: %w", l.name, err)
	}
	return nil
}

// rewrite replaces the journal by a snapshot and the events that are still of
// use.
func (l *live) rewrite() error {
	s := l.r.Snapshot()
	recs := make([][]byte, 0, len(l.recent)+1)
	b, err := json.Marshal(record{Snapshot: &s})
	if err != nil {
		return fmt.Errorf("room %s: %w", l.name, err)
	}
	recs = append(recs, b)
	for i := range l.recent {
		if b, err = json.Marshal(record{Event: &l.recent[i]}); err != nil {
			return fmt.Errorf("room %s: %w", l.name, err)
		}
		recs = append(recs, b)
	}
	if err := l.j.Rewrite(recs...); err != nil {
		return err
	}
	l.base, l.stale = l.j.Size(), false
	return nil
}

// rewriteIfLong keeps the journal's length in bounds.
func (l *live) rewriteIfLong() error {
	if size := l.j.Size(); l.stale || size > rewriteFrom && size > 4*l.base {
		return l.rewrite()
	}
	return nil
}
