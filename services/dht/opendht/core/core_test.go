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
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

func value(t testing.TB, v jami.Value) *core.Value {
	t.Helper()
	x, err := core.NewValue(&v)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func plain(t testing.TB, id uint64, data string) *core.Value {
	return value(t, jami.Value{ID: id, Data: []byte(data), UserType: "text/plain"})
}

func signed(t testing.TB, who int, id uint64, seq uint16, data string) *core.Value {
	t.Helper()
	v := jami.Value{ID: id, Seq: seq, Data: []byte(data)}
	if err := v.Sign(overlaytest.Keys()[who]); err != nil {
		t.Fatal(err)
	}
	return value(t, v)
}

// get runs a get to its end.
func get(t testing.TB, n *sim.Net, x *sim.Node, key jami.ID) []*core.Value {
	t.Helper()
	var out []*core.Value
	done := false
	x.Do(func() {
		x.Get(key, wire.Query{}, func(v *core.Value) { out = append(out, v) }, func(core.Trace) { done = true })
	})
	if !n.Until(time.Minute, func() bool { return done }) {
		t.Fatal("a get does not end")
	}
	return out
}

func texts(vs []*core.Value) []string {
	out := []string{}
	for _, v := range vs {
		out = append(out, string(v.Data))
	}
	slices.Sort(out)
	return out
}

func mustGet(t testing.TB, n *sim.Net, x *sim.Node, key jami.ID, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := texts(get(t, n, x, key)); !slices.Equal(got, want) {
		t.Errorf("got %.200q, want %.200q", got, want)
	}
}

// put runs a put to its end and returns how many nodes have it.
func put(t testing.TB, n *sim.Net, x *sim.Node, key jami.ID, v *core.Value, o core.PutOptions) int {
	t.Helper()
	nodes := -1
	o.Done = func(n int) { nodes = n }
	x.Do(func() {
		if _, err := x.Put(key, v, o); err != nil {
			t.Fatal(err)
		}
	})
	if !n.Until(time.Minute, func() bool { return nodes >= 0 }) {
		t.Fatal("a put does not end")
	}
	return nodes
}

// watch records changes.
func watch(x *sim.Node, key jami.ID) (*core.Listen, *[]string) {
	var out []string
	x.Poke()
	l := x.Listen(key, wire.Query{}, func(v *core.Value, expired bool) {
		sign := "+"
		if expired {
			sign = "-"
		}
		out = append(out, sign+string(v.Data))
	})
	x.Poke()
	return l, &out
}

func waitFor(t testing.TB, n *sim.Net, d time.Duration, got *[]string, want ...string) {
	t.Helper()
	if !n.Until(d, func() bool { return slices.Equal(*got, want) }) {
		t.Errorf("told %q, want %q", *got, want)
	}
}

func TestAloneKeepsIt(t *testing.T) {
	n := sim.New(1)
	x := n.Add(nil)
	if nodes := put(t, n, x, jami.HashKey("k"), plain(t, 1, "a"), core.PutOptions{}); nodes != 0 {
		t.Errorf("%d nodes", nodes)
	}
	mustGet(t, n, x, jami.HashKey("k"), "a")
	// It is handed on to who comes.
	y := n.Add(nil)
	y.Do(func() { y.Meet(x.Addr) })
	n.Run(10 * time.Second)
	n.Remove(x)
	mustGet(t, n, y, jami.HashKey("k"), "a")
}

func TestPutGetOfEverySize(t *testing.T) {
	n := sim.New(2)
	nodes := n.Cluster(30, 100*time.Millisecond)
	for i, size := range []int{0, 1, 500, 599, 600, 601, 1279, 1280, 1281, 5000, 65000} {
		key := jami.HashKey(fmt.Sprint(size))
		data := string(bytes.Repeat([]byte{byte('a' + i)}, size))
		if got := put(t, n, nodes[i], key, value(t, jami.Value{ID: 7, Data: []byte(data)}), core.PutOptions{}); got != 8 {
			t.Errorf("%d bytes: at %d nodes, want 8", size, got)
		}
		n.Remove(nodes[i]) // the others have it
		mustGet(t, n, nodes[29-i], key, data)
	}
}

func TestLossAndDelay(t *testing.T) {
	n := sim.New(3)
	nodes := n.Cluster(40, 100*time.Millisecond)
	n.Loss, n.Reorder = 0.15, 0.05
	for i := range 10 {
		key := jami.HashKey(fmt.Sprint(i))
		put(t, n, nodes[i], key, plain(t, uint64(i+1), fmt.Sprint("small", i)), core.PutOptions{})
		put(t, n, nodes[i], key, value(t, jami.Value{ID: 99, Data: bytes.Repeat([]byte{1}, 4000)}), core.PutOptions{})
		if got := get(t, n, nodes[39-i], key); len(got) != 2 {
			t.Errorf("key %d: %d values", i, len(got))
		}
	}
}

func TestListen(t *testing.T) {
	n := sim.New(4)
	nodes := n.Cluster(30, 100*time.Millisecond)
	key := jami.HashKey("k")
	put(t, n, nodes[1], key, plain(t, 1, "a"), core.PutOptions{})
	l, got := watch(nodes[2], key)
	waitFor(t, n, 10*time.Second, got, "+a")
	put(t, n, nodes[3], key, plain(t, 2, "b"), core.PutOptions{})
	waitFor(t, n, 10*time.Second, got, "+a", "+b")
	// Type 5 lives a minute; its end is told.
	put(t, n, nodes[4], key, value(t, jami.Value{ID: 3, Type: 5, Data: []byte("c")}), core.PutOptions{})
	waitFor(t, n, 10*time.Second, got, "+a", "+b", "+c")
	n.Run(40 * time.Second)
	waitFor(t, n, 30*time.Second, got, "+a", "+b", "+c", "-c")
	mustGet(t, n, nodes[9], key, "a", "b")
	n.Run(9 * time.Minute) // listening goes on, and the other two end
	if !slices.Contains(*got, "-a") || !slices.Contains(*got, "-b") || len(*got) != 6 {
		t.Errorf("told %q", *got)
	}
	nodes[2].Do(l.Cancel)
	before := len(*got)
	put(t, n, nodes[3], key, plain(t, 5, "d"), core.PutOptions{})
	n.Run(10 * time.Second)
	if len(*got) != before {
		t.Errorf("told after cancel: %q", *got)
	}
}

// TestListenLarge: what does not fit into a packet comes in fragments.
func TestListenLarge(t *testing.T) {
	n := sim.New(5)
	nodes := n.Cluster(20, 100*time.Millisecond)
	key := jami.HashKey("k")
	_, got := watch(nodes[2], key)
	n.Run(5 * time.Second)
	big := string(bytes.Repeat([]byte{'x'}, 20000))
	put(t, n, nodes[3], key, value(t, jami.Value{ID: 2, Data: []byte(big)}), core.PutOptions{})
	if !n.Until(10*time.Second, func() bool { return len(*got) == 1 }) || (*got)[0] != "+"+big {
		t.Errorf("told of %d values", len(*got))
	}
}

func TestSignedValues(t *testing.T) {
	n := sim.New(6)
	nodes := n.Cluster(30, 100*time.Millisecond)
	key := jami.HashKey("k")
	put(t, n, nodes[1], key, signed(t, 0, 9, 1, "one"), core.PutOptions{Permanent: true})
	_, got := watch(nodes[5], key)
	waitFor(t, n, 10*time.Second, got, "+one")
	put(t, n, nodes[1], key, signed(t, 0, 9, 2, "two"), core.PutOptions{Permanent: true})
	waitFor(t, n, 10*time.Second, got, "+one", "+two")
	mustGet(t, n, nodes[7], key, "two")
	// Others, older ones and unsigned ones do not replace it, even when their node is not ours.
	for i, v := range []*core.Value{signed(t, 1, 9, 3, "another owner"), signed(t, 0, 9, 1, "replayed"), signed(t, 0, 9, 2, "same sequence"), plain(t, 9, "unsigned")} {
		x := n.Add(nil) // it has nothing of its own to say against it
		x.Do(func() { x.Meet(nodes[i].Addr) })
		stale := false
		put(t, n, x, key, v, core.PutOptions{Stale: func(uint16) { stale = true }})
		n.Remove(x)
		mustGet(t, n, nodes[7], key, "two")
		if v.Signed() && v.Seq == 1 && !stale {
			t.Error("the putter was not told that its sequence is old")
		}
	}
	waitFor(t, n, time.Second, got, "+one", "+two")
}

// TestPermanent outlives its type, and ends a lifetime after it is cancelled.
func TestPermanent(t *testing.T) {
	n := sim.New(7)
	nodes := n.Cluster(30, 100*time.Millisecond)
	key := jami.HashKey("k")
	v := value(t, jami.Value{ID: 3, Type: 5, Data: []byte("kept")})
	var p *core.Put
	nodes[1].Poke()
	p, err := nodes[1].Put(key, v, core.PutOptions{Permanent: true})
	if err != nil {
		t.Fatal(err)
	}
	nodes[1].Poke()
	for range 5 {
		n.Run(70 * time.Second)
		mustGet(t, n, nodes[9], key, "kept")
	}
	nodes[1].Do(p.Cancel)
	n.Run(61 * time.Second)
	mustGet(t, n, nodes[9], key)
}

// TestPermanentMoves: when the nodes that have it go, others get it.
func TestPermanentMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := sim.New(8)
	nodes := n.Cluster(60, 50*time.Millisecond)
	key := jami.HashKey("k")
	put(t, n, nodes[0], key, plain(t, 3, "kept"), core.PutOptions{Permanent: true})
	byDistance := slices.Clone(nodes[1:])
	slices.SortFunc(byDistance, func(a, b *sim.Node) int { return compareDistance(key, a.ID(), b.ID()) })
	for _, x := range byDistance[:10] {
		n.Remove(x)
	}
	n.Run(15 * time.Minute)
	n.Remove(nodes[0])
	mustGet(t, n, byDistance[30], key, "kept")
}

// TestValuesAreHandedOn: nodes that come near a key get its values from those who have
// them, without the one who put them.
func TestValuesAreHandedOn(t *testing.T) {
	n := sim.New(9)
	nodes := n.Cluster(20, 50*time.Millisecond)
	key := jami.HashKey("k")
	put(t, n, nodes[0], key, value(t, jami.Value{ID: 3, Type: 3, Data: []byte("kept")}), core.PutOptions{})
	n.Remove(nodes[0])
	// Eight that are closer than any other.
	var near []*sim.Node
	for i := range 8 {
		x := n.Add(func(c *core.Config) {
			c.ID = key
			c.ID[19] ^= byte(i + 1)
		})
		x.Do(func() { x.Meet(nodes[5].Addr) })
		near = append(near, x)
		n.Run(20 * time.Second)
	}
	for _, x := range nodes[1:] {
		n.Remove(x)
	}
	mustGet(t, n, near[3], key, "kept")
	// Its end does not move (5 minutes for type 3).
	n.Run(3 * time.Minute)
	mustGet(t, n, near[3], key)
}

func compareDistance(target, a, b jami.ID) int {
	for i := range target {
		if x, y := a[i]^target[i], b[i]^target[i]; x != y {
			return int(x) - int(y)
		}
	}
	return 0
}

func TestNetworksAreApart(t *testing.T) {
	n := sim.New(10)
	x := n.Add(nil)
	y := n.Add(func(c *core.Config) { c.Network = 7 })
	y.Do(func() { y.Meet(x.Addr) })
	n.Run(30 * time.Second)
	if y.Counts().Good != 0 || x.Counts().Good != 0 {
		t.Error("nodes of two networks know each other")
	}
}

func TestClientIsNotHandedOut(t *testing.T) {
	n := sim.New(11)
	nodes := n.Cluster(10, 50*time.Millisecond)
	x := n.Add(func(c *core.Config) { c.Client = true })
	x.Do(func() { x.Meet(nodes[0].Addr) })
	n.Run(20 * time.Second)
	put(t, n, x, jami.HashKey("k"), plain(t, 1, "a"), core.PutOptions{})
	mustGet(t, n, nodes[3], jami.HashKey("k"), "a")
	for _, y := range nodes {
		if slices.ContainsFunc(y.Good(100), func(z core.Node) bool { return z.Addr == x.Addr }) {
			t.Error("a client is in a table")
		}
	}
}

// TestSavedNodes: back within a second, whoever of them is left.
func TestSavedNodes(t *testing.T) {
	n := sim.New(12)
	nodes := n.Cluster(30, 50*time.Millisecond)
	saved := nodes[3].Good(64)
	n.Remove(nodes[3])
	for _, x := range nodes[:3] {
		n.Remove(x)
	}
	x := n.Add(nil)
	x.Do(func() { x.Saved(saved) })
	if !n.Until(time.Second, func() bool { return x.Counts().Good > 0 }) {
		t.Error("not back within a second")
	}
}

func TestPublicAddress(t *testing.T) {
	n := sim.New(13)
	nodes := n.Cluster(10, 50*time.Millisecond)
	if got := nodes[4].PublicAddrs(); len(got) != 1 || got[0] != nodes[4].Addr.Addr() {
		t.Errorf("%v, want %v", got, nodes[4].Addr)
	}
}

// TestOutage: when all have been out of reach for a while, what lasts goes on by itself.
func TestOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	for _, d := range []time.Duration{20 * time.Second, 2 * time.Minute, 40 * time.Minute} {
		n := sim.New(16)
		nodes := n.Cluster(25, 50*time.Millisecond)
		key := jami.HashKey("k")
		put(t, n, nodes[1], key, plain(t, 1, "kept"), core.PutOptions{Permanent: true})
		_, got := watch(nodes[2], key)
		waitFor(t, n, 10*time.Second, got, "+kept")
		n.Loss = 1
		n.Run(d)
		n.Loss = 0
		n.Run(4 * time.Minute)
		mustGet(t, n, nodes[9], key, "kept")
		put(t, n, nodes[5], key, plain(t, 2, "new"), core.PutOptions{})
		if !n.Until(10*time.Second, func() bool { return slices.Contains(*got, "+new") }) {
			t.Errorf("after %s a listener is told %q", d, *got)
		}
	}
}

// TestBootstrapBacksOff: a bootstrap node that isn't there is asked ever less often.
func TestBootstrapBacksOff(t *testing.T) {
	n := sim.New(17)
	x := n.Add(nil)
	there := n.NextAddr()
	asked := 0
	n.Tap = func(_, to netip.AddrPort, _ []byte) {
		if to == there {
			asked++
		}
	}
	x.Do(func() { x.Bootstrap([]netip.AddrPort{there}) })
	n.Run(time.Hour)
	if asked < 3*7 || asked > 3*10 { // at 0, 10, 30, 70 s and so on, three sendings each
		t.Errorf("asked %d times in an hour", asked)
	}
	y := n.AddAt(there, nil)
	if !n.Until(2*time.Hour, func() bool { return x.Counts().Good > 0 && y.Counts().Good > 0 }) {
		t.Error("not found when it came")
	}
}

// TestIslandsJoin: nodes that know one another, but none that their bootstrap node knows,
// join its network when it is there, and again after the networks fell apart.
func TestIslandsJoin(t *testing.T) {
	n := sim.New(18)
	there := n.NextAddr()
	y, z := n.Add(nil), n.Add(nil)
	y.Do(func() { y.Bootstrap([]netip.AddrPort{there}) })
	z.Do(func() { z.Meet(y.Addr) })
	n.Run(25 * time.Second)
	if y.Counts().Good != 1 {
		t.Fatal("no island")
	}
	x := n.AddAt(there, nil)
	others := n.Cluster(10, 50*time.Millisecond)
	x.Do(func() { x.Meet(others[3].Addr) })
	if !n.Until(10*time.Minute, func() bool { return z.Counts().Good >= 10 }) {
		t.Errorf("a node of the island knows %+v", z.Counts())
	}
}

// TestSameSeedSameRun: not a packet differs.
func TestSameSeedSameRun(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	run := func(seed uint64) (packets, size uint64) {
		n := sim.New(seed)
		n.Loss = 0.05
		nodes := n.Cluster(25, 100*time.Millisecond)
		put(t, n, nodes[1], jami.HashKey("k"), plain(t, 1, "a"), core.PutOptions{})
		watch(nodes[2], jami.HashKey("k"))
		for i := range 10 {
			put(t, n, nodes[3], jami.HashKey(fmt.Sprint(i)), plain(t, 2, "b"), core.PutOptions{Permanent: true})
			watch(nodes[3], jami.HashKey(fmt.Sprint(i)))
		}
		n.Run(time.Minute)
		for range 5 {
			i := n.Rand().IntN(len(nodes)-4) + 4
			n.Remove(nodes[i])
			x := n.Add(nil)
			x.Do(func() { x.Meet(nodes[i-1].Addr) })
			n.Run(3 * time.Minute)
		}
		return n.Packets, n.Bytes
	}
	p, b := run(14)
	if q, c := run(14); p != q || b != c {
		t.Errorf("%d packets of %d bytes, then %d of %d", p, b, q, c)
	}
	if q, _ := run(15); q == p {
		t.Error("another seed gives the same")
	}
}

// TestCertificateIsRenewed: a newer certificate takes the place of the one before.
func TestCertificateIsRenewed(t *testing.T) {
	n := sim.New(19)
	nodes := n.Cluster(20, 50*time.Millisecond)
	var key jami.ID
	for i := range 2 {
		ca, err := jami.NewCA(overlaytest.Keys()[0], sim.Start.Add(time.Duration(i)*24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		key, _ = jami.CertIDs(ca)
		data, err := jami.PackBin(jami.MarshalChain(ca))
		if err != nil {
			t.Fatal(err)
		}
		if got := put(t, n, nodes[3], key, value(t, jami.Value{ID: 1, Type: 8, Data: data}), core.PutOptions{Permanent: true}); got != 8 {
			t.Errorf("at %d nodes", got)
		}
		mustGet(t, n, nodes[12], key, string(data))
	}
}

// TestAllocations: short answers take no memory.
func TestAllocations(t *testing.T) {
	n := sim.New(20)
	nodes := n.Cluster(20, 50*time.Millisecond)
	x, from := nodes[3], nodes[4]
	sent := 0
	n.Tap = func(_, _ netip.AddrPort, b []byte) { sent += len(b) }
	n.Loss = 1
	for _, m := range []wire.Message{
		{Kind: wire.Ping, TID: 1, ID: from.ID()},
		{Kind: wire.Find, TID: 1, ID: from.ID(), Target: jami.HashKey("k")},
		{Kind: wire.Get, TID: 1, ID: from.ID(), Target: jami.HashKey("k"), Has: wire.HasQuery},
	} {
		b := m.Append(nil)
		now := n.Now()
		per := testing.AllocsPerRun(500, func() {
			now = now.Add(2 * time.Millisecond) // below the limit of a host
			x.Handle(now, from.Addr, b)
		})
		if per > 0 || sent == 0 {
			t.Errorf("%s: %v allocations, %d bytes sent", m.Kind, per, sent)
		}
	}
}
