package core_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/sim"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// TestOldListener: one that names no version gets values as answers and the rest as "u",
// all with its own number, and is not expected to answer (§1.1).
func TestOldListener(t *testing.T) {
	n := sim.New(40)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	a.send(x.Addr, wire.Message{Kind: wire.Listen, TID: 8, Target: key, Token: tok, SID: 77, Has: wire.HasToken | wire.HasSID})
	n.Run(time.Second)
	big := string(bytes.Repeat([]byte{'b'}, 3000))
	put := func(id uint64, data string, age int) {
		m := putMessage(key, tok, value(t, jami.Value{ID: id, Type: 5, Data: []byte(data)}))
		m.Created, m.Has = n.Now().Unix()-int64(age), m.Has|wire.HasCreated
		a.got = nil
		a.send(x.Addr, m)
		n.Run(time.Second)
	}
	data := func(kind wire.Kind) *wire.Message {
		t.Helper()
		for i := range a.got {
			if m := &a.got[i]; m.Kind == kind && m.TID == 77 {
				if !bytes.Equal(m.Token, tok) {
					t.Errorf("%s with token %x", kind, m.Token)
				}
				return m
			}
		}
		t.Errorf("no %s of the listener's number", kind)
		return &wire.Message{}
	}
	ids := func(what string, a wire.Array, want uint64) {
		t.Helper()
		if id, ok := a.NextUint(); !ok || id != want || a.Len() != 0 {
			t.Errorf("%s: %d, %v", what, id, ok)
		}
	}
	put(1, "a", 30)
	if m := data(wire.Reply); m.Values.Len() != 1 || m.Sizes {
		t.Errorf("told %+v", m)
	}
	put(1, "a", 10) // the same, younger
	ids("refreshed", data(wire.Legacy).Refreshed, 1)
	a.got = nil
	n.Run(51 * time.Second)
	ids("expired", data(wire.Legacy).Expired, 1)
	tok = a.token(t, x.Addr, key)
	sent := a.bytes
	m := putMessage(key, tok, value(t, jami.Value{ID: 2, Data: []byte("s")}))
	a.got = nil
	a.send(x.Addr, m)
	n.Run(time.Second)
	if m := data(wire.Reply); m.Values.Len() != 1 {
		t.Errorf("told %+v", m)
	}
	n.Run(20 * time.Second) // nothing is sent twice: there is no answer to wait for
	if a.bytes-sent > 1000 || x.Listeners() != 1 {
		t.Errorf("%d bytes, %d listeners", a.bytes-sent, x.Listeners())
	}
	b := newAttacker(n, n.NextAddr(), n.ID()) // a large one comes in fragments of the same number
	btok := b.token(t, x.Addr, key)
	l := wire.Message{Kind: wire.Put, TID: 9, Target: key, Token: btok, Has: wire.HasToken | wire.HasValues, Sizes: true}
	v := value(t, jami.Value{ID: 3, Data: []byte(big)})
	l.Values = wire.NewArray(1, wire.AppendUint(nil, uint64(len(v.Packed))))
	a.got = nil
	b.send(x.Addr, l)
	n.Run(time.Second)
	for off := 0; off < len(v.Packed); off += wire.Chunk {
		b.send(x.Addr, wire.Message{Kind: wire.Fragment, TID: 9, Pieces: wire.NewArray(2, wire.AppendPiece(nil,
			wire.Piece{Offset: uint32(off), Data: v.Packed[off:min(off+wire.Chunk, len(v.Packed))]}))})
		n.Run(100 * time.Millisecond)
	}
	if m := data(wire.Reply); !m.Sizes || a.last(wire.Fragment) == nil || a.last(wire.Fragment).TID != 77 {
		t.Errorf("a large one: %+v", m)
	}
}

// TestOldNodeTells: a node that knows no "update" tells this one as old ones do.
func TestOldNodeTells(t *testing.T) {
	n := sim.New(41)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	var sid uint32
	a.answer = func(q, r *wire.Message) bool {
		if q.Kind == wire.Listen {
			sid = q.SID
		}
		return true
	}
	x.Do(func() { x.Meet(a.addr) })
	n.Run(2 * time.Second)
	_, got := watch(x, key)
	n.Until(10*time.Second, func() bool { return sid != 0 })
	tell := func(m wire.Message) {
		m.TID, m.Token = sid, []byte("token")
		m.Has |= wire.HasToken
		a.send(x.Addr, m)
		n.Run(time.Second)
	}
	small, big := plain(t, 1, "small"), value(t, jami.Value{ID: 2, Data: bytes.Repeat([]byte{'b'}, 2000)})
	tell(wire.Message{Kind: wire.Reply, Has: wire.HasValues, Values: wire.NewArray(1, small.Packed)})
	waitFor(t, n, time.Second, got, "+small")
	tell(wire.Message{Kind: wire.Reply, Has: wire.HasValues, Sizes: true, Values: wire.NewArray(1, wire.AppendUint(nil, uint64(len(big.Packed))))})
	for off := 0; off < len(big.Packed); off += wire.Chunk {
		a.send(x.Addr, wire.Message{Kind: wire.Fragment, TID: sid, Pieces: wire.NewArray(2, wire.AppendPiece(nil,
			wire.Piece{Offset: uint32(off), Data: big.Packed[off:min(off+wire.Chunk, len(big.Packed))]}))})
		n.Run(100 * time.Millisecond)
	}
	waitFor(t, n, time.Second, got, "+small", "+"+string(big.Data))
	stranger := newAttacker(n, n.NextAddr(), a.id)
	stranger.send(x.Addr, wire.Message{Kind: wire.Legacy, TID: sid, Has: wire.HasExpired, Expired: wire.NewArray(1, wire.AppendUint(nil, 1))})
	n.Run(time.Second)
	waitFor(t, n, time.Second, got, "+small", "+"+string(big.Data))
	tell(wire.Message{Kind: wire.Legacy, Has: wire.HasExpired, Expired: wire.NewArray(1, wire.AppendUint(nil, 1))})
	waitFor(t, n, time.Second, got, "+small", "+"+string(big.Data), "-small")
}

// TestSmallMTU: a path that takes no more than 1280 bytes of IP, and drops what is larger
// without a word, lets everything through.
func TestSmallMTU(t *testing.T) {
	n := sim.New(42)
	n.MTU = wire.MaxDatagram
	nodes := n.Cluster(30, 100*time.Millisecond)
	key := jami.HashKey("listened")
	_, got := watch(nodes[3], key)
	n.Run(5 * time.Second)
	var want []string
	for i, size := range []int{0, 500, 590, 599, 600, 1200, 1280, 5000, 65000} {
		data := string(bytes.Repeat([]byte{byte('a' + i)}, size))
		k := jami.HashKey(fmt.Sprint(size))
		if at := put(t, n, nodes[i+4], k, value(t, jami.Value{ID: 7, Data: []byte(data)}), core.PutOptions{}); at != 8 {
			t.Errorf("%d bytes: at %d nodes, want 8", size, at)
		}
		n.Remove(nodes[i+4])
		mustGet(t, n, nodes[29-i], k, data)
		put(t, n, nodes[20], key, value(t, jami.Value{ID: uint64(i + 1), Data: []byte(data)}), core.PutOptions{})
		want = append(want, "+"+data)
		waitFor(t, n, 10*time.Second, got, slices.Clone(want)...)
	}
	if n.TooLarge > 0 {
		t.Errorf("%d packets did not fit", n.TooLarge)
	}
}

// TestAnswersFit: with two families, a value may go in fragments that would fit a packet
// alone.
func TestAnswersFit(t *testing.T) {
	n := sim.New(43)
	most := 0
	n.Tap = func(_, _ netip.AddrPort, b []byte) { most = max(most, len(b)) }
	x := n.Add(func(c *core.Config) { c.IPv6 = true })
	a := newAttacker(n, n.NextAddr(), n.ID())
	a.answer = pong
	for i := range 12 { // neighbours of both families
		for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{60, 1, 1, byte(i + 1)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0, byte(i), 0, 15: 1})} {
			b := newAttacker(n, netip.AddrPortFrom(ip, 4222), n.ID())
			b.answer = pong
			x.Do(func() { x.Meet(b.addr) })
		}
	}
	n.Run(5 * time.Second)
	key := jami.HashKey("k")
	x.Do(func() {
		if _, err := x.Put(key, value(t, jami.Value{ID: 1, Data: bytes.Repeat([]byte{1}, 560)}), core.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	n.Run(5 * time.Second)
	a.token(t, x.Addr, key)
	n.Run(time.Second)
	a.got = nil
	a.send(x.Addr, wire.Message{Kind: wire.Get, TID: 9, Target: key, Want: wire.Want4 | wire.Want6})
	n.Run(time.Second)
	r := a.last(wire.Reply)
	if r == nil || len(r.Nodes4) < 8*wire.Node4 || len(r.Nodes6) < 8*wire.Node6 || !r.Sizes {
		t.Errorf("answered %+v", r)
	}
	if most > wire.MaxDatagram {
		t.Errorf("a packet of %d bytes", most)
	}
}

// TestAddressChanges: a node whose address became another knows it soon, and is told what
// it listens to there.
func TestAddressChanges(t *testing.T) {
	n := sim.New(44)
	nodes := n.Cluster(30, 50*time.Millisecond)
	x, key := nodes[3], jami.HashKey("k")
	_, got := watch(x, key)
	n.Run(30 * time.Second)
	n.Move(x, n.NextAddr())
	began := n.Now()
	if !n.Until(time.Minute, func() bool { return slices.Equal(x.PublicAddrs(), []netip.Addr{x.Addr.Addr()}) }) {
		t.Fatalf("a minute later it is thought to be at %v", x.PublicAddrs())
	}
	if d := n.Now().Sub(began); d > 25*time.Second {
		t.Errorf("known after %s", d)
	}
	n.Run(2 * time.Second)
	put(t, n, nodes[9], key, plain(t, 1, "new"), core.PutOptions{})
	waitFor(t, n, 2*time.Second, got, "+new")
	n.Run(time.Minute)
	put(t, n, x, key, plain(t, 2, "own"), core.PutOptions{})
	mustGet(t, n, nodes[12], key, "new", "own")
}

// TestOneLiarDoesNotMove: what one host says of our address changes nothing.
func TestOneLiarDoesNotMove(t *testing.T) {
	n := sim.New(45)
	nodes := n.Cluster(10, 50*time.Millisecond)
	x := nodes[2]
	a := newAttacker(n, n.NextAddr(), n.ID())
	a.answer = func(_, r *wire.Message) bool {
		r.Addr = netip.MustParseAddr("203.0.113.7")
		return true
	}
	for range 5 {
		x.Do(func() { x.Meet(a.addr) })
		n.Run(5 * time.Second)
	}
	if got := x.PublicAddrs(); len(got) != 1 || got[0] != x.Addr.Addr() {
		t.Errorf("%v, want %v", got, x.Addr)
	}
}
