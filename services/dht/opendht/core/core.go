package core

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Config of a node.
type Config struct {
	ID         jami.ID
	Network    uint32 // 0: the public one
	Client     bool   // stores nothing for others and asks to be left out of their tables
	IPv4, IPv6 bool   // which families there are
	Seed       [32]byte
	Now        time.Time
	// Send sends one datagram. It doesn't keep b.
	Send func(to netip.AddrPort, b []byte)
	// MaxStore bounds the bytes of others' values; 0: 64 MiB.
	MaxStore int
	// Queries and HostQueries bound the queries a second that are answered in all, and of
	// one host (an IPv6 /64 counts as one); 0: 8192 and 1024 (§1.6).
	Queries, HostQueries int
}

// Families of addresses; each has its own table and searches (§1.6).
const (
	v4 = iota
	v6
	families
)

func family(a netip.Addr) int {
	if a.Is4() {
		return v4
	}
	return v6
}

// Core is one node. Its methods are not safe for concurrent use.
type Core struct {
	cfg   Config
	self  jami.ID
	now   time.Time
	rand  *rand.Rand
	timer timers
	start time.Time
	stats Stats
	on    [families]bool

	peers    map[peerKey]*peer
	tables   [families]table
	requests map[requestKey]*request
	partials map[requestKey]*partial
	partial  int // bytes of values that are coming in
	searches [families]map[jami.ID]*search
	rtt      time.Duration // smoothed
	tokens   tokens
	guard    guard
	store    storage
	listens  map[sidKey]*listenNode
	puts     map[putKey]*Put
	boot     bootstrap
	seen     [families]sight
	msg      wire.Message // the packet in Handle
	out      []byte       // scratch of sending
	token    [sha256.Size]byte
	lists    [families][wire.MaxNodes * wire.Node6]byte
}

// New makes a node; it sends nothing before the first call.
func New(c Config) *Core {
	if c.MaxStore == 0 {
		c.MaxStore = maxStore
	}
	if c.Queries == 0 {
		c.Queries = queriesMost
	}
	if c.HostQueries == 0 {
		c.HostQueries = hostQueries
	}
	n := &Core{cfg: c, self: c.ID, now: c.Now, start: c.Now, rand: rand.New(rand.NewChaCha8(c.Seed)), on: [families]bool{c.IPv4, c.IPv6},
		peers: map[peerKey]*peer{}, requests: map[requestKey]*request{}, partials: map[requestKey]*partial{},
		listens: map[sidKey]*listenNode{}, puts: map[putKey]*Put{}, rtt: firstRTT}
	for f := range n.tables {
		n.tables[f].init(c.ID)
		n.searches[f] = map[jami.ID]*search{}
	}
	n.tokens.init(n)
	n.guard.init(c.Now)
	n.store.init()
	n.boot.init()
	n.startUpkeep()
	return n
}

// ID returns the node's id.
func (c *Core) ID() jami.ID { return c.self }

// Stale counts a packet that waited too long to be handled.
func (c *Core) Stale() { c.stats.Stale++ }

// Advance sets the time, does what is due, and returns when to call it again.
func (c *Core) Advance(now time.Time) (next time.Time) {
	if now.After(c.now) {
		c.now = now
	}
	return c.timer.run(c.now)
}

// Handle takes one datagram in.
func (c *Core) Handle(now time.Time, from netip.AddrPort, b []byte) {
	c.Advance(now)
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	c.stats.Received++
	c.stats.ReceivedBytes += uint64(len(b))
	if !usable(from) || !c.on[family(from.Addr())] {
		c.stats.Unusable++
		return
	}
	m := &c.msg
	if err := wire.Decode(b, m); err != nil {
		c.stats.Malformed++
		return
	}
	if m.Network != c.cfg.Network {
		c.stats.Foreign++
		return
	}
	if m.ID == c.self {
		c.stats.Own++
		return
	}
	c.stats.In[m.Kind].add(len(b))
	switch {
	case m.Kind == wire.Fragment:
		c.fragment(from, m)
	case m.Kind == wire.Reply, m.Kind == wire.Error:
		c.reply(from, m, b)
	case m.Kind == wire.Legacy:
		c.told(from, m, b)
	case m.Kind.Query():
		c.query(from, m, b)
	}
	c.timer.run(c.now)
}

// send sends a packet of a kind.
func (c *Core) send(to netip.AddrPort, k wire.Kind, b []byte) {
	c.stats.Out[k].add(len(b))
	c.stats.Sent++
	c.stats.SentBytes += uint64(len(b))
	c.cfg.Send(to, b)
}

// jitter returns a time from d to d and a half.
func (c *Core) jitter(d time.Duration) time.Duration {
	return d + time.Duration(c.rand.Int64N(int64(d/2)+1))
}

// randomID returns any id.
func (c *Core) randomID() (id jami.ID) {
	for i := 0; i < len(id); i += 4 {
		binary.BigEndian.PutUint32(id[i:], c.rand.Uint32())
	}
	return id
}

// The secret of tokens lives for this time and half as long again at most; the one
// before it is still good (§1.2: 15 to 45 min).
const tokenSecret = 20 * time.Minute

// tokens are bound to an address and port.
type tokens struct {
	now, before [16]byte
}

func (t *tokens) init(c *Core) {
	for i := 0; i < len(t.now); i += 8 {
		binary.BigEndian.PutUint64(t.now[i:], c.rand.Uint64())
		binary.BigEndian.PutUint64(t.before[i:], c.rand.Uint64())
	}
	c.timer.at(c.now.Add(c.jitter(tokenSecret)), func() { t.rotate(c) })
}

func (t *tokens) rotate(c *Core) {
	old := t.now
	t.init(c)
	t.before = old
}

func token(secret *[16]byte, a netip.AddrPort) [sha256.Size]byte {
	var b [34]byte
	copy(b[:], secret[:])
	ip := a.Addr().As16()
	copy(b[16:], ip[:])
	binary.BigEndian.PutUint16(b[32:], a.Port())
	return sha256.Sum256(b[:])
}

// make returns the token of an address.
func (t *tokens) make(a netip.AddrPort) [sha256.Size]byte { return token(&t.now, a) }

// ok reports whether an address brought a token that it was given.
func (t *tokens) ok(a netip.AddrPort, b []byte) bool {
	if len(b) != sha256.Size {
		return false
	}
	for _, s := range []*[16]byte{&t.now, &t.before} {
		if token(s, a) == [sha256.Size]byte(b) {
			return true
		}
	}
	return false
}
