package identity

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// A key is listened to for leaseTime; the lease is renewed so often that dht, which forgets
// it when it starts anew, hears soon. What is there then comes with the answer: nothing
// that was put meanwhile is missed.
const (
	leaseTime  = 90 * time.Second
	leaseEvery = 30 * time.Second
)

// leasesAtOnce bounds the leases that are asked for at the same time.
const leasesAtOnce = 4

// watchMemory bounds what a watch remembers of what it told.
const watchMemory = 512

// watches keeps keys of the overlay listened to. It is safe for concurrent use.
type watches struct {
	conn  *bus.Conn
	log   *zap.Logger
	every time.Duration // between two renewals
	first time.Duration // before the first retry
	wake  chan struct{}

	mu   sync.Mutex
	keys map[jami.ID]*watch
}

// hearing is told of a value of a key, and once more where it is gone. It is called from
// several goroutines and may not block. A value that is there is told again with each
// renewal until hearing has answered true, or longer where the key has very many.
type hearing func(v contract.DHTValue, gone bool) (had bool)

// watch is one key.
type watch struct {
	fn   hearing
	due  time.Time     // under watches.mu
	wait time.Duration // before the next retry; under watches.mu

	mu   sync.Mutex
	told map[[sha256.Size]byte]struct{}
	ring [][sha256.Size]byte // in the order of told
}

func newWatches(conn *bus.Conn, log *zap.Logger, every, first time.Duration) *watches {
	return &watches{conn: conn, log: log, every: every, first: first, wake: make(chan struct{}, 1), keys: map[jami.ID]*watch{}}
}

// add watches a key, unless it is watched.
func (w *watches) add(key jami.ID, fn hearing) {
	w.mu.Lock()
	if w.keys[key] == nil {
		w.keys[key] = &watch{fn: fn, told: map[[sha256.Size]byte]struct{}{}}
	}
	w.mu.Unlock()
	w.poke()
}

// remove no longer watches a key; its lease ends by itself.
func (w *watches) remove(key jami.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.keys, key)
}

func (w *watches) poke() {
	select {
	case w.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// run listens until ctx ends.
func (w *watches) run(ctx context.Context) {
	sub, err := bus.Subscribe(w.conn, contract.DHTChanged, func(_ context.Context, _ []string, c *contract.DHTChange) { w.heard(c.Value, c.Expired) })
	if err != nil {
		w.log.Error("nothing that comes to the account is heard at once, but every half minute", zap.Error(err))
	} else {
		defer sub.Stop()
	}
	defer w.conn.OnReconnect(func() {
		if ctx.Err() == nil {
			w.again()
		}
	})()
	for {
		next := w.renew(ctx)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-time.After(time.Until(next)):
		}
	}
}

// again has all leases renewed at once.
func (w *watches) again() {
	w.mu.Lock()
	for _, k := range w.keys {
		k.due = time.Time{}
	}
	w.mu.Unlock()
	w.poke()
}

// renew renews what is due and returns when the next one is.
func (w *watches) renew(ctx context.Context) (next time.Time) {
	now := time.Now()
	var wg sync.WaitGroup
	slot := make(chan struct{}, leasesAtOnce)
	w.mu.Lock()
	due := map[jami.ID]*watch{}
	for key, k := range w.keys {
		if !k.due.After(now) {
			due[key] = k
		}
	}
	w.mu.Unlock()
	for key, k := range due {
		slot <- struct{}{}
		wg.Go(func() {
			defer func() { <-slot }()
			w.lease(ctx, key, k)
		})
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	next = now.Add(w.every)
	for _, k := range w.keys {
		if k.due.Before(next) {
			next = k.due
		}
	}
	return next
}

func (w *watches) lease(ctx context.Context, key jami.ID, k *watch) {
	l, err := bus.Call(ctx, w.conn, contract.DHTListenCmd, &contract.DHTListen{Key: key.String(), TTLMs: leaseTime.Milliseconds()})
	w.mu.Lock()
	if err != nil {
		k.wait = min(max(2*k.wait, w.first), w.every)
		k.due = time.Now().Add(k.wait)
	} else {
		k.wait, k.due = 0, time.Now().Add(w.every)
	}
	w.mu.Unlock()
	if err != nil {
		w.log.Debug("key of the overlay not listened to; trying again", zap.Stringer("key", key), zap.Error(err))
		return
	}
	for _, v := range l.Values {
		k.hear(v, false)
	}
}

func (w *watches) heard(v contract.DHTValue, gone bool) {
	key, err := jami.ParseID(v.Key)
	if err != nil {
		return
	}
	w.mu.Lock()
	k := w.keys[key]
	w.mu.Unlock()
	if k != nil {
		k.hear(v, gone)
	}
}

// hear tells of a value unless that was heard.
func (k *watch) hear(v contract.DHTValue, gone bool) {
	d := sha256.Sum256(v.Data)
	k.mu.Lock()
	_, had := k.told[d]
	if gone {
		delete(k.told, d) // its place in the ring is used up all the same
	}
	k.mu.Unlock()
	if had && !gone || !k.fn(v, gone) || gone {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ring) >= watchMemory {
		delete(k.told, k.ring[0])
		k.ring = k.ring[1:]
	}
	k.told[d], k.ring = struct{}{}, append(k.ring, d)
}
