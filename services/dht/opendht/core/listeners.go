package core

import (
	"net/netip"
	"time"

	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// A listener is forgotten this long after it last asked (§1.6).
const listenerLife = 10 * time.Minute

// Bounds of others' listeners.
const (
	listenersMost = 16384
	listenersKey  = 2048
	updatesMost   = 64 // on the way to one listener
)

// sidKey is how an update finds its listener: where it comes from and the number that
// the listener chose.
type sidKey struct {
	addr netip.AddrPort
	sid  uint32
}

// listener is another node that wants to know of changes to a key.
type listener struct {
	peerKey
	sid     uint32
	old     bool // names no version: it gets no updates, but data as before there were any
	q       wire.Query
	at      time.Time // last asked
	pending int
}

// addListener takes a listener in, or notes that it still listens. A new one gets all
// that is there at once (§1.6).
func (c *Core) addListener(from netip.AddrPort, m *wire.Message) {
	if c.cfg.Client {
		c.answer(from, m, nil)
		return
	}
	s := c.shelf(m.Target)
	k := sidKey{from, m.SID}
	l := s.listeners[k]
	if l != nil && l.id == m.ID {
		l.at = c.now
		c.answer(from, m, nil)
		return
	}
	if c.store.listeners >= listenersMost || len(s.listeners) >= listenersKey {
		c.tidy(s)
		c.stats.Crowded++
		return // no answer: it goes to another node
	}
	if l == nil {
		c.store.listeners++
	}
	l = &listener{peerKey: peerKey{m.ID, from}, sid: m.SID, old: m.Version == 0, q: cloneQuery(&m.Query), at: c.now}
	if s.listeners == nil {
		s.listeners = map[sidKey]*listener{}
	}
	s.listeners[k] = l
	c.answer(from, m, nil)
	if vs := c.find(m.Target, &l.q); len(vs) > 0 {
		c.update(s, l, wire.HasValues, vs)
	}
}

// cloneQuery copies the texts that point into a packet.
func cloneQuery(q *wire.Query) wire.Query {
	out := wire.Query{}.Selecting(q.Select()...)
	for _, w := range q.Where() {
		w.Bytes = append([]byte(nil), w.Bytes...)
		out = out.Filtered(w)
	}
	return out
}

// tell tells all listeners of a key that a value came, was refreshed or expired.
func (c *Core) tell(s *shelf, what wire.Has, v *stored) {
	for k, l := range s.listeners {
		if c.now.Sub(l.at) > listenerLife {
			c.dropListener(s, k)
		}
	}
	for _, k := range sortedSIDs(s.listeners) {
		if l := s.listeners[k]; matches(v.Value, &l.q) {
			c.update(s, l, what, []*stored{v})
		}
	}
	for _, l := range s.local {
		l.changed(c, nil, v.Value, what)
	}
}

// update sends one update.
func (c *Core) update(s *shelf, l *listener, what wire.Has, vs []*stored) {
	if l.pending >= updatesMost {
		return // it asks again, and takes what it finds
	}
	m := wire.Message{Kind: wire.Update, SID: l.sid, Has: what | wire.HasSID | wire.HasToken}
	t := c.tokens.make(l.addr)
	m.Token = t[:]
	var values [][]byte
	if what == wire.HasValues {
		m.Has |= wire.HasTarget | wire.HasVersion
		m.Target, m.Version = s.key, 1
		total := 0
		for _, v := range vs {
			if total += len(v.Packed); total > answerBytes && len(values) > 0 || len(values) == answerValues {
				break
			}
			values = append(values, v.Packed)
		}
	} else {
		ids := wire.NewArray(1, wire.AppendUint(nil, vs[0].ID))
		m.Expired, m.Refreshed = ids, ids
	}
	if l.old {
		c.updateOld(l, m, values)
		return
	}
	l.pending++
	c.request(c.peer(l.id, l.addr), m, values, &request{
		done: func(*wire.Message, [][]byte) { l.pending-- },
		fail: func(int) { l.pending-- },
	})
}

// updateOld tells one that names no version. It does not answer, so nothing is sent
// again; what is lost it gets when it asks again.
func (c *Core) updateOld(l *listener, m wire.Message, values [][]byte) {
	u := wire.Message{Kind: wire.Legacy, TID: l.sid, Network: c.cfg.Network, ID: c.self, Token: m.Token, Has: m.Has & (wire.HasToken | wire.HasExpired | wire.HasRefreshed),
		Expired: m.Expired, Refreshed: m.Refreshed}
	if values != nil {
		u.Kind, u.Addr = wire.Reply, l.addr.Addr()
		values = c.attach(&u, values)
	}
	c.sendMessage(l.addr, &u)
	c.sendChunks(l.addr, l.sid, values)
}

func (c *Core) dropListener(s *shelf, k sidKey) {
	if _, ok := s.listeners[k]; ok {
		delete(s.listeners, k)
		c.store.listeners--
	}
}

// dropListeners forgets those of a peer that does not answer.
func (c *Core) dropListeners(p peerKey) {
	if c.store.listeners == 0 {
		return
	}
	for _, s := range c.store.keys {
		for k, l := range s.listeners {
			if l.peerKey == p {
				c.dropListener(s, k)
			}
		}
		c.tidy(s)
	}
}
