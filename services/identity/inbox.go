package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// How fast what comes is opened, by all accounts together: anyone may put values at an
// inbox, and to see that one is not for us takes 5 ms of a core (RSA-4096). At this rate
// that is a tenth of a core; at first more, for what waited while the node was off.
const (
	openRate  = 20 // a second
	openBurst = 100
)

// minCipher is less than any value takes that is signed and encrypted with keys that are
// accepted (2,048 bits).
const minCipher = 2048/8 + 12 + 16 + 2048/8 + 256

// Bounds of senders that are not devices of the account: their certificates are looked
// up, which takes up to some seconds each.
const (
	strangersAtOnce  = 4
	strangersWaiting = 64
)

// A value that could not be judged now is tried so often, with each renewal of the lease.
const maxTries = 5

// What was treated is written down so often. What a process that is killed has not
// written it treats again, which changes nothing.
const saveEvery = time.Second

// maxJunk bounds what is remembered of values that are of no use.
const maxJunk = 16 << 10

// verdict is what became of a value.
type verdict string

// The verdicts, as the metric has them.
const (
	verdictTaken   verdict = "taken"   // it was treated, and is remembered for ever
	verdictJunk    verdict = "junk"    // it is of no use: not for us, not whole, not believed
	verdictDropped verdict = "dropped" // it was understood, and is not wanted: of a blocked account, say
	verdictLater   verdict = "later"   // it cannot be judged now
	verdictFull    verdict = "full"    // it found no place and comes again
)

var verdicts = []verdict{verdictTaken, verdictJunk, verdictDropped, verdictLater, verdictFull}

// inbox treats what comes to the device of an account (dht-and-identity §3.3, §3.8, §3.9).
type inbox struct {
	s     *hosted
	store *account.Inbox
	queue *fairQueue
	watch *watches
	out   *outbox
	sync  *syncing
	words *messenger

	values   *pace // those with a user type
	exchange *exchange

	strangers chan letter

	mu      sync.Mutex
	tries   map[account.Digest]int // maxTries: junk
	ring    []account.Digest
	unsaved atomic.Bool // something is treated that the file may lack
}

// letter is an opened value whose sender is not known yet.
type letter struct {
	value  *jami.Value
	digest account.Digest
}

// openInbox makes the inbox of an account ready. nil: its files cannot be used, which was
// told.
func (s *hosted) openInbox() *inbox {
	store, err := s.acc.OpenInbox()
	if err != nil {
		s.env.Log.Error("nothing that comes to the account is taken", zap.String("id", s.id()), zap.Error(err))
		return nil
	}
	b := &inbox{s: s, store: store, queue: newFairQueue(), watch: s.watch,
		values: newPace(valueRate, valueBurst), exchange: newExchange(), strangers: make(chan letter, strangersWaiting), tries: map[account.Digest]int{}}
	b.out = newOutbox(b)
	b.sync = newSyncing(b)
	b.words = newMessenger(b)
	return b
}

// run treats what comes until ctx ends.
func (b *inbox) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer b.save()
	defer wg.Wait()
	b.watch.add(jami.InboxKey(b.s.acc.Chain.DeviceShort), b.offer)
	b.watch.add(b.s.acc.Chain.JamiID, b.sync.own)
	wg.Go(func() { b.out.run(ctx) })
	wg.Go(func() { b.sync.run(ctx) })
	wg.Go(func() { b.words.run(ctx) })
	wg.Go(func() { b.saveOften(ctx) })
	for range strangersAtOnce {
		wg.Go(func() { b.judge(ctx) })
	}
	for {
		w, ok := b.queue.pop()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-b.queue.ready:
			}
			continue
		}
		if b.s.opening.Wait(ctx) != nil {
			return
		}
		b.open(ctx, w)
	}
}

// offer takes a value from the overlay if it may be one for us, as far as that can be seen
// at no cost.
func (b *inbox) offer(v contract.DHTValue, gone bool) (had bool) {
	if gone {
		return false
	}
	value, err := jami.ParseValue(v.Data)
	if err != nil || len(value.Cipher) < minCipher || len(value.Cipher) > jami.MaxValue {
		b.count(verdictJunk)
		return true
	}
	w := waiting{value, sha256.Sum256(value.Cipher)}
	if b.store.Treated(w.digest) || b.junk(w.digest) {
		return true
	}
	if b.queue.push(v.Writer, w) {
		b.count(verdictFull)
	}
	return false
}

func (b *inbox) junk(d account.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries[d] >= maxTries
}

// open opens a value with the device's key.
func (b *inbox) open(ctx context.Context, w waiting) {
	if b.store.Treated(w.digest) || b.junk(w.digest) {
		return
	}
	clear, err := w.value.Decrypt(b.s.acc.DeviceKey())
	if err != nil {
		b.done(w.digest, verdictJunk, err)
		return
	}
	b.opened(ctx, clear, w.digest)
}

// opened treats a value in clear.
func (b *inbox) opened(ctx context.Context, clear *jami.Value, d account.Digest) {
	if b.store.Treated(d) || b.junk(d) { // while it was opened
		return
	}
	if clear.Type == jami.TypeImMessage && !b.words.writers.may(clear.Signer()) || clear.UserType != "" && !b.values.may(clear.Signer()) {
		b.done(d, verdictFull, nil)
		return
	}
	if own, ok := b.s.device(clear.Signer()); ok && (clear.UserType == "" || own.This || own.Revoked) {
		v, err := b.fromOwn(ctx, own, clear)
		b.done(d, v, err)
		return
	}
	select {
	case b.strangers <- letter{clear, d}:
	default:
		b.done(d, verdictFull, nil)
	}
}

// judge treats what senders sent that have to be looked up.
func (b *inbox) judge(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-b.strangers:
			if b.store.Treated(l.digest) || b.junk(l.digest) { // it was in twice
				continue
			}
			v, err := b.fromOther(ctx, l.value)
			if ctx.Err() != nil {
				return
			}
			b.done(l.digest, v, err)
		}
	}
}

var errNoMessage = errors.New("not a message of a kind that is taken")

// fromOwn treats what a device of the account sent, as far as is known.
func (b *inbox) fromOwn(ctx context.Context, d account.Device, v *jami.Value) (verdict, error) {
	switch {
	case d.This:
		return verdictJunk, errors.New("this device sent it itself")
	case d.Revoked:
		return verdictJunk, errors.New("a revoked device of the account sent it")
	case v.Type != jami.TypeData:
		return verdictJunk, errNoMessage
	}
	return b.sync.take(ctx, d, v.Data)
}

// fromOther treats what another account's device sent, or one of the account that is not
// known yet.
func (b *inbox) fromOther(ctx context.Context, v *jami.Value) (verdict, error) {
	if v.UserType != "" {
		return b.typed(ctx, v)
	}
	switch v.Type {
	case jami.TypeTrustRequest:
		return b.request(ctx, v)
	case jami.TypeImMessage:
		return b.message(ctx, v)
	case jami.TypeData:
		b.s.learn(ctx, v.Signer()) // it may have been added just now
		if d, own := b.s.device(v.Signer()); own {
			return b.fromOwn(ctx, d, v)
		}
		return verdictLater, errNotThere
	}
	return verdictJunk, errNoMessage
}

// author finds out whose device signed a value, or what becomes of the value with the error.
func (b *inbox) author(ctx context.Context, v *jami.Value) (*trust.Chain, verdict, error) {
	from, err := b.s.sender(ctx, v)
	switch {
	case err == nil:
		return from, "", nil
	case errors.Is(err, errBlocked):
		return nil, verdictDropped, err
	case isRefused(err):
		return nil, verdictJunk, err
	}
	return nil, verdictLater, err
}

// done notes what became of a value, and counts it when it is noted.
func (b *inbox) done(d account.Digest, v verdict, err error) {
	defer b.count(v)
	if err != nil {
		b.s.env.Log.Debug("value at the inbox", zap.String("verdict", string(v)), zap.Error(err))
	}
	switch v {
	case verdictTaken, verdictDropped:
		b.store.Treat(d)
		b.unsaved.Store(true)
	case verdictJunk:
		b.tried(d, maxTries)
	case verdictLater:
		b.tried(d, 1)
	}
}

func (b *inbox) tried(d account.Digest, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, had := b.tries[d]; !had {
		if len(b.ring) >= maxJunk {
			delete(b.tries, b.ring[0])
			b.ring = b.ring[1:]
		}
		b.ring = append(b.ring, d)
	}
	b.tries[d] += n
}

// saveOften writes what was treated soon after that, until ctx ends.
func (b *inbox) saveOften(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.save()
		}
	}
}

func (b *inbox) save() {
	if !b.unsaved.Swap(false) {
		return
	}
	if err := b.store.Flush(); err != nil {
		b.unsaved.Store(true)
		b.s.env.Log.Error("what was treated is not written down; after a start it is treated again", zap.Error(err))
	}
}

func (b *inbox) count(v verdict) { b.s.metrics.inbox.WithLabelValues(string(v)).Inc() }
