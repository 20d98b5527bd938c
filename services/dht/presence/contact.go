package presence

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Times of a contact.
const (
	searchTime = 4 * time.Second        // of one search
	settle     = 300 * time.Millisecond // changes so close are one: an announcement is put before, or after, another ends
	rest       = 2 * time.Second        // between two looks: who comes and goes without end is told of no more often
	retryFirst = 2 * time.Second        // before what was not found is looked for again, doubling to
	retryMost  = time.Minute
	again      = 10 * time.Minute // dates of certificates, and who is banned, are looked at again
	unheard    = 30 * time.Second // who is there as a search finds, and the listener does not, is searched for again
	joining    = 30 * time.Second // a node without peers says of nobody that he is offline for so long
)

// maxEach bounds the announcements of a device that are kept: anyone can put a copy of one
// under any number of ids.
const maxEach = 4

// valueID tells an announcement apart, whichever peer stored it.
type valueID struct {
	id  uint64
	sum [sha256.Size]byte
}

// device is one that is announced. All is under the contact's mu.
type device struct {
	chain   *trust.Chain // nil: not found yet
	revoked bool         // by its account
	watched func()       // ends the judge's watch; nil: there is none
	due     time.Time    // of the next search for the chain
	wait    time.Duration
}

// contact is one that is followed for an account.
type contact struct {
	f       *Follower
	account string
	id      jami.ID
	judge   Judge
	end     context.CancelFunc
	wake    chan struct{} // has an element when it is to be looked at

	mu      sync.Mutex
	there   map[valueID]jami.ID // the announcements that are there: of which device
	devices map[jami.ID]*device
	known   bool
	state   State
}

func (c *contact) current() (State, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.known
}

func (c *contact) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// run follows until ctx ends.
func (c *contact) run(ctx context.Context) {
	defer c.forget()
	stop := c.listen(ctx)
	if stop == nil {
		return
	}
	defer stop()
	began := time.Now()
	for {
		next := c.look(ctx, time.Since(began) > joining)
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-time.After(next):
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
	}
}

// listen listens at the Jami Id, trying again until ctx ends; nil: it ended.
func (c *contact) listen(ctx context.Context) (stop func()) {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		done, err := c.f.search(ctx)
		if err != nil {
			return nil
		}
		now, stop, err := c.f.over.Listen(ctx, overlay.Key(c.id), func(ch overlay.Change) { c.heard(ch) })
		done()
		if err == nil {
			for _, v := range now {
				c.heard(overlay.Change{Value: v})
			}
			return stop
		}
		c.f.log.Debug("contact not followed; trying again", zap.Stringer("contact", c.id), zap.Duration("in", wait), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// heard takes one change at the Jami Id. What is no announcement of the account, and no
// list of it, leaves nothing behind.
func (c *contact) heard(ch overlay.Change) {
	key := valueID{ch.Value.ID, sha256.Sum256(ch.Value.Data)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.Expired {
		if _, was := c.there[key]; was {
			delete(c.there, key)
			c.poke()
		}
		return
	}
	if der, err := jami.ParseBin(ch.Value.Data); err == nil {
		c.revokeLocked([][]byte{der})
		return
	}
	if _, is := c.there[key]; is {
		return
	}
	if d, ok := jami.AnnouncedDevice(ch.Value.Data, c.id); ok && c.roomLocked(d) {
		c.there[key] = d
		c.poke()
	}
}

// roomLocked reports whether one more announcement of a device is kept.
func (c *contact) roomLocked(short jami.ID) bool {
	n, others := 0, map[jami.ID]bool{}
	for _, d := range c.there {
		if others[d] = true; d == short {
			n++
		}
	}
	return n > 0 && n < maxEach || n == 0 && len(others) < MaxDevices
}

// revokeLocked judges the chains that are known by lists. Those of devices that are not
// known yet are judged by what is there when they are found.
func (c *contact) revokeLocked(lists [][]byte) {
	for _, d := range c.devices {
		if d.chain != nil && !d.revoked && RevokedBy(d.chain, lists) != nil {
			d.revoked = true
			c.poke()
		}
	}
}

// look finds out whether the contact is online, tells of a change, and returns how long
// nothing is to be done. late says that a node without peers may say that somebody is offline.
func (c *contact) look(ctx context.Context, late bool) (next time.Duration) {
	next = again
	devices := c.announced()
	if len(devices) == 0 {
		s, known := c.current()
		if !known && !late && c.f.over.Node().Peers == 0 {
			return retryFirst
		}
		if s.Online { // once more: a listener may have missed what takes its place
			vs, err := c.get(ctx)
			if err != nil {
				return retryFirst
			}
			var lists [][]byte
			devices, lists = Announced(vs, c.id)
			c.mu.Lock()
			c.revokeLocked(lists)
			c.mu.Unlock()
			if len(devices) > 0 {
				next = unheard
			}
		}
	}
	c.keep(devices)
	online, missing := false, time.Duration(0)
	for _, short := range devices {
		good, wait := c.good(ctx, short)
		online = online || good
		if wait > 0 && (missing == 0 || wait < missing) {
			missing = wait
		}
		if good {
			break
		}
	}
	if ctx.Err() != nil {
		return next
	}
	if !online && missing > 0 {
		next = min(next, missing)
	}
	if c.set(online) {
		next = max(next, rest)
		select {
		case <-ctx.Done():
		case <-time.After(rest - settle):
		}
	}
	return next
}

func (c *contact) get(ctx context.Context) ([]overlay.Value, error) {
	done, err := c.f.search(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	return c.f.over.Get(ctx, overlay.Key(c.id))
}

// announced are the devices whose announcements are there.
func (c *contact) announced() []jami.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := map[jami.ID]bool{}
	var out []jami.ID
	for _, d := range c.there {
		if !had[d] {
			had[d] = true
			out = append(out, d)
		}
	}
	return out
}

// keep forgets the devices that are not announced any more.
func (c *contact) keep(devices []jami.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[jami.ID]*device{}
	for _, short := range devices {
		d := c.devices[short]
		if d == nil {
			d = new(device)
		}
		next[short] = d
	}
	for short, d := range c.devices {
		if next[short] == nil && d.watched != nil {
			d.watched()
		}
	}
	c.devices = next
}

func (c *contact) forget() { c.keep(nil) }

// good reports whether a device's certificates are there and good. wait: when they
// are looked for again.
func (c *contact) good(ctx context.Context, short jami.ID) (ok bool, wait time.Duration) {
	c.mu.Lock()
	d := c.devices[short]
	chain, left := d.chain, time.Until(d.due)
	c.mu.Unlock()
	if chain == nil && left > 0 {
		return false, left
	}
	if chain == nil {
		var lists [][]byte
		chain, lists = c.find(ctx, short)
		c.mu.Lock()
		d.chain = chain
		if chain == nil {
			d.wait = min(max(2*d.wait, retryFirst), retryMost)
			d.due = time.Now().Add(d.wait)
			wait = d.wait
		} else {
			d.revoked = RevokedBy(chain, lists) != nil
		}
		c.mu.Unlock()
		if chain == nil {
			return false, wait
		}
	}
	c.mu.Lock()
	revoked, last := d.revoked, d.watched
	d.watched = nil
	c.mu.Unlock()
	if last != nil {
		last() // it may have been called
	}
	if revoked {
		return false, 0
	}
	stop, err := c.judge.Watch(chain, func(error) { c.poke() })
	if err != nil {
		return false, 0
	}
	c.mu.Lock()
	d.watched = stop
	c.mu.Unlock()
	return true, 0
}

// find looks for a device's chain and, with one, for what its account revoked. nil: not
// to be had now.
func (c *contact) find(ctx context.Context, short jami.ID) (chain *trust.Chain, lists [][]byte) {
	done, err := c.f.search(ctx)
	if err != nil {
		return nil, nil
	}
	within, cancel := context.WithTimeout(ctx, searchTime)
	chain, err = Find(within, c.f.over, c.id, short)
	cancel()
	done()
	if chain != nil {
		var vs []overlay.Value
		if vs, err = c.get(ctx); err == nil {
			_, lists = Announced(vs, c.id)
			return chain, lists
		}
	}
	if err != nil {
		c.f.log.Debug("device of a contact not looked at; trying again", zap.Stringer("contact", c.id), zap.Stringer("device", short), zap.Error(err))
	}
	return nil, nil
}

// set notes the state and tells of it where it is another one.
func (c *contact) set(online bool) (changed bool) {
	c.mu.Lock()
	if c.known && c.state.Online == online {
		c.mu.Unlock()
		return false
	}
	c.known, c.state = true, State{ID: c.id, Online: online, Since: time.Now()}
	s := c.state
	c.mu.Unlock()
	c.f.tell(c.account, s)
	return true
}
