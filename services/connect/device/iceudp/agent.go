package iceudp

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Times of checks. The peer may begin half a minute later than this side (it learns of it through
// the overlay), so a pair is tried until the attempt ends.
const (
	checkPace   = 20 * time.Millisecond  // between two checks (RFC 8445 §14.2: Ta is 50 ms, not below 5)
	checkFirst  = 200 * time.Millisecond // between two of a pair
	checkLater  = 2 * time.Second        // after the first checkOften of these; a check of the peer's is followed at once
	checkOften  = 15
	nominating  = 3 * time.Second // until a nomination counts as lost
	answersKept = 5 * time.Second
)

// Bounds of an attempt.
const (
	maxOffered = 12 // candidates of the peer, who may name anybody's address: each gets 29 checks in half a minute
	maxPairs   = 24 // these, and from where it sends checks
	maxInbox   = 64 // messages that wait for Connect
)

// Errors of an attempt.
var (
	ErrFailed = errors.New("no path to the device by UDP")
	errInbox  = errors.New("more checks than a peer needs")
)

// Agent opens one path. Its candidates are told to the peer, then Connect is called with the
// peer's.
type Agent struct {
	p     *Port
	own   bool // the port is of this agent alone
	side  ice.Side
	inbox chan heard
}

// heard is a message for an agent.
type heard struct {
	m    *stun.Message
	from netip.AddrPort
}

// NewAgent makes an agent that is there for checks until it is closed, or has connected.
// controlling is the device that was asked. A device that asks gets a socket of its own, under which
// address it is seen it waits to learn, a quarter of a second at most.
func (p *Port) NewAgent(ctx context.Context, controlling bool) (*Agent, error) {
	at := p
	if !controlling {
		var err error
		if at, err = p.sibling(); err != nil {
			return nil, err
		}
		p.mu.Lock()
		answered := slices.Collect(maps.Keys(p.mapped)) // others are not worth waiting for
		p.mu.Unlock()
		at.askNow(ctx, answered)
	}
	a, err := at.agent(controlling)
	if err != nil && at != p {
		at.close()
	}
	return a, err
}

func (p *Port) agent(controlling bool) (*Agent, error) {
	cands, err := p.candidates()
	if err != nil {
		return nil, err
	}
	var b [4 + 12 + 8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	a := &Agent{p: p, own: !controlling, inbox: make(chan heard, maxInbox), side: ice.Side{Controlling: controlling,
		Local: request.Description{Ufrag: hex.EncodeToString(b[:4]), Pwd: hex.EncodeToString(b[4:16]), Candidates: cands}}}
	for _, x := range b[16:] {
		a.side.Tie = a.side.Tie<<8 | uint64(x)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if p.names[a.side.Local.Ufrag] != nil {
		return nil, errors.New("the credentials of a connection came twice; try again")
	}
	p.names[a.side.Local.Ufrag] = a
	return a, nil
}

// Local is what to tell the peer.
func (a *Agent) Local() request.Description { return a.side.Local }

// Close ends an agent that has not connected; a connection stays. It may be called more than once.
func (a *Agent) Close() {
	a.p.mu.Lock()
	mine := a.p.names[a.side.Local.Ufrag] == owner(a)
	if mine {
		delete(a.p.names, a.side.Local.Ufrag)
	}
	a.p.mu.Unlock()
	if mine && a.own {
		a.p.close()
	}
}

// heard implements owner. What was not made with our password goes no further.
func (a *Agent) heard(m *stun.Message, from netip.AddrPort) error {
	if m.Type == stun.BindingRequest {
		if err := (&ice.Side{Local: a.side.Local}).Admit(m); err != nil {
			return err
		}
	}
	select {
	case a.inbox <- heard{m, from}:
		return nil
	default:
		return errInbox
	}
}

// pair is an address of the peer's, on which checks are made.
type pair struct {
	addr    netip.AddrPort
	prio    uint32
	checks  int
	next    time.Time
	checked bool // the peer's check came
	valid   bool // ours was answered
	used    bool // the peer, which controls, nominated it
}

// attempt is what Connect does, in its goroutine alone.
type attempt struct {
	a       *Agent
	s       *ice.Side
	pairs   []*pair
	asked   map[transaction]ask
	nominee *pair
	since   time.Time // when it was nominated
	err     error     // the last one that a pair had
}

// ask is a check of ours.
type ask struct {
	of  *pair
	use bool
	at  time.Time
}

// Connect returns the path that both sides agreed on, or an error when ctx ends. It is called
// once.
func (a *Agent) Connect(ctx context.Context, remote request.Description) (*Conn, error) {
	side := a.side
	side.Remote = remote
	t := &attempt{a: a, s: &side, asked: map[transaction]ask{}}
	t.offered(remote.Candidates)
	won, err := t.run(ctx)
	ids := make([]transaction, 0, len(t.asked))
	for id := range t.asked {
		ids = append(ids, id)
	}
	a.p.forget(ids...)
	if t.nominee != nil {
		defer a.p.expect(t.nominee.addr, false)
	}
	if err != nil {
		a.Close()
		if t.err != nil {
			err = fmt.Errorf("%w (%w)", err, t.err)
		}
		return nil, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return a.p.connected(a, t.s, won.addr)
}

// offered are the peer's candidates.
func (t *attempt) offered(all []request.Candidate) {
	for _, c := range all {
		if len(t.pairs) < maxOffered && c.TCPType == "" && ice.Usable(c.Addr.Addr(), t.a.p.o.Loopback) {
			t.add(c.Addr, c.Priority)
		}
	}
	slices.SortStableFunc(t.pairs, func(x, y *pair) int { return cmp.Compare(y.prio, x.prio) })
}

// add adds a pair, if there is a place; nil: there is none.
func (t *attempt) add(addr netip.AddrPort, prio uint32) *pair {
	for _, x := range t.pairs {
		if x.addr == addr {
			return x
		}
	}
	if len(t.pairs) >= maxPairs {
		return nil
	}
	x := &pair{addr: addr, prio: prio}
	t.pairs = append(t.pairs, x)
	return x
}

// run makes checks until a pair is selected.
func (t *attempt) run(ctx context.Context) (*pair, error) {
	tick := time.NewTicker(checkPace)
	defer tick.Stop()
	slow := time.NewTimer(checkOften * checkFirst)
	defer slow.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-slow.C: // few checks are due from now on
			tick.Reset(checkFirst / 2)
		case <-t.a.p.done:
			return nil, net.ErrClosed
		case h := <-t.a.inbox:
			won, err := t.take(h)
			if err != nil {
				t.err = err
			}
			if won != nil {
				return won, nil
			}
		case now := <-tick.C:
			if err := t.check(now); err != nil {
				return nil, err
			}
		}
	}
}

// check sends the check that is due, if one is.
func (t *attempt) check(now time.Time) error {
	if t.nominee != nil && now.Sub(t.since) > nominating {
		t.a.p.expect(t.nominee.addr, false)
		t.nominee.valid, t.nominee = false, nil
	}
	if t.nominee == nil && t.s.Controlling {
		for _, x := range t.pairs {
			if x.valid && (t.nominee == nil || x.prio > t.nominee.prio) {
				t.nominee = x
			}
		}
		if t.nominee != nil {
			t.since = now
			t.a.p.expect(t.nominee.addr, true)
			return t.send(t.nominee, true, now)
		}
	}
	for id, k := range t.asked {
		if now.Sub(k.at) > answersKept {
			delete(t.asked, id)
			t.a.p.forget(id)
		}
	}
	var due *pair
	for _, x := range t.pairs {
		if !now.Before(x.next) && (due == nil || x.next.Before(due.next)) && (t.nominee == nil || x == t.nominee) {
			due = x
		}
	}
	if due == nil {
		return nil
	}
	return t.send(due, due == t.nominee, now)
}

func (t *attempt) send(x *pair, use bool, now time.Time) error {
	m, err := t.s.Check(use)
	if err != nil {
		return err
	}
	x.checks++
	x.next = now.Add(checkFirst)
	if x.checks > checkOften && !use {
		x.next = now.Add(checkLater)
	}
	t.asked[m.TransactionID] = ask{x, use, now}
	t.a.p.begin(m, t.a, x.addr)
	return nil
}

// take treats a message; won is the pair that both sides agreed on.
func (t *attempt) take(h heard) (won *pair, err error) {
	if h.m.Type == stun.BindingRequest {
		return t.request(h)
	}
	k, ok := t.asked[h.m.TransactionID]
	if !ok {
		return nil, nil
	}
	delete(t.asked, h.m.TransactionID)
	t.a.p.forget(h.m.TransactionID)
	if h.from != k.of.addr { // RFC 8445 §7.2.5.2.1
		return nil, fmt.Errorf("%w: from %v, and it went to %v", ice.ErrAnswer, h.from, k.of.addr)
	}
	if err := t.s.Answered(h.m); err != nil {
		return nil, err
	}
	k.of.valid = true
	if k.use && k.of == t.nominee || k.of.used {
		return k.of, nil
	}
	return nil, t.check(time.Now()) // who controls need not wait
}

// request answers a check of the peer's, and makes one on that pair.
func (t *attempt) request(h heard) (won *pair, err error) {
	if err := t.s.Admit(h.m); err != nil {
		return nil, err
	}
	out, conflict, err := t.s.Answer(h.m, h.from)
	if err != nil {
		return nil, err
	}
	x := t.add(h.from, 110<<24) // peer reflexive, where it is new
	if x == nil {
		return nil, errInbox
	}
	t.a.p.send(out.Raw, h.from)
	if conflict {
		return nil, errors.New("the peer takes itself for what we are")
	}
	if !x.checked && !x.valid {
		x.next = time.Time{}
	}
	x.checked = true
	if !t.s.Controlling && h.m.Contains(stun.AttrUseCandidate) {
		if x.used = true; x.valid {
			return x, nil
		}
	}
	if x.next.IsZero() && t.nominee == nil {
		return nil, t.send(x, false, time.Now())
	}
	return nil, nil
}
