package core

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Quotas (§1.6). One host has an eighth of the room, unless it is near us.
const (
	maxStore   = 64 << 20
	keyValues  = 4096
	hostShare  = 8
	valueExtra = 256 // bytes that a value takes beside its packed form
)

// typeService is the type of values to which the sender's address is added (§1.7).
const typeService = 2

// Value is one value. Neither part is ever changed.
type Value struct {
	*jami.Value
	Packed []byte // smallest form
}

// NewValue packs a value.
func NewValue(v *jami.Value) (*Value, error) {
	b, err := v.Pack()
	if err != nil {
		return nil, err
	}
	return &Value{v, bytes.Clone(b)}, nil // a packer's buffer has far more room than it fills
}

// parseValue reads what a stranger sent and checks its signature, if it has one. It
// keeps nothing of b.
func parseValue(b []byte) (*Value, error) {
	v, err := jami.ParseValue(b)
	if err != nil {
		return nil, err
	}
	if v.Signed() {
		if err := v.Verify(); err != nil {
			return nil, err
		}
	}
	x, err := NewValue(v)
	if err != nil {
		return nil, err
	}
	for _, part := range []*[]byte{&v.Data, &v.Cipher, &v.Owner, &v.Sig} {
		if i := bytes.Index(x.Packed, *part); i >= 0 && len(*part) > 0 { // once in memory is enough
			*part = x.Packed[i : i+len(*part) : i+len(*part)]
		}
	}
	return x, nil
}

// lifetime is how long nodes keep it: they don't see the type of an encrypted one.
func (v *Value) lifetime() time.Duration { return overlay.Lifetime(v.Type) }

// same reports whether two values are the same bytes.
func (v *Value) same(o *Value) bool { return bytes.Equal(v.Packed, o.Packed) }

// stored is a value on a shelf.
type stored struct {
	*Value
	created time.Time
	expires time.Time
	host    netip.Addr // who put it; invalid: this node
	timer   *task
	age     *list.Element // place among its host's
}

// shelf is what is under one key.
type shelf struct {
	key       jami.ID
	values    []*stored
	listeners map[sidKey]*listener
	local     []*Listen
	near      []jami.ID // the closest nodes when it was last handed on
}

// usage is what one host put.
type usage struct {
	bytes int
	old   list.List // of *stored's holders, oldest first
}

type holding struct {
	s *shelf
	v *stored
}

type storage struct {
	keys      map[jami.ID]*shelf
	hosts     map[netip.Addr]*usage
	bytes     int
	listeners int
}

func (s *storage) init() {
	s.keys = map[jami.ID]*shelf{}
	s.hosts = map[netip.Addr]*usage{}
}

func (c *Core) shelf(key jami.ID) *shelf {
	s := c.store.keys[key]
	if s == nil {
		s = &shelf{key: key}
		c.store.keys[key] = s
	}
	return s
}

// tidy removes a shelf that nothing needs.
func (c *Core) tidy(s *shelf) {
	if len(s.values) == 0 && len(s.listeners) == 0 && len(s.local) == 0 {
		delete(c.store.keys, s.key)
	}
}

func (s *shelf) get(id uint64) *stored {
	for _, v := range s.values {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// keeps reports whether this node is close enough to a key (§1.6).
func (c *Core) keeps(key jami.ID) bool {
	if c.cfg.Client {
		return false
	}
	for f := range c.tables {
		if !c.on[f] {
			continue
		}
		var buf [searchNodes]*peer
		near := c.tables[f].closest(buf[:0], &key, searchNodes, func(p *peer) bool { return p.good(c.now) })
		if len(near) < searchTarget || len(near) < searchNodes || closer(&key, &c.self, &near[len(near)-1].id) {
			return true
		}
	}
	return false
}

type outcome uint8

const (
	refused outcome = iota
	added
	refreshed
)

// storeValue takes a value in if its rules allow it. from is zero for this node's own.
func (c *Core) storeValue(key jami.ID, v *Value, created time.Time, from netip.AddrPort) outcome {
	expires := created.Add(v.lifetime())
	if !expires.After(c.now) {
		return refused
	}
	s := c.store.keys[key]
	var old *stored
	if s != nil {
		old = s.get(v.ID)
	}
	if old != nil && old.same(v) {
		if expires.After(old.expires) {
			c.extend(s, old, expires)
		}
		return refreshed
	}
	if v = c.accept(key, v, old, from); v == nil {
		return refused
	}
	var h netip.Addr
	if from.IsValid() {
		h = limits.Subnet(from.Addr())
		if s != nil && old == nil && len(s.values) >= keyValues || !c.makeRoom(h, len(v.Packed)+valueExtra) {
			return refused
		}
		s = c.shelf(key) // making room may have tidied it away
		old = s.get(v.ID)
	} else {
		s = c.shelf(key)
	}
	if old != nil {
		c.takeOff(s, old)
	}
	x := &stored{Value: v, created: created, expires: expires, host: h}
	x.timer = c.timer.at(expires, func() { c.expireValue(s, x) })
	s.values = append(s.values, x)
	if s.near == nil {
		s.near = c.near(&key) // who put it told these, too
	}
	if h.IsValid() {
		u := c.store.hosts[h]
		if u == nil {
			u = &usage{}
			c.store.hosts[h] = u
		}
		u.bytes += len(v.Packed) + valueExtra
		c.store.bytes += len(v.Packed) + valueExtra
		x.age = u.old.PushBack(holding{s, x})
	}
	c.tell(s, wire.HasValues, x)
	return added
}

// extend gives a value its lifetime anew.
func (c *Core) extend(s *shelf, v *stored, expires time.Time) {
	v.expires = expires
	c.timer.set(v.timer, expires)
	c.tell(s, wire.HasRefreshed, v)
}

// expireValue ends a value, unless this node puts it still.
func (c *Core) expireValue(s *shelf, v *stored) {
	if p := c.puts[putKey{s.key, v.ID}]; p != nil && p.permanent && p.value.same(v.Value) {
		v.expires = c.now.Add(v.lifetime())
		c.timer.set(v.timer, v.expires)
		return
	}
	c.takeOff(s, v)
	c.tell(s, wire.HasExpired, v)
	c.tidy(s)
}

// takeOff removes a value without telling.
func (c *Core) takeOff(s *shelf, v *stored) {
	if i := slices.Index(s.values, v); i >= 0 {
		s.values = slices.Delete(s.values, i, i+1)
	}
	c.timer.stop(v.timer)
	if v.age == nil {
		return
	}
	n := len(v.Packed) + valueExtra
	u := c.store.hosts[v.host]
	u.old.Remove(v.age)
	u.bytes -= n
	c.store.bytes -= n
	if u.old.Len() == 0 {
		delete(c.store.hosts, v.host)
	}
}

// makeRoom evicts the oldest values of the host itself when it has more than its
// share, and of the heaviest host when the store is full (§1.6).
func (c *Core) makeRoom(h netip.Addr, n int) bool {
	most := c.cfg.MaxStore
	if !local(h) {
		most /= hostShare
	}
	if n > most {
		return false
	}
	for u := c.store.hosts[h]; u != nil && u.bytes+n > most && u.old.Len() > 0; {
		c.evict(u)
	}
	for c.store.bytes+n > c.cfg.MaxStore {
		var heavy *usage
		var who netip.Addr
		for a, u := range c.store.hosts {
			if heavy == nil || u.bytes > heavy.bytes || u.bytes == heavy.bytes && a.Less(who) {
				heavy, who = u, a
			}
		}
		c.evict(heavy)
	}
	return true
}

func (c *Core) evict(u *usage) {
	h := u.old.Front().Value.(holding)
	c.stats.Evicted++
	c.takeOff(h.s, h.v)
	c.tell(h.s, wire.HasExpired, h.v)
	c.tidy(h.s)
}

// accept applies the policies (§1.7) and returns the value to store, or nil. old is
// what has the same id, or nil.
func (c *Core) accept(key jami.ID, v *Value, old *stored, from netip.AddrPort) *Value {
	if old != nil {
		switch {
		case old.Signed():
			if !v.Signed() || !bytes.Equal(v.Owner, old.Owner) || v.Seq <= old.Seq {
				return nil // an equal sequence with the same bytes was a refresh
			}
		case old.Type != mapping.TypeCertificate || old.Encrypted() || v.Type != mapping.TypeCertificate:
			return nil
		}
	}
	if v.Encrypted() {
		return v
	}
	if mapping.Fits(key, v.Type, v.Data) != nil {
		return nil
	}
	if v.Type == typeService && from.IsValid() {
		return withAddress(v, from.Addr())
	}
	return v
}

// withAddress puts the sender's address into a service announcement, whose data is a
// raw Linux sockaddr in bin (§1.7); nil if it is none.
func withAddress(v *Value, ip netip.Addr) *Value {
	b, err := jami.ParseBin(v.Data)
	if err != nil || len(b) < 4 || v.Signed() {
		return nil
	}
	port := binary.BigEndian.Uint16(b[2:])
	var addr []byte
	if ip.Is4() {
		addr = binary.LittleEndian.AppendUint16(nil, 2)
		addr = binary.BigEndian.AppendUint16(addr, port)
		x := ip.As4()
		addr = append(append(addr, x[:]...), make([]byte, 8)...)
	} else {
		addr = binary.LittleEndian.AppendUint16(nil, 10)
		addr = binary.BigEndian.AppendUint16(addr, port)
		x := ip.As16()
		addr = append(append(append(addr, 0, 0, 0, 0), x[:]...), 0, 0, 0, 0)
	}
	c := *v.Value
	if c.Data, err = jami.PackBin(addr); err != nil {
		return nil
	}
	out, err := NewValue(&c)
	if err != nil {
		return nil
	}
	return out
}

// refreshStored answers a refresh: an error only when the key is unknown (§1.2).
func (c *Core) refreshStored(from netip.AddrPort, m *wire.Message) {
	s := c.store.keys[m.Target]
	if s == nil || len(s.values) == 0 {
		c.refuse(from, m, wire.ErrNotFound, "no value under this key")
		return
	}
	if v := s.get(m.ValueID); v != nil {
		c.extend(s, v, c.now.Add(v.lifetime()))
	}
	c.answer(from, m, &m.ValueID)
}

// find returns what is stored under a key and meets a query.
func (c *Core) find(key jami.ID, q *wire.Query) []*stored {
	s := c.store.keys[key]
	if s == nil {
		return nil
	}
	if len(q.Where()) == 0 {
		return s.values
	}
	var out []*stored
	for _, v := range s.values {
		if matches(v.Value, q) {
			out = append(out, v)
		}
	}
	return out
}

// matches reports whether a value meets all conditions.
func matches(v *Value, q *wire.Query) bool {
	for _, w := range q.Where() {
		ok := false
		switch w.Field {
		case wire.FieldID:
			ok = v.ID == w.Num
		case wire.FieldType:
			ok = uint64(v.Type) == w.Num
		case wire.FieldOwner:
			var id jami.ID
			if v.Signed() {
				id = v.Signer()
			}
			ok = bytes.Equal(id[:], w.Bytes)
		case wire.FieldUserType:
			ok = v.UserType == string(w.Bytes)
		}
		if !ok {
			return false
		}
	}
	return true
}

// selectFields packs the fields that a query asks for.
func selectFields(sel []wire.Field, values []*stored) wire.Fields {
	var b []byte
	n := 0
	for _, v := range values {
		if len(b) > answerFields {
			break
		}
		for _, f := range sel {
			n++
			switch f {
			case wire.FieldID:
				b = wire.AppendUint(b, v.ID)
			case wire.FieldType:
				b = wire.AppendUint(b, uint64(v.Type))
			case wire.FieldOwner:
				if v.Signed() {
					b = wire.AppendBin(b, v.Owner)
				} else {
					b = wire.AppendBin(b, make([]byte, len(jami.ID{})))
				}
			case wire.FieldSeq:
				b = wire.AppendUint(b, uint64(v.Seq))
			case wire.FieldUserType:
				b = wire.AppendStr(b, v.UserType)
			}
		}
	}
	return wire.NewFields(sel, wire.NewArray(n, b))
}
