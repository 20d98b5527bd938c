package identity

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// followed bounds the contacts without a confirmation whose devices are waited for, those
// that were added last; followedInAll those of all accounts, so that dht has place for the
// inboxes too (1,024 keys).
const (
	followed      = 64
	followedInAll = 512
)

// What was put at a device's inbox lies there for ten minutes (§1.7): a request is not put
// again in that time. A confirmation answers each request, but not a flood of them.
const (
	requestAgain = 9 * time.Minute
	confirmAgain = 10 * time.Second
)

// sendTries bounds how often a message is tried that could not be sent to all devices of
// a contact. A request is sent again whenever one of them appears.
const sendTries = 8

// outbox sends requests and confirmations to contacts. It is safe for concurrent use.
type outbox struct {
	b    *inbox
	wake chan struct{}

	mu     sync.Mutex
	want   map[jami.ID]*outgoing
	sent   map[parcel]time.Time
	follow map[jami.ID]struct{}
}

// outgoing is what a contact is to get.
type outgoing struct {
	kind  string // sentRequest or sentConfirm
	due   time.Time
	wait  time.Duration // before the next try
	tries int
}

// parcel is what a device got.
type parcel struct {
	contact, device jami.ID
	kind            string
}

func newOutbox(b *inbox) *outbox {
	return &outbox{b: b, wake: make(chan struct{}, 1), want: map[jami.ID]*outgoing{}, sent: map[parcel]time.Time{}, follow: map[jami.ID]struct{}{}}
}

// send has a contact get a request or a confirmation as soon as may be. A request that
// the operator wants is sent also where one was a minute ago.
func (o *outbox) send(contact jami.ID, kind string) {
	o.mu.Lock()
	if kind == sentRequest {
		maps.DeleteFunc(o.sent, func(p parcel, _ time.Time) bool { return p.contact == contact && p.kind == kind })
	}
	o.want[contact] = &outgoing{kind: kind}
	o.mu.Unlock()
	o.poke()
}

func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// appeared is told of what is at the Jami Id of a contact that has not confirmed.
func (o *outbox) appeared(contact jami.ID) hearing {
	return func(v contract.DHTValue, gone bool) bool {
		if gone {
			return false
		}
		device, ok := jami.AnnouncedDevice(v.Data, contact)
		if !ok {
			return true
		}
		o.mu.Lock()
		at, had := o.sent[parcel{contact, device, sentRequest}]
		again := !had || time.Since(at) > requestAgain
		switch w := o.want[contact]; {
		case !again:
		case w == nil:
			o.want[contact] = &outgoing{kind: sentRequest}
		case w.kind == sentRequest: // it may be on its way, to those devices that were there before
			next := *w
			o.want[contact] = &next
		}
		o.mu.Unlock()
		if again {
			o.poke()
		}
		return true
	}
}

// followUnconfirmed waits for the devices of the contacts that have not confirmed.
func (o *outbox) followUnconfirmed() {
	type open struct {
		id    jami.ID
		added int64
	}
	var all []open
	for id, c := range o.b.s.acc.Contacts() {
		if c.Active() && !c.Confirmed {
			all = append(all, open{id, c.Added})
		}
	}
	slices.SortFunc(all, func(x, y open) int { return cmp.Or(cmp.Compare(y.added, x.added), bytes.Compare(x.id[:], y.id[:])) })
	next := map[jami.ID]struct{}{}
	for _, x := range all[:min(len(all), followed, followedInAll/max(o.b.s.accounts(), 1))] {
		next[x.id] = struct{}{}
	}
	o.mu.Lock()
	last := o.follow
	o.follow = next
	o.mu.Unlock()
	for id := range last {
		if _, still := next[id]; !still {
			o.b.watch.remove(id)
		}
	}
	for id := range next {
		if _, was := last[id]; !was {
			o.b.watch.add(id, o.appeared(id))
		}
	}
}

// run sends until ctx ends.
func (o *outbox) run(ctx context.Context) {
	for {
		id, w, wait := o.next()
		if w != nil {
			o.tried(id, w, o.deliver(ctx, id, w.kind))
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-time.After(wait):
		}
	}
}

// next returns what is due, or how long nothing is.
func (o *outbox) next() (id jami.ID, w *outgoing, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.sent, func(_ parcel, at time.Time) bool { return time.Since(at) > requestAgain })
	wait = time.Hour
	for id, w := range o.want {
		left := time.Until(w.due)
		if left <= 0 {
			return id, w, 0
		}
		wait = min(wait, left)
	}
	return id, nil, wait
}

// tried notes how a delivery ended: it is tried again where that did not reach all.
func (o *outbox) tried(id jami.ID, w *outgoing, err error) {
	o.b.s.metrics.send(w.kind, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want[id] != w { // another one is wanted by now
		return
	}
	if w.tries++; err == nil || w.tries >= sendTries {
		delete(o.want, id)
	}
	if err == nil {
		return
	}
	w.wait = min(max(2*w.wait, o.b.s.pause), retryMost)
	w.due = time.Now().Add(w.wait)
	again := w.tries < sendTries
	o.b.s.env.Log.Log(tryLevel(w.tries, again), "message to a contact has not reached all of its devices", zap.String("account", o.b.s.id()), zap.Stringer("contact", id),
		zap.String("kind", w.kind), zap.Int("tries", w.tries), zap.Bool("again", again), zap.Error(err))
}

// errNoDevice says that no device of the account is announced.
var errNoDevice = errors.New("no device of it is online: it is off, or in another network (setting dht.overlay)")

// deliver sends a contact what it is to get, to all of its devices (§3.8).
func (o *outbox) deliver(ctx context.Context, id jami.ID, kind string) error {
	s := o.b.s
	c, _ := s.acc.Contact(id)
	if !c.Active() || kind == sentRequest && c.Confirmed || s.acc.Revoked() != nil {
		return nil // it changed meanwhile
	}
	r := &jami.TrustRequest{Service: jami.TrustService, ConversationID: c.ConversationID, Confirm: kind == sentConfirm}
	if !r.Confirm {
		r.Payload = jami.VCard(s.acc.Settings().Alias)
	}
	data, err := r.Pack()
	if err != nil {
		return err
	}
	devices, missing, err := s.devicesOf(ctx, id)
	switch {
	case err != nil:
		return err
	case len(devices)+missing == 0 && kind == sentRequest:
		return nil // it is followed
	case len(devices)+missing == 0:
		return errNoDevice
	}
	var errs []error
	for _, d := range devices {
		p := parcel{id, d.DeviceShort, kind}
		if o.recent(p) {
			continue
		}
		if _, err := s.post(ctx, d, jami.TypeTrustRequest, data); err != nil {
			errs = append(errs, err)
			continue
		}
		o.mu.Lock()
		o.sent[p] = time.Now()
		o.mu.Unlock()
		s.env.Log.Info("message sent to a contact", zap.String("account", s.id()), zap.Stringer("contact", id), zap.Stringer("device", d.DeviceShort),
			zap.String("kind", kind))
	}
	if missing > 0 {
		errs = append(errs, errNotThere)
	}
	return errors.Join(errs...)
}

func (o *outbox) recent(p parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, had := o.sent[p]
	window := requestAgain
	if p.kind == sentConfirm {
		window = confirmAgain
	}
	return had && time.Since(at) < window
}
