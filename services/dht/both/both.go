// Package both makes one overlay of two: what is put goes into each, and what is found
// in either is found.
package both

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// Overlay is two overlays as one. A value that is in both is one value; its writer is
// the one that the first names. A value counts as stored when one of them took it; that
// the other did not is logged.
type Overlay struct {
	a, b overlay.Overlay
	log  *zap.Logger
}

var _ overlay.Overlay = (*Overlay)(nil)

// New joins two overlays, which it closes with itself.
func New(a, b overlay.Overlay, log *zap.Logger) *Overlay { return &Overlay{a, b, log} }

// each calls fn for both at once.
func (o *Overlay) each(fn func(i int, x overlay.Overlay)) {
	var wg sync.WaitGroup
	wg.Go(func() { fn(0, o.a) })
	wg.Go(func() { fn(1, o.b) })
	wg.Wait()
}

// Put stores a value in both.
func (o *Overlay) Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	if v.ID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return overlay.Stored{}, fmt.Errorf("value id: %w", err)
		}
		v.ID = max(binary.BigEndian.Uint64(b[:]), 1)
	}
	var st [2]overlay.Stored
	var errs [2]error
	o.each(func(i int, x overlay.Overlay) { st[i], errs[i] = x.Put(ctx, v, permanent) })
	if errs[0] != nil && errs[1] != nil {
		return overlay.Stored{}, errs[0]
	}
	for i, err := range errs {
		if err != nil {
			o.log.Warn("value not stored in one of two overlays", zap.String("overlay", o.at(i).Node().Overlay), zap.Error(err))
			return st[1-i], nil
		}
	}
	st[0].Peers += st[1].Peers
	return st[0], nil
}

func (o *Overlay) at(i int) overlay.Overlay { return [2]overlay.Overlay{o.a, o.b}[i] }

// Restore takes permanent values into both.
func (o *Overlay) Restore(vs []overlay.Value) error {
	return errors.Join(o.a.Restore(vs), o.b.Restore(vs))
}

// Cancel removes a value from both.
func (o *Overlay) Cancel(ctx context.Context, key overlay.Key, id uint64) bool {
	var had [2]bool
	o.each(func(i int, x overlay.Overlay) { had[i] = x.Cancel(ctx, key, id) })
	return had[0] || had[1]
}

// Get finds the values of a key in both. It fails only when both do.
func (o *Overlay) Get(ctx context.Context, key overlay.Key) ([]overlay.Value, error) {
	var vs [2][]overlay.Value
	var errs [2]error
	o.each(func(i int, x overlay.Overlay) { vs[i], errs[i] = x.Get(ctx, key) })
	if errs[0] != nil && errs[1] != nil {
		return nil, errs[0]
	}
	return merge(vs), nil
}

// Find tells of what either finds, once. It fails only when both do.
func (o *Overlay) Find(ctx context.Context, key overlay.Key, fn func(overlay.Value)) error {
	var mu sync.Mutex
	seen := map[valueKey]bool{}
	var errs [2]error
	o.each(func(i int, x overlay.Overlay) {
		errs[i] = overlay.Find(ctx, x, key, func(v overlay.Value) {
			mu.Lock()
			defer mu.Unlock()
			if k := keyOf(v); !seen[k] {
				seen[k] = true
				fn(v)
			}
		})
	})
	if errs[0] != nil && errs[1] != nil {
		return errs[0]
	}
	return nil
}

// valueKey tells values of one key apart.
type valueKey struct {
	id  uint64
	typ uint16
	sum [sha256.Size]byte
}

func keyOf(v overlay.Value) valueKey { return valueKey{v.ID, v.Type, sha256.Sum256(v.Data)} }

func merge(vs [2][]overlay.Value) []overlay.Value {
	var out []overlay.Value
	seen := map[valueKey]bool{}
	for _, side := range vs {
		for _, v := range side {
			if k := keyOf(v); !seen[k] {
				seen[k] = true
				out = append(out, v)
			}
		}
	}
	return out
}

// Listen watches in both: a value appears when the first tells of it and ends when the
// last does.
func (o *Overlay) Listen(ctx context.Context, key overlay.Key, fn func(overlay.Change)) ([]overlay.Value, func(), error) {
	var (
		mu    sync.Mutex // also keeps changes until both have begun
		ended bool
		in    = map[valueKey][2]bool{}
	)
	told := func(i int) func(overlay.Change) {
		return func(c overlay.Change) {
			mu.Lock()
			defer mu.Unlock()
			if ended {
				return
			}
			k := keyOf(c.Value)
			x := in[k]
			before := x[0] || x[1]
			x[i] = !c.Expired
			if in[k] = x; x == [2]bool{} {
				delete(in, k)
			}
			if after := x[0] || x[1]; after != before {
				fn(c)
			}
		}
	}
	mu.Lock()
	var vs [2][]overlay.Value
	var stops [2]func()
	var errs [2]error
	o.each(func(i int, x overlay.Overlay) { vs[i], stops[i], errs[i] = x.Listen(ctx, key, told(i)) })
	for i, side := range vs {
		for _, v := range side {
			x := in[keyOf(v)]
			x[i] = true
			in[keyOf(v)] = x
		}
	}
	err := errors.Join(errs[:]...)
	ended = err != nil
	mu.Unlock()
	stop := func() {
		for _, s := range stops {
			if s != nil {
				s()
			}
		}
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return merge(vs), stop, nil
}

// Node describes both, under the id of the first.
func (o *Overlay) Node() overlay.Node {
	a, b := o.a.Node(), o.b.Node()
	public := append(a.Public, b.Public...)
	slices.SortFunc(public, netip.Addr.Compare)
	return overlay.Node{Overlay: a.Overlay + "+" + b.Overlay, ID: a.ID, Addresses: append(a.Addresses, b.Addresses...), Public: slices.Compact(public),
		Peers: a.Peers + b.Peers, Stored: max(a.Stored, b.Stored)}
}

// Close closes both.
func (o *Overlay) Close() error { return errors.Join(o.a.Close(), o.b.Close()) }
