package sim_test

import (
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

// result is what look-ups in a network took.
type result struct {
	puts, stored      int
	gets, found       int
	hops, msgs        int // of all gets
	hopsMost, exact   int // exact: the closest node that there is was among those found
	took, tookMost    time.Duration
	packets           uint64
	packetsEachMinute float64
}

func (r result) String() string {
	n := max(r.gets, 1)
	return fmt.Sprintf("%d puts at %.1f nodes each; %d of %d gets found it, %.1f hops (at most %d), %.1f messages, %d ms (at most %d), "+
		"the very closest node in %d; %.0f packets a node and minute", r.puts, float64(r.stored)/float64(max(r.puts, 1)), r.found, r.gets,
		float64(r.hops)/float64(n), r.hopsMost, float64(r.msgs)/float64(n), r.took.Milliseconds()/int64(n), r.tookMost.Milliseconds(), r.exact, r.packetsEachMinute)
}

// look puts values at some nodes and gets each from another, and says what it took.
func look(t testing.TB, n *sim.Net, nodes []*sim.Node, count int) (r result) {
	t.Helper()
	began, packets := n.Now(), n.Packets
	pick := func() *sim.Node { return nodes[n.Rand().IntN(len(nodes))] }
	for i := range count {
		key := jami.HashKey(fmt.Sprint("value", i))
		v, err := core.NewValue(&jami.Value{ID: uint64(i + 1), Data: []byte("value")})
		if err != nil {
			t.Fatal(err)
		}
		stored, x := -1, pick()
		x.Poke()
		if _, err := x.Put(key, v, core.PutOptions{Done: func(n int) { stored = n }}); err != nil {
			t.Fatal(err)
		}
		x.Poke()
		if !n.Until(time.Minute, func() bool { return stored >= 0 || x.Gone() }) {
			t.Fatal("a put does not end")
		}
		if x.Gone() {
			continue
		}
		r.puts++
		r.stored += stored
		y := pick()
		for y == x {
			y = pick()
		}
		at, found, done := n.Now(), false, false
		y.Poke()
		y.Get(key, wire.Query{}, func(*core.Value) { found = true }, func(tr core.Trace) {
			done = true
			r.hops += tr.Hops
			r.hopsMost = max(r.hopsMost, tr.Hops)
			r.msgs += tr.Messages
			if slices.Contains(tr.Closest, closest(nodes, key)) {
				r.exact++
			}
		})
		y.Poke()
		if !n.Until(time.Minute, func() bool { return done || y.Gone() }) {
			t.Fatal("a get does not end")
		}
		if y.Gone() {
			continue
		}
		r.gets++
		if found {
			r.found++
		}
		d := n.Now().Sub(at)
		r.took += d
		r.tookMost = max(r.tookMost, d)
	}
	r.packets = n.Packets - packets
	if m := n.Now().Sub(began).Minutes(); m > 0 {
		r.packetsEachMinute = float64(r.packets) / float64(len(nodes)) / m
	}
	return r
}

func closest(nodes []*sim.Node, key jami.ID) jami.ID {
	best := nodes[0].ID()
	for _, x := range nodes {
		id := x.ID()
		for i := range id {
			if a, b := id[i]^key[i], best[i]^key[i]; a != b {
				if a < b {
					best = id
				}
				break
			}
		}
	}
	return best
}

// TestHundreds: a network of some size finds what it stores, in few hops.
func TestHundreds(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := sim.New(1)
	nodes := n.Cluster(400, 30*time.Millisecond)
	n.Run(2 * time.Minute)
	r := look(t, n, nodes, 100)
	t.Log(r)
	if r.found != 100 || r.exact < 97 || r.stored < 790 || r.hopsMost > 6 {
		t.Error("worse than it was")
	}
}

// TestLoss: a twentieth of all packets is lost.
func TestLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := sim.New(2)
	n.Loss, n.Reorder = 0.05, 0.02
	nodes := n.Cluster(200, 50*time.Millisecond)
	n.Run(2 * time.Minute)
	r := look(t, n, nodes, 100)
	t.Log(r)
	if r.found < 99 {
		t.Error("worse than it was")
	}
}

// TestChurn: every node lives ten minutes on average, and another comes in its place.
func TestChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := sim.New(3)
	nodes := n.Cluster(200, 50*time.Millisecond)
	churn(n, nodes, 3*time.Second)
	n.Run(10 * time.Minute)
	r := look(t, n, nodes, 100)
	t.Log(r)
	if r.found < r.gets-2 || r.gets < 90 {
		t.Error("worse than it was")
	}
}

// churn takes a node off and adds one, every gap.
func churn(n *sim.Net, nodes []*sim.Node, gap time.Duration) {
	n.At(gap, func() {
		i := n.Rand().IntN(len(nodes))
		n.Remove(nodes[i])
		nodes[i] = n.Add(nil)
		j := n.Rand().IntN(len(nodes))
		nodes[i].Bootstrap([]netip.AddrPort{nodes[(j+1)%len(nodes)].Addr, nodes[j].Addr})
		nodes[i].Poke()
		churn(n, nodes, gap)
	})
}

// TestPermanentThroughChurn: what is kept up is there, whoever goes.
func TestPermanentThroughChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := sim.New(4)
	nodes := n.Cluster(150, 50*time.Millisecond)
	keeper := nodes[0]
	v, err := core.NewValue(&jami.Value{ID: 1, Data: []byte("kept")})
	if err != nil {
		t.Fatal(err)
	}
	keeper.Poke()
	if _, err := keeper.Put(jami.HashKey("k"), v, core.PutOptions{Permanent: true}); err != nil {
		t.Fatal(err)
	}
	keeper.Poke()
	churn(n, nodes[1:], 4*time.Second)
	for range 6 {
		n.Run(10 * time.Minute)
		found, done := false, false
		y := nodes[1+n.Rand().IntN(len(nodes)-1)]
		y.Poke()
		y.Get(jami.HashKey("k"), wire.Query{}, func(*core.Value) { found = true }, func(core.Trace) { done = true })
		y.Poke()
		n.Until(time.Minute, func() bool { return done })
		if !found {
			t.Errorf("not found after %s", n.Now().Sub(sim.Start))
		}
	}
}

// TestIPv6: the same over the other family.
func TestIPv6(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := sim.New(5)
	var nodes []*sim.Node
	for i := range 40 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i), 15: 1}) // a site each
		x := n.AddAt(netip.AddrPortFrom(a, 4222), nil)
		if i > 0 {
			x.Do(func() { x.Meet(nodes[n.Rand().IntN(i)].Addr) })
		}
		nodes = append(nodes, x)
		n.Run(50 * time.Millisecond)
	}
	n.Run(30 * time.Second)
	if r := look(t, n, nodes, 20); r.found != 20 || r.stored < 155 {
		t.Error(r)
	}
}

// BenchmarkNetwork builds a network of -nodes nodes and looks up values in it. Run it
// with -benchtime 1x.
func BenchmarkNetwork(b *testing.B) {
	size := sized(nodesFlag, 10000, 10000)
	for b.Loop() {
		began := time.Now()
		n := sim.New(9)
		nodes := n.Cluster(size, 10*time.Millisecond)
		b.Logf("%d nodes joined: %d packets, %s", size, n.Packets, time.Since(began).Round(time.Millisecond))
		n.Run(2 * time.Minute)
		r := look(b, n, nodes, 500)
		b.Log(r)
		b.ReportMetric(float64(r.hops)/float64(r.gets), "hops/get")
		b.ReportMetric(float64(r.msgs)/float64(r.gets), "messages/get")
		b.ReportMetric(float64(r.found)/float64(r.gets), "found/get")
		b.ReportMetric(float64(n.Packets)/time.Since(began).Seconds(), "packets/s")
	}
}
