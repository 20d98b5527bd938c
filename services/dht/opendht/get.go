package opendht

import (
	"context"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// getTime bounds a get whose context has no nearer end.
const getTime = 30 * time.Second

// Get finds the values of a key.
func (n *Node) Get(ctx context.Context, key overlay.Key) ([]overlay.Value, error) {
	all := mapping.Set{}
	if _, err := n.collect(ctx, key, wire.Query{}, all.Merge); err != nil {
		return nil, err
	}
	return all.Sorted(), nil
}

// collect runs a get until it is done, true, or ctx ends. each is called with the
// node's mu held.
func (n *Node) collect(ctx context.Context, key overlay.Key, q wire.Query, each func(mapping.Found)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, getTime)
	defer cancel()
	done := make(chan struct{})
	var g *core.Get
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return false, overlay.ErrClosed
	}
	n.doLocked(func() {
		g = n.core.Get(jami.ID(key), q, func(v *core.Value) { each(mapping.Read(key, v.Value, v.Packed, time.Now())) }, func(core.Trace) { close(done) })
	})
	n.mu.Unlock()
	select {
	case <-done:
		return true, nil
	case <-n.ctx.Done():
		return false, overlay.ErrClosed
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		n.doLocked(g.Cancel)
		return false, nil
	}
}
