package opendht

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// maxWatchers bounds the listeners of a node.
const maxWatchers = 4096

// watch is one key that is listened to, for all its listeners (§3.3). All is guarded
// by the node's mu.
type watch struct {
	listen   *core.Listen
	heard    mapping.Set // what nodes tell
	asked    mapping.Set // what a get found, until nodes tell of it or it expires
	watchers map[*watcher]struct{}
}

// watcher is one listener. Its goroutine alone touches told after Listen returned.
type watcher struct {
	key     overlay.Key
	fn      func(overlay.Change)
	changed chan struct{} // something is new
	told    mapping.Told
}

// Listen finds what is there and watches from then on.
func (n *Node) Listen(ctx context.Context, key overlay.Key, fn func(overlay.Change)) ([]overlay.Value, func(), error) {
	w := &watcher{key: key, fn: fn, changed: make(chan struct{}, 1), told: mapping.Told{}}
	if err := n.addWatcher(w); err != nil {
		return nil, nil, err
	}
	all := mapping.Set{}
	if _, err := n.collect(ctx, key, wire.Query{}, all.Merge); err != nil {
		n.removeWatcher(w)
		return nil, nil, err
	}
	n.mu.Lock()
	x := n.watch[key]
	for k, f := range all {
		if _, ok := x.heard[k]; !ok {
			x.asked[k] = f
		}
	}
	now := x.valuesLocked(time.Now()).Sorted()
	for _, v := range now {
		w.told[mapping.IDOf(&v)] = v
	}
	if n.closed {
		n.mu.Unlock()
		n.removeWatcher(w)
		return nil, nil, overlay.ErrClosed
	}
	wctx, cancel := context.WithCancel(n.ctx)
	done := make(chan struct{})
	n.wg.Go(func() {
		defer close(done)
		defer n.removeWatcher(w)
		n.run(wctx, w)
	})
	n.mu.Unlock()
	var once sync.Once
	return now, func() { once.Do(cancel); <-done }, nil
}

func (n *Node) addWatcher(w *watcher) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return overlay.ErrClosed
	}
	total := 0
	for _, x := range n.watch {
		total += len(x.watchers)
	}
	if total >= maxWatchers {
		return fmt.Errorf("%w: %d listeners", overlay.ErrQuota, maxWatchers)
	}
	x := n.watch[w.key]
	if x == nil {
		x = &watch{heard: mapping.Set{}, asked: mapping.Set{}, watchers: map[*watcher]struct{}{}}
		n.watch[w.key] = x
		n.doLocked(func() {
			x.listen = n.core.Listen(jami.ID(w.key), wire.Query{}, func(v *core.Value, expired bool) { x.changeLocked(w.key, v, expired) })
		})
	}
	x.watchers[w] = struct{}{}
	return nil
}

func (n *Node) removeWatcher(w *watcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := n.watch[w.key]
	if delete(x.watchers, w); len(x.watchers) == 0 {
		delete(n.watch, w.key)
		n.doLocked(x.listen.Cancel)
	}
}

// changeLocked is called by the core.
func (x *watch) changeLocked(key overlay.Key, v *core.Value, expired bool) {
	f := mapping.Read(key, v.Value, v.Packed, time.Now())
	k := mapping.IDOf(&f.Value)
	if old, ok := x.heard[k]; ok && old.Seq > f.Seq { // the end of one that was replaced, too
		return
	}
	if a, ok := x.asked[k]; ok && a.Seq <= f.Seq {
		delete(x.asked, k)
	}
	if expired {
		delete(x.heard, k)
	} else {
		f.Expires = time.Time{} // until its end is told
		x.heard[k] = f
	}
	for w := range x.watchers {
		select {
		case w.changed <- struct{}{}:
		default: // it looks anyway
		}
	}
}

// valuesLocked returns what is there.
func (x *watch) valuesLocked(now time.Time) mapping.Set {
	out := make(mapping.Set, len(x.heard)+len(x.asked))
	for k, f := range x.asked {
		if !f.Expires.After(now) {
			delete(x.asked, k)
			continue
		}
		out[k] = f
	}
	for _, f := range x.heard {
		f.Expires = now.Add(overlay.Lifetime(f.Type))
		out.Merge(f)
	}
	return out
}

// run reports changes until ctx ends.
func (n *Node) run(ctx context.Context, w *watcher) {
	expiry := time.NewTimer(0)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-expiry.C:
		}
		now := time.Now()
		n.mu.Lock()
		x := n.watch[w.key]
		values := x.valuesLocked(now)
		next := overlay.MaxLifetime
		for _, f := range x.asked {
			next = min(next, f.Expires.Sub(now))
		}
		n.mu.Unlock()
		expiry.Reset(max(next, 0) + time.Millisecond)
		for _, c := range w.told.Diff(values) {
			if ctx.Err() != nil {
				return
			}
			w.fn(c)
		}
	}
}
