package core

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Waits after each sending of a query (§1.6); to each comes up to a quarter, or for
// the last two up to three eighths and nearly half, at random.
var waits = [...]struct{ least, more time.Duration }{
	{1000 * time.Millisecond, 250 * time.Millisecond},
	{2000 * time.Millisecond, 750 * time.Millisecond},
	{4000 * time.Millisecond, 1750 * time.Millisecond},
}

// A search goes on with others when a node has not answered in four round trips,
// within these bounds.
const (
	firstRTT  = 250 * time.Millisecond
	softLeast = 150 * time.Millisecond
	softMost  = 1100 * time.Millisecond
)

type requestKey struct {
	addr netip.AddrPort
	tid  uint32
}

// request is a query that waits for its answer.
type request struct {
	to     *peer // its id is zero when it is not known yet
	tid    uint32
	kind   wire.Kind
	packet []byte
	values [][]byte // of a put or update that goes in fragments
	tries  int
	first  time.Time
	timer  *task
	soft   *task

	// done gets the answer and its values, which are there only during the call; fail
	// the code of an error, or 0 for no answer. late, which may be nil, is called when
	// the answer takes longer than usual.
	done func(m *wire.Message, values [][]byte)
	fail func(code int)
	late func()
}

// request sends a query and returns it. m's ids are filled in; values go with it,
// inline or in fragments.
func (c *Core) request(to *peer, m wire.Message, values [][]byte, r *request) *request {
	r.to, r.kind = to, m.Kind
	for r.tid = to.next(); c.requests[requestKey{to.addr, r.tid}] != nil; r.tid = to.next() {
	}
	m.TID, m.ID, m.Network, m.Client = r.tid, c.self, c.cfg.Network, c.cfg.Client
	if values != nil {
		r.values = c.attach(&m, values)
	}
	r.packet = m.Append(nil)
	r.first = c.now
	c.requests[requestKey{to.addr, r.tid}] = r
	r.timer = &task{fn: func() { c.resend(r) }}
	c.resend(r)
	if r.late != nil {
		r.soft = c.timer.at(c.now.Add(min(max(4*c.rtt, softLeast), softMost)), r.late)
	}
	return r
}

func (c *Core) resend(r *request) {
	if r.tries == len(waits) {
		c.expire(r)
		return
	}
	w := waits[r.tries]
	r.tries++
	if x := c.partials[requestKey{r.to.addr, r.tid}]; x != nil { // it is answered already, in part
		w.least = partialMost
	}
	c.send(r.to.addr, r.kind, r.packet)
	c.sendChunks(r.to.addr, r.tid, r.values)
	c.timer.set(r.timer, c.now.Add(w.least+time.Duration(c.rand.Int64N(int64(w.more)))))
}

// expire gives a peer up, and all that it was asked (§1.6).
func (c *Core) expire(r *request) {
	c.end(r)
	c.stats.Unanswered++
	p := r.to
	if !p.heard.After(r.first) {
		p.failed = true
	}
	r.fail(0)
	if !p.failed {
		return
	}
	c.dropListeners(p.peerKey)
	var also []*request
	for k, x := range c.requests {
		if k.addr == p.addr && x.to == p && x.tries > 1 {
			also = append(also, x)
		}
	}
	slices.SortFunc(also, func(a, b *request) int { return cmp.Compare(a.tid, b.tid) })
	for _, x := range also {
		if c.requests[requestKey{p.addr, x.tid}] == x {
			c.end(x)
			x.fail(0)
		}
	}
}

// end takes a request off.
func (c *Core) end(r *request) {
	delete(c.requests, requestKey{r.to.addr, r.tid})
	c.timer.stop(r.timer)
	c.timer.stop(r.soft)
}

// reply takes an answer, or an error, to a query of ours.
func (c *Core) reply(from netip.AddrPort, m *wire.Message, packet []byte) {
	r := c.requests[requestKey{from, m.TID}]
	if r == nil && c.told(from, m, packet) {
		return
	}
	if r == nil || !r.to.id.IsZero() && r.to.id != m.ID {
		c.stats.Forged++
		return
	}
	if r.to.id.IsZero() { // who it is shows now
		tid := r.to.tid
		r.to = c.peer(m.ID, from)
		r.to.tid = tid
	}
	p := r.to
	if r.tries == 1 {
		c.rtt += (c.now.Sub(r.first) - c.rtt) / 8
	}
	again := p.failed
	p.heard, p.replied, p.failed, p.client = c.now, c.now, false, m.Client
	c.prove(from)
	if m.Addr.IsValid() && usable(netip.AddrPortFrom(m.Addr, 1)) {
		c.observed(limits.Subnet(from.Addr()), m.Addr)
	}
	c.met(p, again)
	if m.Kind == wire.Error {
		c.end(r)
		c.stats.Errors++
		r.fail(max(int(m.Code), 1))
		return
	}
	if m.Sizes {
		c.timer.stop(r.soft)
		c.collect(from, m, packet, true)
		if c.partials[requestKey{from, m.TID}] != nil {
			c.timer.stop(r.timer) // fragments decide now
		}
		return
	}
	c.end(r)
	c.deliver(r, m, nil)
}

// deliver hands over an answer whose values are there: all of them are packed in m,
// or came in fragments.
func (c *Core) deliver(r *request, m *wire.Message, values [][]byte) {
	for a := m.Values; !m.Sizes && a.Len() > 0; {
		values = append(values, a.Next())
	}
	r.done(m, values)
}
