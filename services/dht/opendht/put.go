package opendht

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Quotas of what this node puts itself.
const (
	keyOwn      = 256
	maxOwn      = 4096
	maxOwnBytes = 32 << 20
)

// Times that a put waits for: what it replaces, and the nodes, when its context has
// no nearer end.
const (
	seqTime = 2 * time.Second
	putTime = 30 * time.Second
)

// freshSeqs is from how many sequences the first of a value is drawn when nobody can be
// asked which one was the last: a lower one than the last is told and mended, the same
// one with other data would not be.
const freshSeqs = 1024

type ownKey struct {
	key overlay.Key
	id  uint64 // of the overlay
}

// owned is what this node puts. All is guarded by the node's mu.
type owned struct {
	overlay.Value
	form      mapping.Form
	permanent bool
	seq       uint16
	put       *core.Put
}

// Put stores a value at this node and the closest ones.
func (n *Node) Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, putTime)
	defer cancel()
	return n.put(ctx, v, permanent, true)
}

// Restore takes in permanent values of a process before this one.
func (n *Node) Restore(vs []overlay.Value) error {
	var errs []error
	for _, v := range vs {
		if _, err := n.put(n.ctx, v, true, false); err != nil {
			errs = append(errs, fmt.Errorf("value %d: %w", v.ID, err))
		}
	}
	return errors.Join(errs...)
}

// put stores a value, and, when wait is set, waits for the nodes.
func (n *Node) put(ctx context.Context, v overlay.Value, permanent, wait bool) (overlay.Stored, error) {
	if len(v.Data) > overlay.MaxValue {
		return overlay.Stored{}, fmt.Errorf("%w: %d bytes, at most %d", overlay.ErrTooLarge, len(v.Data), overlay.MaxValue)
	}
	v.Data = slices.Clone(v.Data)
	x, before, err := n.keep(v, permanent)
	if err != nil {
		return overlay.Stored{}, err
	}
	drop := func(err error) (overlay.Stored, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.undoLocked(x, before)
		return overlay.Stored{}, err
	}
	if x.form == mapping.Signed && before == nil && v.ID != 0 && wait {
		n.lastSeq(ctx, x)
	}
	cv, err := n.pack(x)
	if err != nil {
		return drop(err)
	}
	done := make(chan int, 1)
	if err := n.hand(x, before, cv, func(nodes int) { done <- nodes }); err != nil {
		return drop(err)
	}
	out := overlay.Stored{Value: x.Value}
	if !wait {
		return out, nil
	}
	select {
	case out.Peers = <-done:
	case <-n.ctx.Done():
		return overlay.Stored{}, overlay.ErrClosed
	case <-ctx.Done():
		if err := ctx.Err(); errors.Is(err, context.Canceled) {
			return drop(fmt.Errorf("put: %w", err))
		}
	}
	return out, nil
}

// keep takes a value into what this node puts, if the quotas allow it. It returns what
// it replaces, or nil.
func (n *Node) keep(v overlay.Value, permanent bool) (x, before *owned, err error) {
	f, packed := mapping.FormOf(&v)
	if f == mapping.Signed && len(v.Data) > overlay.MaxSigned {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d when this node has to sign it", overlay.ErrTooLarge, len(v.Data), overlay.MaxSigned)
	}
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, overlay.ErrClosed
	}
	if packed != nil && v.ID == 0 {
		v.ID = packed.ID
	}
	for v.ID == 0 {
		var b [8]byte
		if _, err := crand.Read(b[:]); err != nil {
			return nil, nil, fmt.Errorf("value id: %w", err)
		}
		if id := binary.BigEndian.Uint64(b[:]); n.own[ownKey{v.Key, id}] == nil {
			v.ID = id
		}
	}
	n.purgeLocked(now)
	k := ownKey{v.Key, v.ID}
	before = n.own[k]
	under, total, size := 0, len(n.own), n.bytes+len(v.Data)
	for o := range n.own {
		if o.key == v.Key && o != k {
			under++
		}
	}
	if before != nil {
		total, size = total-1, size-len(before.Data)
	}
	switch {
	case under >= keyOwn:
		return nil, nil, fmt.Errorf("%w: %d values under one key", overlay.ErrQuota, keyOwn)
	case total >= maxOwn || size > maxOwnBytes:
		return nil, nil, fmt.Errorf("%w: at most %d values and %d MiB in all", overlay.ErrQuota, maxOwn, maxOwnBytes>>20)
	}
	switch f {
	case mapping.Signed:
		v.Writer = n.id.ID.String()
	case mapping.Packed: // what is read back has the type that shows
		v.Type, v.Writer = packed.Type, ""
		if packed.Signed() {
			v.Writer = packed.Signer().String()
		}
	case mapping.Plain:
		v.Writer = ""
	}
	v.Expires = now.Add(overlay.Lifetime(v.Type))
	x = &owned{Value: v, form: f, permanent: permanent}
	if before != nil && before.form == f {
		x.seq = before.seq + 1
	} else if f == mapping.Signed {
		x.seq = rand.N[uint16](freshSeqs)
	}
	n.own[k] = x
	n.bytes = size
	return x, before, nil
}

// undoLocked takes a keep back, unless something else was kept since.
func (n *Node) undoLocked(x, before *owned) {
	k := ownKey{x.Key, x.ID}
	if n.own[k] != x {
		return
	}
	n.removeLocked(k)
	if before != nil {
		n.own[k] = before
		n.bytes += len(before.Data)
	}
	if x.put != nil {
		n.doLocked(x.put.Cancel)
	}
}

func (n *Node) removeLocked(k ownKey) {
	n.bytes -= len(n.own[k].Data)
	delete(n.own, k)
}

// purgeLocked forgets own values that have ended.
func (n *Node) purgeLocked(now time.Time) {
	for k, x := range n.own {
		if !x.permanent && !x.Expires.After(now) {
			n.removeLocked(k)
		}
	}
}

// lastSeq asks for the sequence of what a value replaces (§1.7); the wait is short, for
// one that is too low is told later.
func (n *Node) lastSeq(ctx context.Context, x *owned) {
	ctx, cancel := context.WithTimeout(ctx, seqTime)
	defer cancel()
	q := wire.Query{}.Filtered(wire.Condition{Field: wire.FieldID, Num: mapping.WireID(n.id.ID, x.ID)})
	last, any := uint16(0), false
	done, err := n.collect(ctx, x.Key, q, func(f mapping.Found) {
		if f.Writer == n.id.ID.String() && f.ID == x.ID {
			last, any = max(last, f.Seq), true
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil || !done && !any {
		return
	}
	switch {
	case any:
		x.seq = last + 1
	case n.core.Counts().Good > 0:
		x.seq = 0
	}
}

// signed makes a value of the form [mapping.Signed].
func (n *Node) signed(v *overlay.Value, seq uint16, gone bool) (*core.Value, error) {
	x, err := n.id.Sign(v, seq, gone)
	if err != nil {
		return nil, err
	}
	return core.NewValue(x)
}

// pack makes the value as it is on the wire.
func (n *Node) pack(x *owned) (*core.Value, error) {
	n.mu.Lock()
	v, seq := x.Value, x.seq
	n.mu.Unlock()
	switch x.form {
	case mapping.Signed:
		return n.signed(&v, seq, false)
	case mapping.Plain:
		return core.NewValue(&jami.Value{ID: v.ID, Type: v.Type, Data: v.Data})
	}
	p, err := jami.ParseValue(v.Data)
	if err != nil {
		return nil, fmt.Errorf("put: %w", err)
	}
	p.ID = v.ID
	if p.Signed() {
		if err := p.Verify(); err != nil {
			return nil, fmt.Errorf("%w: %w", overlay.ErrRefused, err)
		}
	}
	return core.NewValue(p)
}

// hand gives a value to the core, in place of what it replaces.
func (n *Node) hand(x, before *owned, cv *core.Value, done func(int)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return overlay.ErrClosed
	}
	if n.own[ownKey{x.Key, x.ID}] != x { // a put after this one is in its place
		done(0)
		return nil
	}
	var err error
	n.doLocked(func() {
		var old *core.Put
		if before != nil {
			old = before.put
		}
		o := core.PutOptions{Permanent: x.permanent, Done: done, Stale: func(seq uint16) { n.stale(x, seq) }}
		x.put, err = n.core.Put(jami.ID(x.Key), cv, o)
		if err == nil && old != nil {
			old.Cancel()
		}
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, core.ErrRefused) && x.form == mapping.Packed && cv.Signed():
		return fmt.Errorf("%w: %w; choose another id, or, where the same key signed that one, sign with a higher sequence than it has (--seq)", overlay.ErrRefused, err)
	case errors.Is(err, core.ErrRefused):
		return fmt.Errorf("%w: %w; choose another id", overlay.ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", overlay.ErrRefused, err)
}

// stale is called by the core when a node has a later sequence of an own value, from a
// process before this one: it is put again with one that is later still.
func (n *Node) stale(x *owned, seq uint16) {
	if n.closed || x.form != mapping.Signed || seq < x.seq || seq == math.MaxUint16 || n.own[ownKey{x.Key, x.ID}] != x {
		return
	}
	x.seq = seq + 1
	n.wg.Go(func() {
		cv, err := n.pack(x)
		if err == nil {
			err = n.hand(x, x, cv, func(int) {})
		}
		if err != nil && !errors.Is(err, overlay.ErrClosed) {
			n.log.Warn("value not put again with a later sequence", zap.Error(err))
		}
	})
}

// Cancel ends a value that this node put. One that this node signed is replaced by one
// that says so; others end with their lifetime where they are.
func (n *Node) Cancel(ctx context.Context, key overlay.Key, id uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, putTime)
	defer cancel()
	k := ownKey{key, id}
	n.mu.Lock()
	n.purgeLocked(time.Now())
	x := n.own[k]
	if x == nil || n.closed {
		n.mu.Unlock()
		return false
	}
	n.removeLocked(k)
	v, seq := x.Value, x.seq+1
	if x.put != nil {
		n.doLocked(x.put.Cancel)
	}
	n.mu.Unlock()
	if x.form != mapping.Signed {
		return true
	}
	cv, err := n.signed(&v, seq, true)
	if err != nil {
		n.log.Warn("cancelled value stays with others until it expires", zap.Error(err))
		return true
	}
	done := make(chan int, 1)
	n.mu.Lock()
	if n.own[k] == nil && !n.closed { // not put again meanwhile
		n.doLocked(func() {
			_, err = n.core.Put(jami.ID(key), cv, core.PutOptions{Done: func(nodes int) { done <- nodes }})
		})
	} else {
		done <- 0
	}
	n.mu.Unlock()
	if err != nil {
		n.log.Warn("cancelled value stays with others until it expires", zap.Error(err))
		return true
	}
	select {
	case <-done:
	case <-ctx.Done():
	case <-n.ctx.Done():
	}
	return true
}
