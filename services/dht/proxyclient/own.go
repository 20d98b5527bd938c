package proxyclient

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Quotas of what this node puts.
const (
	keyOwn      = 256
	maxOwn      = 4096
	maxOwnBytes = 32 << 20
)

// track is what values of one key and id have in common that replace each other.
type track struct {
	turn chan struct{} // held by who sends one; the rest belongs to that one
	next uint16        // sequence of the next that is signed
	seen bool          // next is later than any before
	// keepers are the proxies that were asked to keep one permanently: also one that said no
	// or nothing, for a stock proxy notes what it is to keep before it puts it.
	keepers []string
}

// asked notes that a proxy was asked for a permanent value.
func (t *track) asked(base string) {
	if !slices.Contains(t.keepers, base) {
		t.keepers = append(t.keepers[max(0, len(t.keepers)+1-maxServers):], base)
	}
}

// released notes that a proxy keeps none any more.
func (t *track) released(base string) {
	t.keepers = slices.DeleteFunc(t.keepers, func(s string) bool { return s == base })
}

// owned is what this node puts, or cancelled. wire belongs to who has the track's turn; the
// rest is guarded by the node's mu.
type owned struct {
	overlay.Value
	form      mapping.Form
	permanent bool
	gone      bool // cancelled; what says so is still to be put, or was

	track *track
	wire  *jami.Value // nil: not signed yet

	due   time.Time // when it is to be sent; zero: not again
	sent  bool      // a proxy took it
	fails int       // in a row
}

// ownValues are by key and id.
type ownValues struct {
	keys  map[overlay.Key]map[uint64]*owned
	count int // of those that are not gone
	bytes int // of theirs
	gone  int
}

func (o *ownValues) get(key overlay.Key, id uint64) *owned { return o.keys[key][id] }

func (o *ownValues) set(x *owned) {
	o.remove(x.Key, x.ID)
	if o.keys[x.Key] == nil {
		o.keys[x.Key] = map[uint64]*owned{}
	}
	o.keys[x.Key][x.ID] = x
	if x.gone {
		o.gone++
		return
	}
	o.count++
	o.bytes += len(x.Data)
}

func (o *ownValues) remove(key overlay.Key, id uint64) {
	x := o.keys[key][id]
	if x == nil {
		return
	}
	if x.gone {
		o.gone--
	} else {
		o.count--
		o.bytes -= len(x.Data)
	}
	if delete(o.keys[key], id); len(o.keys[key]) == 0 {
		delete(o.keys, key)
	}
}

// all calls fn for each, which may remove it.
func (o *ownValues) all(fn func(*owned)) {
	for _, m := range o.keys {
		for _, x := range m {
			fn(x)
		}
	}
}

// keep takes a value in, if the quotas allow it. It returns what it replaces, or nil.
func (o *ownValues) keep(v overlay.Value, permanent bool, me string, now time.Time) (x, before *owned, err error) {
	f, packed := mapping.FormOf(&v)
	if f == mapping.Signed && len(v.Data) > overlay.MaxSigned {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d when this node has to sign it", overlay.ErrTooLarge, len(v.Data), overlay.MaxSigned)
	}
	if packed != nil && v.ID == 0 {
		v.ID = packed.ID
	}
	x = &owned{form: f, permanent: permanent, track: &track{turn: make(chan struct{}, 1)}}
	for v.ID == 0 {
		var b [8]byte
		if _, err := crand.Read(b[:]); err != nil {
			return nil, nil, fmt.Errorf("value id: %w", err)
		}
		if id := binary.BigEndian.Uint64(b[:]); o.get(v.Key, id) == nil {
			v.ID, x.track.seen = id, true // nobody used it before
		}
	}
	switch f {
	case mapping.Signed:
		v.Writer = me
	case mapping.Packed: // what is read back has the type that shows
		packed.ID = v.ID
		if packed.Signed() {
			if err := packed.Verify(); err != nil {
				return nil, nil, fmt.Errorf("%w: %w", overlay.ErrRefused, err)
			}
		}
		b, err := packed.Pack()
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", overlay.ErrRefused, err)
		}
		v, x.wire = mapping.Read(v.Key, packed, b, now).Value, packed
	case mapping.Plain:
		v.Writer, x.wire = "", &jami.Value{ID: v.ID, Type: v.Type, Data: v.Data}
	}
	if clear := x.wire; clear == nil || !clear.Encrypted() {
		typ, data := v.Type, v.Data
		if clear != nil {
			typ, data = clear.Type, clear.Data
		}
		if err := mapping.Fits(jami.ID(v.Key), typ, data); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", overlay.ErrRefused, err)
		}
	}
	before = o.get(v.Key, v.ID)
	count, size, under := o.count, o.bytes+len(v.Data), 0
	for _, x := range o.keys[v.Key] {
		if !x.gone && x != before {
			under++
		}
	}
	if before != nil && !before.gone {
		count, size = count-1, size-len(before.Data)
	}
	switch {
	case under >= keyOwn:
		return nil, nil, fmt.Errorf("%w: %d values under one key", overlay.ErrQuota, keyOwn)
	case count >= maxOwn || size > maxOwnBytes:
		return nil, nil, fmt.Errorf("%w: at most %d values and %d MiB in all", overlay.ErrQuota, maxOwn, maxOwnBytes>>20)
	}
	v.Expires = now.Add(overlay.Lifetime(v.Type))
	x.Value = v
	if before != nil {
		x.track = before.track
	}
	o.set(x)
	return x, before, nil
}

// cancel marks a value of this node as gone. It returns what is to be put for that, nil
// when nothing has to be, and whether there was one.
func (o *ownValues) cancel(key overlay.Key, id uint64, now time.Time) (x *owned, had bool) {
	old := o.get(key, id)
	if old == nil || old.gone {
		return nil, false
	}
	if old.form != mapping.Signed && !old.permanent { // it ends by itself
		o.remove(key, id)
		return nil, true
	}
	if o.gone >= maxOwn {
		o.forgetGone()
	}
	x = &owned{Value: old.Value, form: old.form, gone: true, track: old.track}
	if x.form == mapping.Signed {
		x.Data = nil
	} else {
		x.wire = old.wire
	}
	x.Expires = now.Add(overlay.Lifetime(x.Type))
	o.set(x)
	return x, true
}

// forgetGone forgets the oldest of what is gone.
func (o *ownValues) forgetGone() {
	var oldest *owned
	o.all(func(x *owned) {
		if x.gone && (oldest == nil || x.Expires.Before(oldest.Expires)) {
			oldest = x
		}
	})
	if oldest != nil {
		o.remove(oldest.Key, oldest.ID)
	}
}

// putAnew makes permanent values due, and what failed.
func (o *ownValues) putAnew(now time.Time) {
	o.all(func(x *owned) {
		if x.sent && x.permanent || x.fails > 0 {
			x.due, x.fails = now, 0
		}
	})
}

// over puts what this node has under a key over what others told of it.
func (o *ownValues) over(all mapping.Set, key overlay.Key, now time.Time) {
	for _, x := range o.keys[key] {
		if x.gone && x.form != mapping.Signed || !x.permanent && !x.Expires.After(now) {
			continue
		}
		v := x.Value
		if x.permanent {
			v.Expires = now.Add(overlay.Lifetime(v.Type))
		}
		all[mapping.IDOf(&v)] = mapping.Found{Value: v, Gone: x.gone}
	}
}
