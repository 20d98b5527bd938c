package libp2p

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// A listener asks again after pollFirst, and half as often each time that nothing
// changed, down to once in pollMost.
const (
	pollFirst = 2 * time.Second
	pollMost  = 10 * time.Second
)

// maxWatchers bounds the listeners of a node.
const maxWatchers = 4096

// Bounds of one listener: the writers that it follows, the bytes of their values, and
// what it tells of at once; what is beyond waits for its place.
const (
	watchWriters = 256
	watchBytes   = 4 << 20
	watchChanges = 256
)

// watcher is one listener. Its goroutine alone touches known, bytes and seen.
type watcher struct {
	key   overlay.Key
	fn    func(overlay.Change)
	local chan struct{} // this node's own values changed
	known map[valueID]overlay.Value
	bytes int                 // of the data of known
	seen  map[peer.ID]version // the newest record of each writer: an older copy brings nothing back
}

// version tells a writer's record apart until it expires.
type version struct {
	seq     uint64
	expires time.Time
}

type valueID struct {
	writer string
	id     uint64
}

// Listen finds what is there and watches from then on.
func (n *Node) Listen(ctx context.Context, key overlay.Key, fn func(overlay.Change)) ([]overlay.Value, func(), error) {
	w := newWatcher(key, fn)
	if err := n.addWatcher(w); err != nil {
		return nil, nil, err
	}
	recs, err := n.search(ctx, key)
	if err != nil {
		n.removeWatcher(w)
		return nil, nil, err
	}
	var now []overlay.Value
	for _, c := range w.diff(n.ownValues(key, time.Now()), n.host.ID(), recs, time.Now()) {
		now = append(now, c.Value)
	}
	sortValues(now)
	wctx, cancel := context.WithCancel(n.ctx)
	done := make(chan struct{})
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		cancel()
		return nil, nil, overlay.ErrClosed
	}
	n.wg.Go(func() {
		defer close(done)
		defer n.removeWatcher(w)
		n.watchKey(wctx, w)
	})
	n.mu.Unlock()
	var once sync.Once
	return now, func() { once.Do(cancel); <-done }, nil
}

func newWatcher(key overlay.Key, fn func(overlay.Change)) *watcher {
	return &watcher{key: key, fn: fn, local: make(chan struct{}, 1), known: map[valueID]overlay.Value{}, seen: map[peer.ID]version{}}
}

func (n *Node) addWatcher(w *watcher) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return overlay.ErrClosed
	}
	total := 0
	for _, set := range n.watch {
		total += len(set)
	}
	if total >= maxWatchers {
		return overlay.ErrQuota
	}
	if n.watch[w.key] == nil {
		n.watch[w.key] = map[*watcher]struct{}{}
	}
	n.watch[w.key][w] = struct{}{}
	return nil
}

func (n *Node) removeWatcher(w *watcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if delete(n.watch[w.key], w); len(n.watch[w.key]) == 0 {
		delete(n.watch, w.key)
	}
}

// tell wakes the listeners of a key that this node wrote.
func (n *Node) tell(key overlay.Key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.watch[key] {
		select {
		case w.local <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// watchKey reports changes until ctx ends.
func (n *Node) watchKey(ctx context.Context, w *watcher) {
	wait := pollFirst
	poll, expiry := time.NewTimer(wait), time.NewTimer(w.untilExpiry(time.Now()))
	defer poll.Stop()
	defer expiry.Stop()
	for {
		var recs map[peer.ID]*record
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-w.local:
		case <-expiry.C:
		case <-poll.C:
			asked = true
			var err error
			if recs, err = n.search(ctx, w.key); err != nil || ctx.Err() != nil {
				return // closed
			}
		}
		now := time.Now()
		changes := w.diff(n.ownValues(w.key, now), n.host.ID(), recs, now)
		for _, c := range changes {
			w.fn(c)
		}
		if asked {
			if wait = min(2*wait, pollMost); len(changes) > 0 {
				wait = pollFirst
			}
			poll.Reset(wait)
		}
		expiry.Reset(w.untilExpiry(now))
	}
}

// untilExpiry is how long the value that ends first has left.
func (w *watcher) untilExpiry(now time.Time) time.Duration {
	d := overlay.MaxLifetime
	for _, v := range w.known {
		d = min(d, v.Expires.Sub(now))
	}
	return max(d, 0) + time.Millisecond
}

// diff takes in what was found and returns what changed, at most watchChanges of it:
// the rest is found again by the next poll. own is all of this node's; recs holds
// other writers that were reached now, and a writer that was not keeps its values
// until they expire.
func (w *watcher) diff(own []overlay.Value, self peer.ID, recs map[peer.ID]*record, now time.Time) []overlay.Change {
	var out []overlay.Change
	drop := func(id valueID, v overlay.Value) {
		if len(out) < watchChanges {
			delete(w.known, id)
			w.bytes -= len(v.Data)
			out = append(out, overlay.Change{Value: v, Expired: true})
		}
	}
	take := func(writer string, vs []overlay.Value) {
		there := make(map[uint64]bool, len(vs))
		for _, v := range vs {
			there[v.ID] = true
			id := valueID{writer, v.ID}
			old, ok := w.known[id]
			if same := ok && old.Type == v.Type && bytes.Equal(old.Data, v.Data); !same {
				if len(out) == watchChanges || w.bytes-len(old.Data)+len(v.Data) > watchBytes {
					continue
				}
				out = append(out, overlay.Change{Value: v})
			}
			w.bytes += len(v.Data) - len(old.Data)
			w.known[id] = v
		}
		for id, v := range w.known {
			if id.writer == writer && !there[id.id] {
				drop(id, v)
			}
		}
	}
	for p, s := range w.seen {
		if !s.expires.After(now) {
			delete(w.seen, p)
		}
	}
	if _, fromPeers := recs[self]; !fromPeers {
		take(self.String(), own)
	}
	for p, r := range recs {
		last, again := w.seen[p]
		if again && r.seq < last.seq || !again && len(w.seen) >= watchWriters {
			continue
		}
		w.seen[p] = version{r.seq, r.expires}
		take(p.String(), r.live(now))
	}
	for id, v := range w.known {
		if !v.Expires.After(now) {
			drop(id, v)
		}
	}
	return out
}
