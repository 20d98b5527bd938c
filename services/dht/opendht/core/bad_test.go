package core_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/sim"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

// packets are those of the vectors.
func packets(t *testing.T) (out [][]byte) {
	t.Helper()
	b, err := os.ReadFile("../wire/testdata/packets.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []struct{ Hex string }
	if err := json.Unmarshal(b, &vs); err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		p, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// TestMalformedIsSilent: what is no packet gets no answer and leaves the node as it was.
func TestMalformedIsSilent(t *testing.T) {
	n := sim.New(80)
	x := n.Add(nil)
	a := newAttacker(n, n.NextAddr(), n.ID())
	sent := 0
	for _, p := range packets(t) {
		for cut := 0; cut < len(p); cut += 3 { // an end is missing
			n.Send(a.addr, x.Addr, p[:cut])
			sent++
		}
		deep := append([]byte{0x81, 0xa1, 'a'}, bytes.Repeat([]byte{0x91}, 2000)...)
		huge := []byte{0x81, 0xa1, 'a', 0xdf, 0xff, 0xff, 0xff, 0xff}
		for _, bad := range [][]byte{append(bytes.Clone(p), 0), deep, huge, {}, bytes.Repeat([]byte{0xc1}, 1000)} {
			n.Send(a.addr, x.Addr, bad)
			sent++
		}
		n.Run(2 * time.Second)
	}
	if s := x.Stats(); int(s.Malformed) != sent || len(a.got) != 0 {
		t.Errorf("%d of %d are malformed, %d answers", s.Malformed, sent, len(a.got))
	}
}

// TestReplay: a signed value of an earlier sequence changes nothing, neither at a node nor
// for who gets it or listens; the same one again only lives on. One that was changed on its
// way is dropped.
func TestReplay(t *testing.T) {
	n := sim.New(81)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	_, got := watch(x, key)
	old, now := signed(t, 0, 7, 1, "old"), signed(t, 0, 7, 2, "new")
	send := func(v *core.Value) {
		t.Helper()
		a.got = nil
		a.send(x.Addr, putMessage(key, tok, v))
		n.Run(time.Second)
		if r := a.last(wire.Reply); r == nil || r.ValueID != 7 { // stock nodes say so, too (§1.2)
			t.Errorf("answered %+v", r)
		}
	}
	send(old)
	send(now)
	refused := x.Stats().Refused
	send(old)
	send(signed(t, 1, 7, 9, "of another"))
	send(plain(t, 7, "unsigned"))
	if s := x.Stats(); s.Refused != refused+3 {
		t.Errorf("%d refused", s.Refused-refused)
	}
	send(now)
	forged := *signed(t, 0, 8, 3, "forged").Value
	forged.Seq = 4
	a.send(x.Addr, putMessage(key, tok, value(t, forged)))
	n.Run(time.Second)
	mustGet(t, n, x, key, "new")
	waitFor(t, n, time.Second, got, "+old", "+new")
}

// TestTooLarge: a value that is more than a value may be is not kept, nor waited for.
func TestTooLarge(t *testing.T) {
	n := sim.New(82)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	for _, size := range []uint64{wire.MaxPacked + 1, 1 << 31, 1<<64 - 1} {
		a.send(x.Addr, wire.Message{Kind: wire.Put, TID: 9, Target: key, Token: tok, Has: wire.HasToken | wire.HasValues, Values: wire.NewArray(1, wire.AppendUint(nil, size))})
		n.Run(100 * time.Millisecond)
		if x.Incoming() != 0 {
			t.Errorf("%d bytes: %d are waited for", size, x.Incoming())
		}
	}
	if v, _ := x.Storage(); v != 0 {
		t.Errorf("%d values", v)
	}
	if _, err := (&jami.Value{ID: 1, Data: make([]byte, 70000)}).Pack(); err == nil {
		t.Error("packed")
	}
}

// TestClockSkew: a time of creation that lies ahead counts as now, one of a lifetime ago
// keeps nothing, and none is too large or small.
func TestClockSkew(t *testing.T) {
	n := sim.New(83)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	for i, created := range []int64{n.Now().Unix() + 3600, 1<<63 - 1, n.Now().Unix() - 601, 0} {
		m := putMessage(key, tok, plain(t, uint64(i+1), fmt.Sprint(i)))
		m.Created, m.Has = created, m.Has|wire.HasCreated
		a.send(x.Addr, m)
	}
	n.Run(time.Second)
	mustGet(t, n, x, key, "0", "1")
	n.Run(10 * time.Minute)
	mustGet(t, n, x, key)
}

// TestBadBootstrap: one that is down, one that names itself only, and one that names
// nodes that aren't there do not keep a node from the network that another one knows.
func TestBadBootstrap(t *testing.T) {
	n := sim.New(84)
	nodes := n.Cluster(30, 50*time.Millisecond)
	down := n.NextAddr()
	alone := newAttacker(n, n.NextAddr(), n.ID())
	alone.answer = pong
	liar := newAttacker(n, n.NextAddr(), n.ID())
	liar.answer = func(q, r *wire.Message) bool {
		for range wire.MaxNodes {
			r.Nodes4 = wire.AppendNode(r.Nodes4, n.ID(), n.NextAddr())
		}
		r.Has |= wire.HasNodes4
		return true
	}
	x := n.Add(nil)
	began := n.Now()
	x.Do(func() { x.Bootstrap([]netip.AddrPort{down, alone.addr, liar.addr, nodes[4].Addr}) })
	if !n.Until(time.Minute, func() bool { return x.Counts().Good >= 8 }) {
		t.Fatalf("knows %+v", x.Counts())
	}
	t.Logf("8 nodes are known after %s", n.Now().Sub(began))
	n.Run(20 * time.Second)
	if at := put(t, n, x, jami.HashKey("k"), plain(t, 1, "a"), core.PutOptions{}); at != 8 {
		t.Errorf("put at %d nodes", at)
	}
	mustGet(t, n, nodes[9], jami.HashKey("k"), "a")
	// With none but those, it says that nobody has its value.
	y := n.Add(nil)
	y.Do(func() { y.Bootstrap([]netip.AddrPort{down, liar.addr}) })
	n.Run(time.Minute)
	liar.answer = nil
	if at := put(t, n, y, jami.HashKey("k2"), plain(t, 1, "b"), core.PutOptions{}); at != 0 {
		t.Errorf("said to be at %d nodes", at)
	}
}

// TestPutThatIsNotStored says so: with an error when this node itself refuses it, with no
// nodes when none takes it.
func TestPutThatIsNotStored(t *testing.T) {
	n := sim.New(85)
	nodes := n.Cluster(20, 50*time.Millisecond)
	x, key := nodes[2], jami.HashKey("k")
	put(t, n, x, key, signed(t, 0, 7, 5, "signed"), core.PutOptions{})
	for name, v := range map[string]*core.Value{"unsigned": plain(t, 7, "x"), "older": signed(t, 0, 7, 4, "x"), "of another": signed(t, 1, 7, 9, "x")} {
		x.Do(func() {
			if _, err := x.Put(key, v, core.PutOptions{}); !errors.Is(err, core.ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for _, y := range nodes {
		if y != x {
			n.Remove(y)
		}
	}
	if at := put(t, n, x, jami.HashKey("alone"), plain(t, 1, "x"), core.PutOptions{}); at != 0 {
		t.Errorf("said to be at %d nodes", at)
	}
	z := nodes[2]
	mustGet(t, n, z, jami.HashKey("alone"), "x")
}

// amplificationMost is how many bytes an address that never answered gets for each that
// it sent, beside the pings which ask for a proof: at most three of 60 bytes, however much
// it sends.
const amplificationMost = 4

// TestAmplificationOfEveryKind: of each kind of packet, good and bad, from an address that
// never answers. The table says bytes out for each byte in.
func TestAmplificationOfEveryKind(t *testing.T) {
	n := sim.New(86)
	nodes := n.Cluster(25, 50*time.Millisecond)
	x, key := nodes[3], jami.HashKey("k")
	for i := range 20 {
		put(t, n, x, key, value(t, jami.Value{ID: uint64(i + 1), Data: bytes.Repeat([]byte{1}, 3000)}), core.PutOptions{})
		put(t, n, x, key, value(t, jami.Value{ID: uint64(i + 100), Data: bytes.Repeat([]byte{1}, 30)}), core.PutOptions{})
	}
	wrong := make([]byte, 32)
	one := plain(t, 1, "x")
	sizes := wire.AppendUint(nil, 60000)
	want := wire.Want4 | wire.Want6
	id := wire.Query{}.Filtered(wire.Condition{Field: wire.FieldID, Num: 101})
	var out strings.Builder
	for _, c := range []struct {
		name string
		m    wire.Message
	}{
		{"ping", wire.Message{Kind: wire.Ping}},
		{"find", wire.Message{Kind: wire.Find, Target: key}},
		{"find, both families", wire.Message{Kind: wire.Find, Target: key, Want: uint8(want)}},
		{"get, nothing there", wire.Message{Kind: wire.Get, Target: jami.HashKey("none")}},
		{"get, all values", wire.Message{Kind: wire.Get, Target: key}},
		{"get, ids", wire.Message{Kind: wire.Get, Target: key, Has: wire.HasQuery, Query: wire.Query{}.Selecting(wire.FieldID)}},
		{"get, one value", wire.Message{Kind: wire.Get, Target: key, Has: wire.HasQuery, Query: id}},
		{"put, wrong token", wire.Message{Kind: wire.Put, Target: key, Token: wrong, Has: wire.HasToken | wire.HasValues, Values: wire.NewArray(1, one.Packed)}},
		{"put of fragments, wrong token", wire.Message{Kind: wire.Put, Target: key, Token: wrong, Has: wire.HasToken | wire.HasValues, Sizes: true, Values: wire.NewArray(1, sizes)}},
		{"refresh, wrong token", wire.Message{Kind: wire.Refresh, Target: key, Token: wrong, ValueID: 1, Has: wire.HasToken | wire.HasValueID}},
		{"listen, wrong token", wire.Message{Kind: wire.Listen, Target: key, Token: wrong, SID: 5, Has: wire.HasToken | wire.HasSID}},
		{"update of nothing", wire.Message{Kind: wire.Update, Target: key, SID: 5, Has: wire.HasSID | wire.HasTarget}},
		{"get of the zero key", wire.Message{Kind: wire.Get}},
		{"reply to nothing", wire.Message{Kind: wire.Reply}},
		{"error to nothing", wire.Message{Kind: wire.Error, Code: 401, Text: []byte("x")}},
		{"fragment of nothing", wire.Message{Kind: wire.Fragment, Pieces: wire.NewArray(2, wire.AppendPiece(nil, wire.Piece{Data: wrong}))}},
		{"\"u\" of nothing", wire.Message{Kind: wire.Legacy, Has: wire.HasExpired, Expired: wire.NewArray(1, []byte{1})}},
	} {
		victim := newAttacker(n, n.NextAddr(), n.ID())
		sent := 0
		for i := range 20 {
			c.m.TID = uint32(i)
			sent += victim.send(x.Addr, c.m)
		}
		n.Run(30 * time.Second)
		pings := 0
		for _, m := range victim.got {
			if m.Kind == wire.Ping {
				pings++
			}
		}
		fmt.Fprintf(&out, "\n%-30s %5d in %6d out  %.2f  %d pings", c.name, sent, victim.bytes, float64(victim.bytes)/float64(sent), pings)
		if victim.bytes > amplificationMost*sent+3*60 || pings > 3 {
			t.Errorf("%s: %d bytes for %d, %d pings", c.name, victim.bytes, sent, pings)
		}
	}
	t.Log(out.String())
}

// Bytes that one datagram makes a node allocate at most: of a stranger; of who has a token,
// when it is full of the smallest values, which are kept; and when it begins every value
// whose fragments were announced.
const (
	allocateMost  = 512 << 10
	valuesMost    = 8 << 20
	fragmentsMost = 9 << 20
)

// TestAllocationOfOneDatagram: the largest ones of every kind, also of who has a token.
func TestAllocationOfOneDatagram(t *testing.T) {
	n := sim.New(87)
	x := n.Add(nil)
	key := jami.HashKey("k")
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, key)
	small, count := []byte{}, 0
	for ; len(small) < 60000; count++ {
		small = append(small, plain(t, uint64(count+1), "").Packed...)
	}
	nodes := make([]byte, 0, 65000)
	for len(nodes) < 64000 {
		nodes = wire.AppendNode(nodes, n.ID(), n.NextAddr())
	}
	var sizes, pieces []byte
	for i := range uint32(100) {
		sizes = wire.AppendUint(sizes, wire.MaxPacked)
		pieces = wire.AppendPiece(pieces, wire.Piece{Index: i, Data: []byte{1}})
	}
	ids := bytes.Repeat([]byte{1}, 60000)
	put := wire.Message{Kind: wire.Put, Target: key, Token: tok, Has: wire.HasToken | wire.HasValues}
	with := func(m wire.Message, tid uint32, sizes bool, values wire.Array) wire.Message {
		m.TID, m.Sizes, m.Values = tid, sizes, values
		return m
	}
	for _, c := range []struct {
		name string
		m    wire.Message
		most uint64
	}{
		{"listen", wire.Message{Kind: wire.Listen, Target: key, Token: tok, SID: 9, Version: 1, Has: wire.HasToken | wire.HasSID | wire.HasVersion}, allocateMost},
		{"expired", wire.Message{Kind: wire.Update, SID: 1, Has: wire.HasSID | wire.HasExpired, Expired: wire.NewArray(60000, ids)}, allocateMost},
		{"nodes", wire.Message{Kind: wire.Reply, Nodes4: nodes, Has: wire.HasNodes4}, allocateMost},
		{"sizes", with(put, 77, true, wire.NewArray(100, sizes)), allocateMost},
		{"zero sizes", with(put, 78, true, wire.NewArray(60000, make([]byte, 60000))), allocateMost},
		{"one value", with(put, 79, false, wire.NewArray(1, value(t, jami.Value{ID: 1, Data: make([]byte, 64000)}).Packed)), allocateMost},
		{"values", with(put, 80, false, wire.NewArray(count, small)), valuesMost},
	} {
		c.m.ID = a.id
		got := allocated(func() { x.Handle(n.Now(), a.addr, c.m.Append(nil)) })
		t.Logf("%s: %d KiB", c.name, got>>10)
		if got > c.most {
			t.Errorf("%s: %d bytes", c.name, got)
		}
	}
	m := wire.Message{Kind: wire.Fragment, TID: 77, Pieces: wire.NewArray(200, pieces)}
	got := allocated(func() { x.Handle(n.Now(), a.addr, m.Append(nil)) })
	t.Logf("fragments: %d KiB", got>>10)
	if got > fragmentsMost || x.Incoming() > 8<<20 {
		t.Errorf("fragments: %d bytes, %d are waited for", got, x.Incoming())
	}
	for _, p := range packets(t) { // any bytes: nothing is kept of what is no packet
		junk := append(bytes.Clone(p[:len(p)/2]), bytes.Repeat([]byte{0xdf}, 65000)...)
		if got := allocated(func() { x.Handle(n.Now(), a.addr, junk) }); got > 64<<10 {
			t.Errorf("junk: %d bytes", got)
		}
	}
}

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestPoliciesOfEachType: what a node stores and replaces (§1.7): anything but a message
// without a service and a certificate of another key; in place of a signed value a later
// one of its owner, of an unsigned or encrypted one nothing, of a certificate another one
// of its key. The address of a service is who announced it.
func TestPoliciesOfEachType(t *testing.T) {
	n := sim.New(88)
	x := n.Add(nil)
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, jami.HashKey("k"))
	var key jami.ID
	taken := func(v jami.Value) bool {
		t.Helper()
		before := x.Stats().Refused
		a.send(x.Addr, putMessage(key, tok, value(t, v)))
		n.Run(100 * time.Millisecond)
		return x.Stats().Refused == before
	}
	for typ, data := range map[uint16][]byte{0: []byte("x"), 1: {0x92, 0xa1, 's', 0xc4, 0}, 3: []byte("x"), 4: []byte("x"), 5: []byte("x"), 77: []byte("x")} {
		key = jami.HashKey(fmt.Sprint("type", typ))
		v := jami.Value{ID: 1, Type: typ, Data: data}
		if !taken(v) {
			t.Errorf("type %d is refused", typ)
		}
		v.UserType = "another"
		if taken(v) {
			t.Errorf("type %d: an unsigned value is replaced", typ)
		}
		s := func(who int, seq uint16) jami.Value {
			v := jami.Value{ID: 2, Type: typ, Data: data, Seq: seq}
			if err := v.Sign(overlaytest.Keys()[who]); err != nil {
				t.Fatal(err)
			}
			return v
		}
		if !taken(s(0, 1)) || !taken(s(0, 2)) || taken(s(0, 1)) || taken(s(1, 3)) {
			t.Errorf("type %d: a signed value", typ)
		}
		e := jami.Value{ID: 3, Cipher: []byte("for another's eyes")}
		if !taken(e) {
			t.Errorf("type %d: an encrypted value is refused", typ)
		}
		if e.Cipher = []byte("replaced"); taken(e) {
			t.Errorf("type %d: an encrypted value is replaced", typ)
		}
	}
	key = jami.HashKey("service")
	sockaddr := append([]byte{2, 0, 0x10, 0x7e, 203, 0, 113, 9}, make([]byte, 8)...)
	data, err := jami.PackBin(sockaddr)
	if err != nil {
		t.Fatal(err)
	}
	if !taken(jami.Value{ID: 1, Type: 2, Data: data}) || taken(jami.Value{ID: 2, Type: 2, Data: []byte("x")}) {
		t.Error("a service")
	}
	vs := get(t, n, x, key)
	if len(vs) != 1 {
		t.Fatalf("%d services", len(vs))
	}
	if b, err := jami.ParseBin(vs[0].Data); err != nil || !bytes.Equal(b[2:4], sockaddr[2:4]) || netip.AddrFrom4([4]byte(b[4:8])) != a.addr.Addr() {
		t.Errorf("announced %x, %v", b, err)
	}
}
