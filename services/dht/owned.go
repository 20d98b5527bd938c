package dht

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// owned notes what the node puts for itself, so that a client of its proxy can't put
// something in the place of it: in some overlays one writer has one value of an id.
type owned struct {
	overlay.Overlay

	mu  sync.Mutex
	ids map[ownID]time.Time // until when; zero: permanent
}

type ownID struct {
	key overlay.Key
	id  uint64
}

func newOwned(o overlay.Overlay) *owned { return &owned{Overlay: o, ids: map[ownID]time.Time{}} }

// Put stores a value of the node.
func (o *owned) Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	st, err := o.Overlay.Put(ctx, v, permanent)
	if err != nil {
		return st, err
	}
	until := st.Value.Expires
	if permanent {
		until = time.Time{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for k, at := range o.ids {
		if !at.IsZero() && at.Before(now) {
			delete(o.ids, k)
		}
	}
	o.ids[ownID{v.Key, st.Value.ID}] = until
	return st, nil
}

// Restore takes in values of the node.
func (o *owned) Restore(vs []overlay.Value) error {
	o.mu.Lock()
	for _, v := range vs {
		o.ids[ownID{v.Key, v.ID}] = time.Time{}
	}
	o.mu.Unlock()
	return o.Overlay.Restore(vs)
}

// Cancel ends a value of the node.
func (o *owned) Cancel(ctx context.Context, key overlay.Key, id uint64) bool {
	o.mu.Lock()
	delete(o.ids, ownID{key, id})
	o.mu.Unlock()
	return o.Overlay.Cancel(ctx, key, id)
}

func (o *owned) has(key overlay.Key, id uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	until, ok := o.ids[ownID{key, id}]
	return ok && (until.IsZero() || until.After(time.Now()))
}

// clients is the overlay for the proxy's clients.
type clients struct{ *owned }

// Put stores a value of a client.
func (c clients) Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	if c.has(v.Key, v.ID) {
		return overlay.Stored{}, fmt.Errorf("%w: the node itself has a value of this id under this key; choose another id", overlay.ErrRefused)
	}
	return c.Overlay.Put(ctx, v, permanent)
}

// Restore takes in values of clients.
func (c clients) Restore(vs []overlay.Value) error { return c.Overlay.Restore(vs) }

// Cancel ends a value of a client.
func (c clients) Cancel(ctx context.Context, key overlay.Key, id uint64) bool {
	return !c.has(key, id) && c.Overlay.Cancel(ctx, key, id)
}

// Find tells of values as they are found.
func (c clients) Find(ctx context.Context, key overlay.Key, fn func(overlay.Value)) error {
	return overlay.Find(ctx, c.Overlay, key, fn)
}
