package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// syncRest is how long changes are waited for that go into the same message.
const syncRest = time.Second

// tellEach is how many changed contacts are told one by one; of more, readers read the
// list again.
const tellEach = 100

// maxNewDevices bounds the unknown devices that one message has looked up.
const maxNewDevices = 8

// syncing keeps the account's devices at the same contacts and requests (§3.9). It is safe
// for concurrent use.
type syncing struct {
	b    *inbox
	wake chan struct{}

	mu  sync.Mutex
	all bool                     // every device is to be told
	to  map[jami.LongID]struct{} // those that are

	last map[jami.LongID]uint64 // by run alone: the id of the value that a device was sent
}

func newSyncing(b *inbox) *syncing {
	return &syncing{b: b, wake: make(chan struct{}, 1), to: map[jami.LongID]struct{}{}, last: map[jami.LongID]uint64{}}
}

// changed has all other devices told how contacts and requests are now.
func (y *syncing) changed() {
	y.mu.Lock()
	y.all = true
	y.mu.Unlock()
	y.poke()
}

func (y *syncing) poke() {
	select {
	case y.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// own is told of what is at the account's own Jami Id: a device that appears is told what
// there is, one that is not known, or a revocation, is looked for.
func (y *syncing) own(v contract.DHTValue, gone bool) (had bool) {
	if gone {
		return false
	}
	s := y.b.s
	if der, err := jami.ParseBin(v.Data); err == nil {
		if _, err := trust.ParseCRL(der, s.acc.Chain.Account); err == nil {
			s.lookNow()
		}
		return true
	}
	short, ok := jami.AnnouncedDevice(v.Data, s.acc.Chain.JamiID)
	if !ok {
		return true
	}
	d, known := s.device(short)
	switch {
	case !known:
		s.lookNow()
		return false // its certificate may not be there yet
	case d.This, d.Revoked:
		return true
	}
	y.mu.Lock()
	y.to[d.ID] = struct{}{}
	y.mu.Unlock()
	y.poke()
	return true
}

// run tells the other devices until ctx ends.
func (y *syncing) run(ctx context.Context) {
	y.b.out.followUnconfirmed()
	wait := y.b.s.pause
	for {
		select {
		case <-ctx.Done():
			return
		case <-y.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(y.b.s.syncRest):
		}
		y.b.out.followUnconfirmed()
		err := y.tell(ctx)
		if err == nil || ctx.Err() != nil {
			wait = y.b.s.pause
			continue
		}
		y.b.s.env.Log.Info("the account's other devices are not told; trying again", zap.String("account", y.b.s.id()), zap.Duration("in", wait), zap.Error(err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			wait = min(2*wait, retryMost)
			y.poke()
		}
	}
}

// tell sends a DeviceSync to those that are to be told. What fails is to be told again.
func (y *syncing) tell(ctx context.Context) error {
	s := y.b.s
	y.mu.Lock()
	all, to := y.all, y.to
	y.all, y.to = false, map[jami.LongID]struct{}{}
	y.mu.Unlock()
	if s.acc.Revoked() != nil || s.acc.Managed().Server != "" { // its server does that (§5.3)
		return nil
	}
	var targets []*trust.Chain
	for _, d := range s.acc.Devices() {
		if _, one := to[d.ID]; d.This || d.Revoked || !all && !one {
			continue
		}
		if c := s.acc.Other(d.ID); c != nil {
			targets = append(targets, c)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	again := func(c *trust.Chain) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.to[c.DeviceID] = struct{}{}
	}
	data, err := y.pack()
	if errors.Is(err, jami.ErrTooMany) {
		y.tooLarge(err)
		return nil
	}
	if err != nil {
		for _, c := range targets {
			again(c)
		}
		return err
	}
	var errs []error
	for _, c := range targets {
		id, err := s.post(ctx, c, jami.TypeData, data)
		if errors.Is(err, jami.ErrTooLarge) {
			y.tooLarge(fmt.Errorf("%w: %d bytes", err, len(data)))
			return errors.Join(errs...)
		}
		s.metrics.send(sentSync, err)
		if err != nil {
			again(c)
			errs = append(errs, fmt.Errorf("device %s: %w", c.DeviceID, err))
			continue
		}
		y.replace(ctx, c, id)
	}
	return errors.Join(errs...)
}

// replace takes the message before this one out of the overlay: it is of no use any more.
func (y *syncing) replace(ctx context.Context, c *trust.Chain, id uint64) {
	old, had := y.last[c.DeviceID]
	y.last[c.DeviceID] = id
	if !had {
		return
	}
	_, err := bus.Call(ctx, y.b.s.conn, contract.DHTCancelCmd, &contract.DHTCancel{Key: jami.InboxKey(c.DeviceShort).String(), ID: old})
	if err != nil && !errors.Is(err, contract.ErrNotFound) {
		y.b.s.env.Log.Debug("an older message stays until it expires", zap.Error(err))
	}
}

func (y *syncing) pack() ([]byte, error) {
	st := y.b.store.SyncState()
	var err error
	if st.Date, err = y.b.store.NextDate(y.b.s.now()); err != nil {
		return nil, err
	}
	return st.Pack()
}

// tooLarge says that the account's state has no place in a value. Nothing of it is sent.
func (y *syncing) tooLarge(err error) {
	y.b.s.metrics.tooLarge.Inc()
	y.b.s.env.Log.Error("the account has too many contacts for the overlay to carry them to its other devices, which do not get this change; "+
		"some 500 have place", zap.String("account", y.b.s.id()), zap.Int("contacts", len(y.b.s.acc.Contacts())), zap.Error(err))
}

// take merges what another device of the account knows (§3.9).
func (y *syncing) take(ctx context.Context, from account.Device, data []byte) (verdict, error) {
	m, err := jami.ParseDeviceSync(data)
	if err != nil {
		return verdictJunk, err
	}
	b, s := y.b, y.b.s
	if err := b.store.CheckDate(from.ID, m.Date, s.now()); err != nil {
		if errors.Is(err, account.ErrAhead) {
			s.env.Log.Warn("state of another device is not taken", zap.Stringer("device", from.ID), zap.Error(err))
		}
		return verdictDropped, err
	}
	changed, skipped, err := s.acc.MergeContacts(m.Peers, s.now())
	if err != nil {
		s.env.Log.Error("contacts of another device not written; trying again", zap.Error(err))
		return verdictLater, err
	}
	if skipped > 0 {
		s.env.Log.Warn("contacts of another device are not taken: dated ahead of this clock, or too many", zap.Stringer("device", from.ID), zap.Int("contacts", skipped))
	}
	if len(changed) > tellEach {
		changed = []jami.ID{{}}
	}
	for _, id := range changed {
		s.tellContact(ctx, id)
	}
	for id, r := range m.Requests {
		r.Payload = nil
		m.Requests[id] = r
	}
	if v, err := b.ask(ctx, m.Requests); v == verdictLater {
		return v, err
	}
	if _, err := b.store.Settle(); err != nil {
		return verdictLater, err
	}
	named, err := y.names(ctx, from.ID, m)
	if err == nil {
		err = b.store.SetDate(from.ID, m.Date)
	}
	if err != nil {
		s.env.Log.Error("state of another device not written; trying again", zap.Error(err))
		return verdictLater, err
	}
	if len(changed) > 0 || named {
		y.changed() // together they know more than each alone
	}
	return verdictTaken, nil
}

// names takes the names of the account's devices and looks for those that are not known.
func (y *syncing) names(ctx context.Context, from jami.LongID, m *jami.DeviceSync) (news bool, err error) {
	s := y.b.s
	looked := 0
	for _, d := range m.Devices {
		if _, known := s.device(d.Short); known || d.Short.IsZero() || looked == maxNewDevices {
			continue
		}
		looked++
		s.learn(ctx, d.Short)
	}
	return s.acc.LearnNames(from, m.Devices, s.now())
}
