package proxyclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Bounds of listeners; each key has a connection.
const (
	maxWatchers = 4096
	maxWatched  = 1024
)

// Times of a listener: between two attempts to connect, doubling; after which a
// connection counts as one that held; between two looks at what is there, and until the
// second when the first missed something.
const (
	connectFirst = 500 * time.Millisecond
	connectLast  = time.Minute
	connectHeld  = time.Minute
	pollEvery    = 2 * time.Minute
	pollSoon     = 3 * time.Second
)

// pollMisses is how often in a row a value has to be missing to have ended.
const pollMisses = 2

// known is what is known of one value.
type known struct {
	heard
	seen   time.Time // last
	conn   int       // that told of it, 0: none did
	missed int       // looks in a row that did not find it
}

// watch is one key that is listened to, for all its listeners. All but key, cancel and
// done is guarded by the node's mu.
type watch struct {
	key    overlay.Key
	cancel context.CancelFunc // ends its connection
	done   chan struct{}      // it has ended

	conn     int // number of the connection
	values   map[mapping.ValueID]*known
	bytes    int
	ended    map[mapping.ValueID]time.Time // when a connection told of the end
	watchers map[*watcher]struct{}
}

// watcher is one listener. Its goroutine alone touches told after Listen returned.
type watcher struct {
	key     overlay.Key
	fn      func(overlay.Change)
	changed chan struct{} // something is new
	told    mapping.Told
}

// Listen finds what is there and watches from then on. While no proxy answers, what this
// node put is there.
func (n *Node) Listen(ctx context.Context, key overlay.Key, fn func(overlay.Change)) ([]overlay.Value, func(), error) {
	leave, err := n.enter()
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	w := &watcher{key: key, fn: fn, changed: make(chan struct{}, 1), told: mapping.Told{}}
	x, err := n.addWatcher(w)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := n.during(ctx, getTime)
	defer cancel()
	err = n.try(ctx, func(ctx context.Context, base string) error {
		_, err := n.take(ctx, base, x)
		return err
	})
	if err != nil {
		n.log.Debug("listening without knowing what is there", zap.Error(err))
	}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		n.removeWatcher(w)
		return nil, nil, overlay.ErrClosed
	}
	values, _ := x.valuesLocked(&n.own, time.Now())
	now := values.Sorted()
	for _, v := range now {
		w.told[mapping.IDOf(&v)] = v
	}
	wctx, stop := context.WithCancel(n.ctx)
	done := make(chan struct{})
	n.wg.Go(func() {
		defer close(done)
		defer n.removeWatcher(w)
		n.run(wctx, w, x)
	})
	n.mu.Unlock()
	var once sync.Once
	return now, func() { once.Do(stop); <-done }, nil
}

func (n *Node) addWatcher(w *watcher) (*watch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	total := 0
	for _, x := range n.watch {
		total += len(x.watchers)
	}
	x := n.watch[w.key]
	if total >= maxWatchers || x == nil && len(n.watch) >= maxWatched {
		return nil, fmt.Errorf("%w: %d listeners at %d keys", overlay.ErrQuota, maxWatchers, maxWatched)
	}
	if x == nil {
		x = &watch{key: w.key, done: make(chan struct{}), values: map[mapping.ValueID]*known{}, ended: map[mapping.ValueID]time.Time{},
			watchers: map[*watcher]struct{}{}}
		n.watch[w.key] = x
		var ctx context.Context
		ctx, x.cancel = context.WithCancel(n.ctx)
		n.wg.Go(func() {
			defer close(x.done)
			n.follow(ctx, x)
		})
	}
	x.watchers[w] = struct{}{}
	return x, nil
}

func (n *Node) removeWatcher(w *watcher) {
	n.mu.Lock()
	x := n.watch[w.key]
	delete(x.watchers, w)
	last := len(x.watchers) == 0
	if last {
		delete(n.watch, w.key)
	}
	n.mu.Unlock()
	if last {
		x.cancel()
		<-x.done
	}
}

// follow keeps a connection of a watch until ctx ends.
func (n *Node) follow(ctx context.Context, x *watch) {
	for fails := 0; ; fails++ {
		base, moved := n.current()
		began := time.Now()
		again, err := n.stream(ctx, base, moved, x)
		if ctx.Err() != nil {
			return
		}
		if again || time.Since(began) > connectHeld {
			fails = 0
		}
		if again { // to another proxy, or one that is back
			continue
		}
		n.log.Debug("connection of a listener lost", zap.String("proxy", base), zap.Error(err))
		t := time.NewTimer(backoff(fails, connectFirst, connectLast))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-moved:
			fails = 0
		case <-t.C:
		}
		t.Stop()
	}
}

// stream listens at one proxy until that fails, ctx ends, or another is in use: true.
func (n *Node) stream(ctx context.Context, base string, moved chan struct{}, x *watch) (again bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-moved:
			cancel()
		case <-ctx.Done():
		}
	})
	a, err := n.open(ctx, http.MethodGet, keyURL(base, x.key)+"/listen", nil, answerTime)
	if err == nil {
		defer a.Close()
		n.mu.Lock()
		x.conn++
		conn := x.conn
		n.mu.Unlock()
		wg.Go(func() { n.poll(ctx, base, x, conn > 1) })
		err = n.lines(ctx, x.key, a, func(h *heard) error {
			n.hear(x, h, conn)
			return nil
		})
		n.lostStream(ctx, err)
	} else if ctx.Err() == nil {
		signal(n.poke)
	}
	select {
	case <-moved:
		return true, err
	default:
		return false, err
	}
}

// lostStream has the monitor look at a proxy whose stream ended. One that ended in due form
// was closed, by the proxy or what is before it; one that broke may mean that it started
// anew.
func (n *Node) lostStream(ctx context.Context, err error) {
	if ctx.Err() == nil {
		n.lost(err != nil && !errors.Is(err, errGarbage) && !errors.Is(err, errLine))
	}
}

// poll looks at what is there from time to time, beginning at once after a reconnect.
func (n *Node) poll(ctx context.Context, base string, x *watch, atOnce bool) {
	wait := jitter(pollEvery)
	if atOnce {
		wait = 0
	}
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		getCtx, cancel := context.WithTimeout(ctx, getTime)
		soon, err := n.take(getCtx, base, x)
		cancel()
		wait = jitter(pollEvery)
		switch {
		case err != nil && ctx.Err() == nil:
			n.log.Debug("values not looked at", zap.String("proxy", base), zap.Error(err))
			signal(n.poke)
		case soon:
			wait = pollSoon
		}
	}
}

// take looks at what is there. soon: something was missing, and a second look has to
// say whether it is gone.
func (n *Node) take(ctx context.Context, base string, x *watch) (soon bool, err error) {
	began := time.Now()
	all := mapping.Set{}
	size := map[mapping.ValueID]int{}
	complete, err := n.fetch(ctx, base, x.key, func(f mapping.Found) {
		all.Merge(f)
		size[mapping.IDOf(&f.Value)] = len(f.Data)
	})
	if err != nil {
		return false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, f := range all {
		if at, ok := x.ended[k]; ok && !at.Before(began) { // a connection knew better
			continue
		}
		n.learnLocked(x, &heard{f, size[k], false}, 0)
	}
	if complete {
		for k, v := range x.values {
			if _, ok := all[k]; ok || v.conn == x.conn {
				continue
			}
			if v.missed++; v.missed >= pollMisses {
				x.forget(k)
			} else {
				soon = true
			}
		}
	}
	n.notifyLocked(x.key)
	return soon, nil
}

// hear takes what a connection tells.
func (n *Node) hear(x *watch, h *heard, conn int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.notifyLocked(x.key)
	if !h.expired {
		n.learnLocked(x, h, conn)
		return
	}
	k := mapping.IDOf(&h.Value)
	if old := x.values[k]; old != nil && old.Seq > h.Seq { // the end of one that was replaced
		return
	}
	x.forget(k)
	now := time.Now()
	for k, at := range x.ended {
		if now.Sub(at) > getTime {
			delete(x.ended, k)
		}
	}
	if len(x.ended) < maxValues {
		x.ended[k] = now
	}
}

// learnLocked notes a value, if there is room for it. conn is the connection that told, or
// 0.
func (n *Node) learnLocked(x *watch, h *heard, conn int) {
	n.staleLocked(&h.Found)
	k := mapping.IDOf(&h.Value)
	old := x.values[k]
	if old != nil && old.Seq > h.Seq {
		return
	}
	v := &known{heard: *h, seen: time.Now(), conn: conn}
	if old != nil {
		v.conn = max(v.conn, old.conn)
	}
	x.forget(k)
	if len(x.values) >= maxValues || x.bytes+v.size > maxBytes {
		n.log.Debug("value of a DHT proxy dropped", zap.Error(errFull))
		return
	}
	x.values[k] = v
	x.bytes += v.size
}

func (x *watch) forget(k mapping.ValueID) {
	if old := x.values[k]; old != nil {
		x.bytes -= old.size
		delete(x.values, k)
	}
}

// end is when a value that is not heard of again has ended.
func (v *known) end() time.Time {
	return v.seen.Add(max(overlay.Lifetime(v.Type), 2*pollEvery))
}

// valuesLocked returns what is there, and when the next of it ends.
func (x *watch) valuesLocked(own *ownValues, now time.Time) (mapping.Set, time.Time) {
	out := make(mapping.Set, len(x.values))
	next := now.Add(overlay.MaxLifetime)
	for k, v := range x.values {
		if end := v.end(); !end.After(now) {
			x.forget(k)
			continue
		} else if end.Before(next) {
			next = end
		}
		f := v.Found
		f.Expires = v.seen.Add(overlay.Lifetime(v.Type))
		out[k] = f
	}
	own.over(out, x.key, now)
	return out, next
}

// notifyLocked has the listeners of a key look.
func (n *Node) notifyLocked(key overlay.Key) {
	x := n.watch[key]
	if x == nil {
		return
	}
	for w := range x.watchers {
		signal(w.changed)
	}
}

// run reports changes until ctx ends.
func (n *Node) run(ctx context.Context, w *watcher, x *watch) {
	ends := time.NewTimer(0)
	defer ends.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-ends.C:
		}
		now := time.Now()
		n.mu.Lock()
		values, next := x.valuesLocked(&n.own, now)
		n.mu.Unlock()
		ends.Reset(next.Sub(now))
		for _, c := range w.told.Diff(values) {
			if ctx.Err() != nil {
				return
			}
			w.fn(c)
		}
	}
}
