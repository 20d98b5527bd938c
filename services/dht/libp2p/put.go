package libp2p

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// Quotas of what this node puts itself.
const (
	maxOwn      = 4096     // values
	maxOwnBytes = 32 << 20 // of data
)

// refreshMost is the longest between two refreshes of a permanent value: peers
// come and go.
const refreshMost = time.Hour

// publishTime bounds one publication that nobody waits for.
const publishTime = 30 * time.Second

// A publication that did not reach all is made again after the first of these, and
// twice as long each time up to the second.
const (
	retryAfter = 10 * time.Second
	retryMost  = 10 * time.Minute
)

// owned is what this node put under one key. Everything but turn is guarded by
// the node's mu.
type owned struct {
	turn   chan struct{} // holds one element while the key is published
	values map[uint64]*ownValue
	seq    uint64
	due    time.Time // next refresh; zero: none
	alone  bool      // no peer has it yet, or not all that should
	retry  time.Time // not published again before; set with alone
	tries  int       // publications in vain
}

type ownValue struct {
	overlay.Value
	permanent bool
}

// Put stores a value in this node's record of the key and hands it to the
// closest peers. When they don't all answer before ctx ends, the value stays ours and
// is handed on later.
func (n *Node) Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	now, old, err := n.keep(v, permanent)
	if err != nil {
		return overlay.Stored{}, err
	}
	n.tell(v.Key)
	peers, err := n.publish(ctx, v.Key)
	if err != nil {
		n.undo(now, old)
		n.tell(v.Key)
		return overlay.Stored{}, fmt.Errorf("put: %w", err)
	}
	n.poke()
	n.mu.Lock()
	defer n.mu.Unlock()
	return overlay.Stored{Value: now.Value, Peers: peers}, nil
}

// Restore takes in permanent values of a process before this one. They are handed
// on as soon as a peer is met, each key once.
func (n *Node) Restore(vs []overlay.Value) error {
	var errs []error
	for _, v := range vs {
		if _, _, err := n.keep(v, true); err != nil {
			errs = append(errs, fmt.Errorf("value %d: %w", v.ID, err))
			continue
		}
		n.mu.Lock()
		n.own[v.Key].alone = true
		n.mu.Unlock()
		n.tell(v.Key)
	}
	n.poke()
	return errors.Join(errs...)
}

// undo takes back a keep, unless something else has been kept since.
func (n *Node) undo(now, old *ownValue) {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.own[now.Key]
	if o == nil || o.values[now.ID] != now {
		return
	}
	n.dropLocked(o, now.ID)
	if old != nil {
		o.values[now.ID] = old
		n.count++
		n.bytes += len(old.Data)
	}
}

// keep checks the quotas and takes the value in. It returns what it keeps and what
// that replaces, or nil.
func (n *Node) keep(v overlay.Value, permanent bool) (now, old *ownValue, err error) {
	if len(v.Data) > overlay.MaxValue {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", overlay.ErrTooLarge, len(v.Data), overlay.MaxValue)
	}
	v.Data = slices.Clone(v.Data)
	v.Writer = n.host.ID().String()
	v.Expires = time.Now().Add(overlay.Lifetime(v.Type)).Truncate(time.Millisecond)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, overlay.ErrClosed
	}
	o := n.own[v.Key]
	for v.ID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, nil, fmt.Errorf("value id: %w", err)
		}
		if id := binary.BigEndian.Uint64(b[:]); o == nil || o.values[id] == nil {
			v.ID = id
		}
	}
	under, add, addBytes := 0, 1, len(v.Data)
	if o != nil {
		for id, x := range o.values {
			if id == v.ID {
				add, addBytes = 0, addBytes-len(x.Data)
			} else {
				under += len(x.Data)
			}
		}
	}
	switch {
	case o != nil && len(o.values)+add > maxValues:
		return nil, nil, fmt.Errorf("%w: %d values under one key", overlay.ErrQuota, maxValues)
	case under+len(v.Data) > maxRecord-maxValues*64: // what a value takes in a record beside its data
		return nil, nil, fmt.Errorf("%w: %d bytes under one key", overlay.ErrQuota, maxRecord-maxValues*64)
	case n.count+add > maxOwn || n.bytes+addBytes > maxOwnBytes:
		return nil, nil, fmt.Errorf("%w: at most %d values and %d MiB in all", overlay.ErrQuota, maxOwn, maxOwnBytes>>20)
	}
	if o == nil {
		o = &owned{turn: make(chan struct{}, 1), values: map[uint64]*ownValue{}}
		n.own[v.Key] = o
	}
	now, old = &ownValue{v, permanent}, o.values[v.ID]
	o.values[v.ID] = now
	n.count += add
	n.bytes += addBytes
	return now, old, nil
}

// drop forgets one own value; false when there was none.
func (n *Node) drop(key overlay.Key, id uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.own[key]
	if o == nil || o.values[id] == nil {
		return false
	}
	n.dropLocked(o, id)
	return true
}

func (n *Node) dropLocked(o *owned, id uint64) {
	n.count--
	n.bytes -= len(o.values[id].Data)
	delete(o.values, id)
}

// Cancel removes an own value and tells the peers. Should they not be reached,
// the value expires there.
func (n *Node) Cancel(ctx context.Context, key overlay.Key, id uint64) bool {
	if !n.drop(key, id) {
		return false
	}
	n.tell(key)
	if _, err := n.publish(ctx, key); err != nil {
		n.log.Debug("cancelled value stays with peers until it expires", zap.Error(err))
	}
	n.poke()
	return true
}

// publish hands the record of a key to the closest peers and says that we write
// there. It returns how many peers were asked, 0 when none is known or when some did
// not answer in time: then it is made again later. A peer that does not answer keeps
// neither the others nor the second half from being done.
func (n *Node) publish(ctx context.Context, key overlay.Key) (int, error) {
	n.mu.Lock()
	o := n.own[key]
	n.mu.Unlock()
	if o == nil {
		return 0, nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, publishTime)
		defer cancel()
	}
	select { // of two publications of one key the later has to be the newer
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			n.late(o)
			return 0, nil
		}
		return 0, ctx.Err()
	}
	peers := n.kad.RoutingTable().Size()
	if peers == 0 {
		n.mu.Lock()
		n.scheduleLocked(o, time.Now())
		o.alone = true
		n.mu.Unlock()
		return 0, nil
	}
	r := n.snapshot(key, o)
	b, err := r.pack(n.key)
	if err != nil {
		return 0, err
	}
	c, err := provideCID(key)
	if err != nil {
		return 0, err
	}
	// kad-dht waits for all peers that it asks, so each half gets most of the time and
	// they run at once; that one ran out of it is not said by the errors alone.
	deadline, _ := ctx.Deadline()
	hctx, cancel := context.WithTimeout(ctx, time.Until(deadline)*3/4)
	defer cancel()
	var putErr, provideErr error
	var wg sync.WaitGroup
	wg.Go(func() { putErr = n.kad.PutValue(hctx, recordKey(key, n.host.ID()), b) })
	wg.Go(func() { provideErr = n.kad.Provide(hctx, c, true) })
	wg.Wait()
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		n.late(o)
		return 0, err
	}
	late := hctx.Err() != nil || provideErr != nil || errors.Is(putErr, context.DeadlineExceeded) ||
		n.kad.RoutingTable().Size() == 0 // they have gone
	if putErr != nil && !late {
		n.late(o)
		return 0, putErr
	}
	if late {
		n.log.Debug("not all peers have taken the values of a key; trying again", zap.NamedError("put", putErr), zap.NamedError("provide", provideErr))
		n.late(o)
		return 0, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.scheduleLocked(o, time.Now())
	o.alone, o.retry, o.tries = false, time.Time{}, 0
	if len(o.values) == 0 {
		delete(n.own, key)
	}
	return min(peers, 20), nil // kad-dht's bucket size: that many are asked
}

// late notes a publication that did not reach all.
func (n *Node) late(o *owned) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.scheduleLocked(o, now)
	o.alone = true
	o.retry = now.Add(min(retryAfter<<min(o.tries, 10), retryMost))
	o.tries++
}

// snapshot makes the next record of a key. Permanent values get a new lifetime,
// expired ones go. A record without values stays for a lifetime to cancel what was
// there.
func (n *Node) snapshot(key overlay.Key, o *owned) *record {
	now := time.Now().Truncate(time.Millisecond)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.renewLocked(o, now)
	o.seq = max(o.seq+1, uint64(now.UnixMilli())) // newer than before a restart, too
	r := &record{key: key, seq: o.seq, expires: now.Add(overlay.Lifetime(0))}
	for _, v := range o.values {
		r.values = append(r.values, v.Value)
		if v.Expires.After(r.expires) {
			r.expires = v.Expires
		}
	}
	return r
}

func (n *Node) renewLocked(o *owned, now time.Time) {
	for id, v := range o.values {
		switch {
		case v.permanent:
			v.Expires = now.Add(overlay.Lifetime(v.Type))
		case !v.Expires.After(now):
			n.dropLocked(o, id)
		}
	}
}

// scheduleLocked sets when the key has to be looked at again: permanent values at
// half their life, others when they end.
func (n *Node) scheduleLocked(o *owned, now time.Time) {
	o.due = time.Time{}
	for _, v := range o.values {
		at := v.Expires
		if v.permanent {
			at = now.Add(min(overlay.Lifetime(v.Type)/2, refreshMost))
		}
		if o.due.IsZero() || at.Before(o.due) {
			o.due = at
		}
	}
}

// refresh republishes what is due, and what is alone once there is a peer.
func (n *Node) refresh(ctx context.Context) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		keys, next := n.dueKeys(time.Now())
		for _, k := range keys {
			pctx, cancel := context.WithTimeout(ctx, publishTime)
			if _, err := n.publish(pctx, k); err != nil && ctx.Err() == nil {
				n.log.Warn("values not refreshed; trying again", zap.Error(err))
			}
			cancel()
		}
		if len(keys) > 0 {
			_, next = n.dueKeys(time.Now())
		}
		t.Reset(max(next, 100*time.Millisecond)) // publishing what fails must not spin
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-n.wake:
		}
	}
}

// dueKeys returns the keys to publish and how long until the next.
func (n *Node) dueKeys(now time.Time) ([]overlay.Key, time.Duration) {
	met := n.kad.RoutingTable().Size() > 0
	n.mu.Lock()
	defer n.mu.Unlock()
	var keys []overlay.Key
	next := refreshMost
	for k, o := range n.own {
		if !met {
			n.renewLocked(o, now) // nobody to tell; they stay ours
			n.scheduleLocked(o, now)
			if len(o.values) == 0 {
				delete(n.own, k)
				continue
			}
		}
		if met && (o.alone && !o.retry.After(now) || !o.due.IsZero() && !o.due.After(now)) {
			keys = append(keys, k)
			continue
		}
		if o.alone && met {
			next = min(next, o.retry.Sub(now))
		}
		if !o.due.IsZero() {
			next = min(next, o.due.Sub(now))
		}
	}
	return keys, next
}

// ownValues returns copies of what this node put under a key and has not expired.
func (n *Node) ownValues(key overlay.Key, now time.Time) []overlay.Value {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.own[key]
	if o == nil {
		return nil
	}
	var out []overlay.Value
	for _, v := range o.values {
		if v.Expires.After(now) {
			out = append(out, v.Value)
		}
	}
	return out
}
