package trunk

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/wire"
)

// Socket is what trunks are sent through.
type Socket interface {
	Sockaddr(netip.AddrPort) (wire.Sockaddr, bool)
	Writer() *wire.Writer // for one packet's way to all peers
	Done(*wire.Writer)    // flushed
}

// Trunks are those of all rooms of a worker.
type Trunks struct {
	key  *Key
	sock Socket

	mu   sync.RWMutex
	sets map[string]*Set     // by room
	byID map[uint64]*session // who sends to us
}

// New makes the trunks of a worker; there are none before [Trunks.Set].
func New(key *Key, sock Socket) *Trunks {
	return &Trunks{key: key, sock: sock, sets: map[string]*Set{}, byID: map[uint64]*session{}}
}

// Set is a room's trunks.
type Set struct {
	name  string
	sock  Socket
	room  *mix.Room
	peers atomic.Pointer[[]*session]
	from  sync.Map // *mix.Member → *session
}

// Has reports whether a room has trunks.
func (t *Trunks) Has(name string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.sets[name] != nil
}

// Set makes the trunks of a room those to the given peers: trunks to others end, those that are
// there go on. room is the mixer; it must stay the same while the room has trunks. Without a
// peer the room has none any more. When a peer is refused nothing changes. Calls for one room must not overlap.
func (t *Trunks) Set(name string, room *mix.Room, peers []Peer) error {
	t.mu.RLock()
	set := t.sets[name]
	t.mu.RUnlock()
	if set == nil {
		set = &Set{name: name, sock: t.sock, room: room}
		set.peers.Store(new([]*session))
	}
	old := *set.peers.Load()
	relay := false
	next := make([]*session, 0, len(peers))
	var fresh []*session
	for i := range peers {
		p := &peers[i]
		relay = relay || p.Leaf
		to, ok := t.sock.Sockaddr(p.Addr)
		if !ok {
			return fmt.Errorf("%w: worker %q cannot be reached at %v", ErrPeer, p.Worker, p.Addr)
		}
		if k := slices.IndexFunc(old, func(x *session) bool { return x.same(p) }); k >= 0 {
			next = append(next, old[k])
			continue
		}
		x, err := newSession(set, name, t.key, p, to)
		if err != nil {
			return err
		}
		next, fresh = append(next, x), append(fresh, x)
	}
	t.mu.Lock()
	for _, x := range fresh {
		t.byID[x.inID] = x
	}
	var gone []*session
	for _, x := range old {
		if !slices.Contains(next, x) {
			delete(t.byID, x.inID)
			gone = append(gone, x)
		}
	}
	if len(next) == 0 {
		delete(t.sets, name)
	} else {
		t.sets[name] = set
	}
	t.mu.Unlock()
	set.peers.Store(&next)
	if len(next) == 0 {
		room.SetTrunk(nil, false)
	} else {
		room.SetTrunk(set, relay)
	}
	for _, x := range gone {
		x.close()
	}
	return nil
}

// same reports whether the session is the one that p means.
func (x *session) same(p *Peer) bool {
	q := &x.peer
	return q.Worker == p.Worker && q.Started == p.Started && q.Nonce == p.Nonce && q.Addr == p.Addr && q.Leaf == p.Leaf && string(q.Public) == string(p.Public)
}

// Carry is [mix.Trunk].
func (s *Set) Carry(m *mix.Member, id mix.CodecID, p mix.Packet) {
	var from *session
	if m.Remote() {
		v, ok := s.from.Load(m)
		if !ok {
			return // just gone
		}
		from = v.(*session)
	}
	w := s.sock.Writer()
	for _, x := range *s.peers.Load() {
		if !x.wants(from) {
			continue
		}
		if n := x.seal(w.Slot(), m.ID(), id, &p); n > 0 {
			w.Queue(n, &x.to)
		}
	}
	s.sock.Done(w)
}

// Receive takes a datagram that [wire.Classify] says is a trunk's, and changes its bytes. An
// error says that it was dropped.
func (t *Trunks) Receive(b []byte, now int64) error {
	if len(b) < SessionIDLen {
		return ErrMalformed
	}
	t.mu.RLock()
	x := t.byID[binary.BigEndian.Uint64(b)]
	t.mu.RUnlock()
	if x == nil {
		return ErrRefused
	}
	return x.receive(b, now)
}

// Expire forgets speakers who were silent for long; it is to be called now and then.
func (t *Trunks) Expire(now int64) {
	t.mu.RLock()
	all := make([]*session, 0, len(t.byID))
	for _, x := range t.byID {
		all = append(all, x)
	}
	t.mu.RUnlock()
	for _, x := range all {
		x.expire(now)
	}
}

// Counts are those of all sessions that are there.
type Counts struct {
	Sessions       int
	Sent, Received uint64 // packets
}

// Counts returns them.
func (t *Trunks) Counts() Counts {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := Counts{Sessions: len(t.byID)}
	for _, x := range t.byID {
		c.Sent += x.sent.Load()
		c.Received += x.received.Load()
	}
	return c
}
