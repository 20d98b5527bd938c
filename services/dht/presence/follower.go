// Package presence says who has a device online: whose account announces a device in the
// overlay, with certificates that are found and good and that nobody revoked
// (dht-and-identity §3.8, §3.4).
//
// A [Follower] keeps listening at the Jami Ids that it is told to follow. An announcement
// that is refreshed, or put anew under another id, changes nothing; a device is there until the
// last of its announcements has expired or was withdrawn. Before somebody is said to be
// offline, the overlay is asked once more.
package presence

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Overlay is what a follower needs of one.
type Overlay interface {
	Finder
	Listen(ctx context.Context, key overlay.Key, fn func(overlay.Change)) (now []overlay.Value, stop func(), err error)
	Node() overlay.Node
}

// Judge says whom an account lets in. Package bus/gate has one for each account.
type Judge interface {
	// Watch judges a chain that was good, since it may have expired, or been revoked or
	// banned; where it still is, it calls fn, which waits for nothing, once that was
	// revoked or banned.
	Watch(c *trust.Chain, fn func(error)) (stop func(), err error)
}

// State is whether somebody is online, and since when this node says so.
type State struct {
	ID     jami.ID
	Online bool
	Since  time.Time
}

// atOnce bounds the searches of a follower that run at the same time.
const atOnce = 8

// Follower follows contacts of accounts. It is safe for concurrent use.
type Follower struct {
	over Overlay
	tell func(account string, s State)
	log  *zap.Logger
	slot chan struct{}   // has an element for each search that runs
	life context.Context //nolint:containedctx // until Close
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu  sync.Mutex
	all map[string]map[jami.ID]*contact // by account
}

// NewFollower returns one that follows nobody yet. tell is called with each state that is
// known for the first time, and with each that changed, in order for each contact; it may
// not wait for anything and not call the follower.
func NewFollower(over Overlay, log *zap.Logger, tell func(account string, s State)) *Follower {
	life, end := context.WithCancel(context.Background())
	return &Follower{over: over, tell: tell, log: log, slot: make(chan struct{}, atOnce), life: life, end: end,
		all: map[string]map[jami.ID]*contact{}}
}

// Set has these contacts of an account followed, and no others of it. Another judge than
// before has all begin anew.
func (f *Follower) Set(account string, judge Judge, ids []jami.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.life.Err() != nil {
		return
	}
	was := f.all[account]
	next := make(map[jami.ID]*contact, len(ids))
	for _, id := range ids {
		c := was[id]
		if c == nil || c.judge != judge {
			c = f.begin(account, judge, id)
		}
		next[id] = c
	}
	for id, c := range was {
		if next[id] != c {
			c.end()
		}
	}
	f.all[account] = next
	if len(next) == 0 {
		delete(f.all, account)
	}
}

func (f *Follower) begin(account string, judge Judge, id jami.ID) *contact {
	ctx, end := context.WithCancel(f.life)
	c := &contact{f: f, account: account, id: id, judge: judge, end: end, wake: make(chan struct{}, 1),
		there: map[valueID]jami.ID{}, devices: map[jami.ID]*device{}}
	f.wg.Go(func() { c.run(ctx) })
	return c
}

// Of returns what is known of an account's contacts, in no order.
func (f *Follower) Of(account string) []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]State, 0, len(f.all[account]))
	for _, c := range f.all[account] {
		if s, known := c.current(); known {
			out = append(out, s)
		}
	}
	return out
}

// Close ends the following and waits for it.
func (f *Follower) Close() {
	f.mu.Lock()
	f.end()
	f.mu.Unlock()
	f.wg.Wait()
}

// search waits until a search may run; done has to be called after it.
func (f *Follower) search(ctx context.Context) (done func(), err error) {
	select {
	case f.slot <- struct{}{}:
		return func() { <-f.slot }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
