package core

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// ErrRefused says that this node's own storage has another value of that id which may
// not be replaced (§1.7): take another id, or for signed values a higher sequence.
var ErrRefused = errors.New("another value has this id")

// A permanent value is put again this long before it ends at a node (§1.6), and not
// later than after refreshMost: a node that started anew has lost it.
const (
	refreshBefore = 10 * time.Second
	refreshMost   = time.Hour
)

// A node that refused or did not answer is tried so often, and a probe holds so long.
const (
	putTries  = 2
	probeHold = 5 * time.Second
)

// probe asks what a node has before a value is put: id and sequence of all (§1.6).
var probe = wire.Query{}.Selecting(wire.FieldID, wire.FieldSeq)

// certProbe asks for the owner, too: a certificate, which is unsigned, may replace
// another one, but must not be sent over a signed value.
var certProbe = wire.Query{}.Selecting(wire.FieldID, wire.FieldOwner, wire.FieldSeq)

type putKey struct {
	key jami.ID
	id  uint64
}

// PutOptions of a put. Both functions may be nil.
type PutOptions struct {
	Permanent bool
	Created   time.Time // zero: now; the value ends a lifetime after it
	// Done is called once, when the closest nodes have it, or the put was cancelled: with
	// how many have it, 0 when there are none. The value is then handed to nodes that
	// come, until it ends.
	Done func(nodes int)
	// Stale is called when a node has a value of that id with a higher sequence.
	Stale func(seq uint16)
	// handOn: this node only passes another's value on.
	handOn bool
}

// Put is a value on its way, or one that is kept up.
type Put struct {
	c         *Core
	key       jami.ID
	value     *Value
	created   time.Time
	permanent bool
	o         PutOptions
	parts     []*putPart
	left      int
	nodes     int
	end       *task
}

// putPart is a put in one family.
type putPart struct {
	p        *Put
	s        *search
	state    map[*peer]*putState
	reported bool
}

type putState struct {
	probed time.Time
	has    bool
	seq    uint16
	owned  bool // what the node has is signed, as far as was asked
	sent   bool // it was sent the value, not only a refresh
	asked  bool // for the owner
	busy   bool
	acked  time.Time
	fails  int
}

// Put stores a value here and at the closest nodes. A put of the same key and id is
// replaced. The value is never sent over a signed one of its id without being a
// newer one of the same owner: stock nodes can crash of that (§1.7). [mapping.ErrUnfit]: nobody
// would take it, whatever its id.
func (c *Core) Put(key jami.ID, v *Value, o PutOptions) (*Put, error) {
	if o.Created.IsZero() {
		o.Created = c.now
	}
	if !o.handOn {
		if !v.Encrypted() {
			if err := mapping.Fits(key, v.Type, v.Data); err != nil {
				return nil, err
			}
		}
		if c.storeValue(key, v, o.Created, netip.AddrPort{}) == refused {
			return nil, ErrRefused
		}
		if old := c.puts[putKey{key, v.ID}]; old != nil {
			old.Cancel()
		}
	}
	p := &Put{c: c, key: key, value: v, created: o.Created, permanent: o.Permanent, o: o}
	if !o.handOn {
		c.puts[putKey{key, v.ID}] = p
	}
	for f := range c.searches {
		if !c.on[f] {
			continue
		}
		s := c.search(f, key)
		x := &putPart{p: p, s: s, state: map[*peer]*putState{}}
		s.puts = append(s.puts, x)
		p.parts = append(p.parts, x)
		p.left++
		s.kick()
	}
	if !p.permanent {
		p.end = c.timer.at(p.created.Add(v.lifetime()), p.Cancel)
	}
	return p, nil
}

// Cancel stops keeping a value up; where it is, it ends with its lifetime.
func (p *Put) Cancel() {
	if p.o.Done != nil {
		p.c.timer.at(p.c.now, p.report)
	}
	p.c.timer.stop(p.end)
	for _, x := range p.parts {
		x.leave()
	}
	if k := (putKey{p.key, p.value.ID}); p.c.puts[k] == p {
		delete(p.c.puts, k)
	}
}

func (x *putPart) leave() {
	if i := slices.Index(x.s.puts, x); i >= 0 {
		x.s.puts = slices.Delete(x.s.puts, i, i+1)
	}
}

func (p *Put) report() {
	if fn := p.o.Done; fn != nil {
		p.o.Done = nil
		fn(p.nodes)
	}
}

// probed notes what a node said that it has.
func (x *putPart) probed(peer *peer, m *wire.Message) {
	st := x.at(peer)
	st.probed, st.has = x.p.c.now, false
	f := m.Fields
	ids, seqs := slices.Index(f.Fields(), wire.FieldID), slices.Index(f.Fields(), wire.FieldSeq)
	if ids < 0 || seqs < 0 {
		return
	}
	for f.V.Len() > 0 {
		var id, seq uint64
		owned := false
		for i, name := range f.Fields() {
			switch {
			case i == ids:
				id, _ = f.V.NextUint()
			case i == seqs:
				seq, _ = f.V.NextUint()
			case name == wire.FieldOwner:
				b := f.V.NextBytes()
				owned = len(b) != len(jami.ID{}) || [20]byte(b) != jami.ID{}
			default:
				f.V.Next()
			}
		}
		if id == x.p.value.ID {
			st.has, st.seq, st.owned = true, uint16(seq), owned
			return
		}
	}
}

func (x *putPart) at(p *peer) *putState {
	st := x.state[p]
	if st == nil {
		st = &putState{}
		x.state[p] = st
	}
	return st
}

// step puts, refreshes or probes at the closest nodes, and returns when to come again.
func (x *putPart) step(first []*searchNode) time.Time {
	c, v := x.p.c, x.p.value
	next := c.now.Add(never)
	pending, acked := 0, 0
	for _, n := range first {
		st := x.at(n.p)
		if !st.acked.IsZero() {
			acked++
			if !x.p.permanent {
				continue
			}
			again := st.acked.Add(min(max(v.lifetime()-refreshBefore, refreshBefore), refreshMost))
			if c.now.Before(again) {
				next = earlier(next, again)
				continue
			}
		} else if st.fails >= putTries {
			continue
		} else {
			pending++
		}
		if !st.busy {
			x.send(n, st)
		}
	}
	if pending == 0 {
		x.report(acked)
	}
	return next
}

// report tells of a part whose closest nodes have the value, once.
func (x *putPart) report(acked int) {
	p := x.p
	if !x.reported {
		x.reported = true
		p.nodes += acked
		if p.left--; p.left == 0 {
			p.report()
		}
	}
	if p.permanent {
		return
	}
	if acked > 0 || p.o.handOn { // else what nobody has yet waits for nodes that come
		x.leave()
	}
	if p.left == 0 && !slices.ContainsFunc(p.parts, func(x *putPart) bool { return slices.Contains(x.s.puts, x) }) {
		p.Cancel()
	}
}

// send does the next thing at a node: a probe, a put, or a refresh.
func (x *putPart) send(n *searchNode, st *putState) {
	c, v := x.p.c, x.p.value
	st.busy = true
	renew := v.Type == mapping.TypeCertificate && !v.Encrypted() && !v.Signed() && !st.sent && !x.p.o.handOn // it may be newer than the one there
	if st.probed.IsZero() || c.now.Sub(st.probed) > probeHold || renew && !st.asked {
		q := probe
		if renew {
			q, st.asked = certProbe, true
		}
		q = q.Filtered(wire.Condition{Field: wire.FieldID, Num: v.ID})
		x.s.ask(n, wire.Message{Kind: wire.Get, Target: x.p.key, Has: wire.HasQuery, Query: q}, func(m *wire.Message, _ [][]byte) {
			st.busy = false
			x.probed(n.p, m)
		}, func(int) { st.busy, st.fails = false, st.fails+1 })
		return
	}
	m := wire.Message{Kind: wire.Put, Target: x.p.key, Token: n.token, Has: wire.HasToken}
	values := [][]byte{v.Packed}
	switch {
	case st.has && st.seq > v.Seq && v.Signed():
		st.busy, st.acked = false, c.now
		if fn := x.p.o.Stale; fn != nil {
			seq := st.seq
			c.timer.at(c.now, func() { fn(seq) })
		}
		x.s.kick()
		return
	case st.has && x.p.o.handOn: // a refresh would make it live longer
		st.busy, st.acked = false, c.now
		x.s.kick()
		return
	case st.has && !(renew && !st.owned) && (st.seq == v.Seq || !v.Signed()):
		m.Kind, m.ValueID, values = wire.Refresh, v.ID, nil
		m.Has |= wire.HasValueID
	case !x.p.permanent:
		m.Created = x.p.created.Unix()
		m.Has |= wire.HasCreated
	}
	x.s.msgs++
	c.request(n.p, m, values, &request{
		done: func(*wire.Message, [][]byte) {
			st.sent = st.sent || values != nil
			st.busy, st.acked, st.fails = false, c.now, 0
			x.s.kick()
		},
		fail: func(code int) {
			st.busy, st.fails, st.probed = false, st.fails+1, time.Time{}
			if code == wire.ErrUnauthorized {
				n.token = nil
			}
			x.s.kick()
		},
	})
}
