package libp2p

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// maxWriters bounds the writers of one key that are read, atOnce how many at the
// same time.
const (
	maxWriters = 64
	atOnce     = 8
)

// searchTime bounds a get whose context has no nearer deadline.
const searchTime = 10 * time.Second

// Get finds the values of a key.
func (n *Node) Get(ctx context.Context, key overlay.Key) ([]overlay.Value, error) {
	recs, err := n.search(ctx, key)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	out := n.ownValues(key, now)
	for _, r := range recs {
		out = append(out, r.live(now)...)
	}
	sortValues(out)
	return out, nil
}

// sortValues orders by writer and id, so that answers are stable.
func sortValues(vs []overlay.Value) {
	slices.SortFunc(vs, func(a, b overlay.Value) int {
		switch {
		case a.Writer != b.Writer:
			if a.Writer < b.Writer {
				return -1
			}
			return 1
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
}

// writes reports whether this process put something under the key.
func (n *Node) writes(key overlay.Key) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.own[key] != nil
}

// search returns the newest record of each other writer that is found until ctx
// ends. Finding fewer than there are is not an error: a node that has no peers finds what
// this one keeps for others.
func (n *Node) search(ctx context.Context, key overlay.Key) (map[peer.ID]*record, error) {
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return nil, overlay.ErrClosed
	}
	c, err := provideCID(key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		recs = map[peer.ID]*record{}
		slot = make(chan struct{}, atOnce)
	)
	for p := range n.kad.FindProvidersAsync(ctx, c, maxWriters) {
		if p.ID == n.host.ID() && n.writes(key) {
			continue // else it is from before a restart
		}
		slot <- struct{}{} // freed when a read ends, which ctx bounds
		wg.Go(func() {
			defer func() { <-slot }()
			name := recordKey(key, p.ID)
			// A peer that does not answer makes this an error when the time is up; what
			// others answered is there all the same.
			b, err := n.kad.GetValue(ctx, name)
			if len(b) == 0 {
				n.log.Debug("record not found", zap.Stringer("writer", p.ID), zap.Error(err))
				return
			}
			r, err := parseRecord(name, b)
			if err != nil || r.fresh(time.Now()) != nil {
				return
			}
			mu.Lock()
			recs[p.ID] = r
			mu.Unlock()
		})
	}
	wg.Wait()
	return recs, nil
}
