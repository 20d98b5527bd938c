package identity

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// How many typed values a device may put, and how many addresses it is told: a second, and at
// once.
const (
	valueRate, valueBurst = 1, 20
	tellRate, tellBurst   = 0.1, 3
)

// Addresses that were asked for are taken for so long, of so many questions.
const (
	askedTime = time.Minute
	maxAsked  = 256
)

// exchange is the questions for addresses that wait for an answer.
type exchange struct {
	told *pace // answers

	mu    sync.Mutex
	asked map[uint64]question
}

type question struct {
	to      jami.ID
	expires time.Time
}

func newExchange() *exchange {
	return &exchange{told: newPace(tellRate, tellBurst), asked: map[uint64]question{}}
}

// ask notes a question; false: too many wait.
func (x *exchange) ask(id uint64, to jami.ID, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, q := range x.asked {
		if now.After(q.expires) {
			delete(x.asked, i)
		}
	}
	if len(x.asked) >= maxAsked {
		return false
	}
	x.asked[id] = question{to, now.Add(askedTime)}
	return true
}

// waits reports whether an answer of an account is waited for.
func (x *exchange) waits(id uint64, from jami.ID, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	q, ok := x.asked[id]
	return ok && q.to == from && !now.After(q.expires)
}

// typed treats a value with a user type, which lies at the key where devices ask for
// connections (connect-and-calls §1.1).
func (b *inbox) typed(ctx context.Context, v *jami.Value) (verdict, error) {
	if v.Type != jami.TypeData || v.UserType != jami.UserTypeAddresses {
		return verdictJunk, errNoMessage
	}
	from, why, err := b.author(ctx, v)
	if err != nil {
		return why, err
	}
	c, _ := b.s.acc.Contact(from.JamiID)
	switch {
	case c.Blocked(): // meanwhile
		return verdictDropped, errBlocked
	case !c.Active() && from.JamiID != b.s.acc.Chain.JamiID:
		return verdictDropped, errStranger
	}
	return b.addresses(ctx, from, v.Data)
}

// addresses takes those of a contact's device, and tells it ours where it asks.
func (b *inbox) addresses(ctx context.Context, from *trust.Chain, data []byte) (verdict, error) {
	a, err := jami.ParseAddresses(data)
	if err != nil {
		return verdictJunk, err
	}
	if a.Answer && !b.exchange.waits(a.ID, from.JamiID, b.s.now()) {
		return verdictDropped, nil
	}
	e := &contract.PeerAddresses{From: from.JamiID.String(), Device: from.DeviceID.String(), Addresses: texts(a.List), Answer: a.Answer}
	if err := bus.Publish(ctx, b.s.conn, contract.AddressEvents, e, e.From); err != nil {
		return verdictLater, err
	}
	if a.Answer || !b.exchange.told.may(from.DeviceShort) {
		return verdictTaken, nil
	}
	own, err := b.s.publicAddresses(ctx)
	if err == nil {
		err = b.s.tellAddresses(ctx, from, &jami.Addresses{ID: a.ID, Answer: true, List: own})
	}
	if err != nil {
		b.s.env.Log.Info("a contact is not told the addresses that it asked for; it may ask again", zap.Stringer("contact", from.JamiID), zap.Error(err))
	}
	return verdictTaken, nil
}

func texts(ips []netip.Addr) []string {
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = ip.String()
	}
	return out
}

// publicAddresses are those under which the overlay's peers see this node.
func (s *hosted) publicAddresses(ctx context.Context) ([]netip.Addr, error) {
	n, err := bus.Call(ctx, s.conn, contract.DHTNodeGet, &contract.None{})
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, text := range n.Public[:min(len(n.Public), jami.MaxAddresses)] {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		out = append(out, ip)
	}
	return out, nil
}

func (s *hosted) tellAddresses(ctx context.Context, to *trust.Chain, a *jami.Addresses) error {
	data, err := a.Pack()
	if err != nil {
		return err
	}
	_, err = s.postAt(ctx, jami.PeerKey(to.DeviceShort), to, &jami.Value{Type: jami.TypeData, Data: data, UserType: jami.UserTypeAddresses})
	return err
}

// mayWrite refuses what could not be signed, or goes to whom the account has blocked.
func (s *hosted) mayWrite(to jami.ID) error {
	if s.inbox == nil {
		return errNoInbox
	}
	if err := s.acc.Revoked(); err != nil {
		return contract.ErrStateDamaged.With("%v", err)
	}
	if c, _ := s.acc.Contact(to); c.Blocked() {
		return contract.ErrForbidden.With("%s is blocked; unblock it first: parley account contact unblock", to)
	}
	return nil
}

func (s *hosted) addressAsk(ctx context.Context, r *bus.Request[contract.AddressAsk]) (*contract.AddressAsked, error) {
	to, err := jami.ParseID(r.Body.To)
	if err != nil {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	if err := s.mayWrite(to); err != nil {
		return nil, err
	}
	if c, _ := s.acc.Contact(to); !c.Active() {
		return nil, contract.ErrForbidden.With("%s is no contact, and is not told where this node is", to)
	}
	own, err := s.publicAddresses(ctx)
	if err != nil {
		return nil, err
	}
	devices, _, err := s.devicesOf(ctx, to)
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, contract.ErrNotFound.With("no device of %s is online: it is off, or in another network (setting dht.overlay)", to)
	}
	id, err := newMessageID()
	if err != nil {
		return nil, err
	}
	if !s.inbox.exchange.ask(id, to, s.now()) {
		return nil, contract.ErrSlowDown.With("%d questions wait for an answer; wait a minute", maxAsked)
	}
	var errs []error
	for _, d := range devices {
		errs = append(errs, s.tellAddresses(ctx, d, &jami.Addresses{ID: id, List: own}))
	}
	asked := len(devices) - len(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
	if asked == 0 {
		return nil, errs[0]
	}
	return &contract.AddressAsked{Devices: asked, Told: texts(own)}, nil
}
