package sim_test

import (
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/sim"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// measureEnv, when set, has the measures run in full size (docs/dht-measures.md).
const measureEnv = "PARLEY_DHT_MEASURE"

// The size of the measures, if another than docs/dht-measures.md says is wanted.
var (
	nodesFlag = flag.Int("nodes", 0, "honest nodes of a measure; 0: its own number")
	hoursFlag = flag.Int("hours", 0, "simulated hours of TestSurvival; 0: its own number")
)

// full returns the size of a measure in full, or of its short form.
func full(short, full int) int {
	if os.Getenv(measureEnv) != "" {
		return full
	}
	return short
}

// sized is full, unless a flag says it.
func sized(by *int, short, long int) int {
	if *by > 0 {
		return *by
	}
	return full(short, long)
}

func percent(part, of int) float64 { return 100 * float64(part) / float64(max(of, 1)) }

// TestHops: a look-up takes fewer hops than log2 of the number of nodes.
func TestHops(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	sizes := []int{100, 400}
	if os.Getenv(measureEnv) != "" {
		sizes = []int{100, 1000, 10000}
	}
	for _, size := range sizes {
		began := time.Now()
		n := sim.New(9)
		nodes := n.Cluster(size, 10*time.Millisecond)
		n.Run(2 * time.Minute)
		r := look(t, n, nodes, full(60, 300))
		log2 := math.Log2(float64(size))
		t.Logf("%d nodes, log2 %.1f: %s (%s)", size, log2, r, time.Since(began).Round(time.Second))
		if r.found < r.gets || float64(r.hops)/float64(r.gets) > log2 {
			t.Error("worse than it was")
		}
	}
}

// kept is a value that was put.
type kept struct {
	key jami.ID
	v   *core.Value
}

// store puts values that live for a week, each at a node of its own.
func store(t *testing.T, n *sim.Net, nodes []*sim.Node, count int) []kept {
	t.Helper()
	var out []kept
	left := count
	for i := range count {
		v, err := core.NewValue(&jami.Value{ID: uint64(i + 1), Type: 4, Data: fmt.Append(nil, "value", i)})
		if err != nil {
			t.Fatal(err)
		}
		k := kept{jami.HashKey(fmt.Sprint("kept", i)), v}
		out = append(out, k)
		x := nodes[n.Rand().IntN(len(nodes))]
		x.Do(func() {
			if _, err := x.Put(k.key, v, core.PutOptions{Done: func(int) { left-- }}); err != nil {
				t.Fatal(err)
			}
		})
		n.Run(20 * time.Millisecond)
	}
	n.Until(time.Minute, func() bool { return left <= 0 })
	return out
}

// count looks every value up from some node and returns how many are found.
func count(n *sim.Net, nodes []*sim.Node, ks []kept) (found int) {
	left := 0
	for _, k := range ks {
		y := nodes[n.Rand().IntN(len(nodes))]
		left++
		ok := false
		y.Do(func() {
			y.Get(k.key, wire.Query{}, func(v *core.Value) {
				if !ok && string(v.Data) == string(k.v.Data) {
					ok = true
					found++
				}
			}, func(core.Trace) { left-- })
		})
		n.Run(20 * time.Millisecond)
	}
	n.Until(time.Minute, func() bool { return left <= 0 })
	return found
}

// TestSurvival: in every hour 30 % of the nodes go without a word, and as many come; a
// twentieth of all packets is lost. Nobody puts the values again.
func TestSurvival(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	size, values, hours := sized(nodesFlag, 150, 1000), full(60, 300), sized(hoursFlag, 1, 3)
	for _, loss := range []float64{0, 0.05} {
		t.Run(fmt.Sprintf("%.0f %% loss", 100*loss), func(t *testing.T) {
			began := time.Now()
			n := sim.New(50)
			n.Loss = loss
			nodes := n.Cluster(size, 20*time.Millisecond)
			n.Run(2 * time.Minute)
			ks := store(t, n, nodes, values)
			churn(n, nodes, time.Duration(float64(time.Hour)/(0.3*float64(size))))
			for h := range hours {
				n.Run(time.Hour)
				found := count(n, nodes, ks)
				t.Logf("%d nodes, %.0f %% loss, after %d h: %d of %d values, %.1f %% (%s)", size, 100*loss, h+1, found, len(ks), percent(found, len(ks)), time.Since(began).Round(time.Second))
				if percent(found, len(ks)) < 99 {
					t.Error("fewer than 99 %")
				}
			}
		})
	}
}

// villain is a node that is hostile in one way.
type villain struct {
	n    *sim.Net
	addr netip.AddrPort
	id   jami.ID
	// wrong alters the answer to a query; nil: no answer.
	wrong func(q, r *wire.Message)
}

func newVillain(n *sim.Net, addr netip.AddrPort, id jami.ID, wrong func(q, r *wire.Message)) *villain {
	v := &villain{n, addr, id, wrong}
	n.Raw(addr, func(from netip.AddrPort, b []byte) {
		var q wire.Message
		if wrong == nil || wire.Decode(b, &q) != nil || !q.Kind.Query() {
			return
		}
		r := wire.Message{Kind: wire.Reply, TID: q.TID, ID: id, Addr: from.Addr(), Token: []byte("token"), Has: wire.HasToken, ValueID: 1}
		if q.Kind == wire.Put { // it is stored, it says
			r.Has |= wire.HasValueID
		}
		wrong(&q, &r)
		n.Send(addr, from, r.Append(nil))
	})
	return v
}

// meet has some nodes get to know it.
func (v *villain) meet(nodes []*sim.Node, count int) {
	for range count {
		x := nodes[v.n.Rand().IntN(len(nodes))]
		x.Do(func() { x.Meet(v.addr) })
	}
}

// TestHostile: a fifth of the nodes is hostile.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	size, values := sized(nodesFlag, 120, 1000), full(60, 300)
	forged, err := core.NewValue(&jami.Value{ID: 1, Data: []byte("forged")})
	if err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]func(n *sim.Net) func(q, r *wire.Message){
		"names nodes that aren't there": func(n *sim.Net) func(q, r *wire.Message) {
			return func(q, r *wire.Message) {
				for j := range wire.MaxNodes {
					id := q.Target
					id[18], id[19] = byte(n.Rand().Uint32()), byte(j+1)
					r.Nodes4 = wire.AppendNode(r.Nodes4, id, n.NextAddr())
				}
				r.Has |= wire.HasNodes4
			}
		},
		"keeps nothing and invents values": func(*sim.Net) func(q, r *wire.Message) {
			return func(q, r *wire.Message) {
				if q.Kind == wire.Get {
					r.Values, r.Has = wire.NewArray(1, forged.Packed), r.Has|wire.HasValues
				}
			}
		},
		"keeps nothing": func(*sim.Net) func(q, r *wire.Message) { return func(_, _ *wire.Message) {} },
		"is silent":     func(*sim.Net) func(q, r *wire.Message) { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := sim.New(60)
			nodes := n.Cluster(size, 20*time.Millisecond)
			for range size / 4 { // a fifth of all
				newVillain(n, n.NextAddr(), n.ID(), wrong(n)).meet(nodes, 10)
			}
			n.Run(5 * time.Minute)
			ks := store(t, n, nodes, values)
			n.Run(time.Minute)
			found := count(n, nodes, ks)
			t.Logf("%d honest, %d hostile: %d of %d values, %.1f %%", size, size/4, found, len(ks), percent(found, len(ks)))
			if percent(found, len(ks)) < 99 {
				t.Error("fewer than 99 %")
			}
		})
	}
}

// TestFlood: a fifth of the nodes sends each of some others 2,000 queries a second.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	size, values := sized(nodesFlag, 60, 300), full(30, 100)
	n := sim.New(61)
	nodes := n.Cluster(size, 20*time.Millisecond)
	n.Run(time.Minute)
	for i := range size / 4 {
		v := newVillain(n, n.NextAddr(), n.ID(), nil)
		to := nodes[i%8].Addr
		m := wire.Message{Kind: wire.Get, TID: 2, ID: v.id, Target: n.ID(), Has: wire.HasQuery}
		b := m.Append(nil)
		var again func()
		again = func() {
			for range 20 {
				n.Send(v.addr, to, b)
			}
			n.At(10*time.Millisecond, again)
		}
		again()
	}
	n.Run(time.Second)
	ks := store(t, n, nodes, values)
	found := count(n, nodes, ks)
	var limited uint64
	for _, x := range nodes {
		limited += x.Stats().Limited
	}
	t.Logf("%d honest, %d that flood: %d of %d values, %.1f %%; %d queries refused", size, size/4, found, len(ks), percent(found, len(ks)), limited)
	if percent(found, len(ks)) < 99 || limited == 0 {
		t.Error("fewer than 99 %")
	}
}

// TestSybils: at each of some keys an attacker of its own has nodes next to it, which keep
// nothing. What it takes to hide values depends on how many networks (/24) it has.
func TestSybils(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	size, keys := sized(nodesFlag, 150, 1000), full(10, 40)
	each := max(size/200, 1) // keys of one network: a sixth of its nodes is hostile
	address := func(k, net, host int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{60, byte(k), byte(net), byte(host)}), 5000)
	}
	for _, x := range []struct {
		name  string
		nodes int
		addr  func(k, i int) netip.AddrPort
		least float64 // percent that must be found
	}{
		{"one address, 40 ports", 40, func(k, i int) netip.AddrPort {
			return netip.AddrPortFrom(address(k, 0, 1).Addr(), uint16(5000+i))
		}, 99},
		{"one /24, 40 addresses", 40, func(k, i int) netip.AddrPort { return address(k, 0, i+1) }, 99},
		{"4 networks, 10 addresses in each", 40, func(k, i int) netip.AddrPort { return address(k, i%4, i/4+1) }, 0},
		{"7 networks, one address in each", 7, func(k, i int) netip.AddrPort { return address(k, i, 1) }, 99},
		{"40 networks, one address in each", 40, func(k, i int) netip.AddrPort { return address(k, i, 1) }, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			found, stored := 0, 0
			for from := 0; from < keys; from += each {
				n := sim.New(uint64(70 + from))
				nodes := n.Cluster(size, 5*time.Millisecond)
				attacked := make([]jami.ID, min(each, keys-from))
				for k := range attacked {
					attacked[k] = jami.HashKey(fmt.Sprint("attacked", from+k))
					surround(n, nodes, attacked[k], x.nodes, func(i int) netip.AddrPort { return x.addr(k, i) })
				}
				n.Run(3 * time.Minute)
				for _, key := range attacked {
					at, ok := putAndGet(t, n, nodes, key)
					stored += at
					if ok {
						found++
					}
				}
			}
			t.Logf("%d nodes, %s: %d of %d values, %.0f %%; said to be at %.1f nodes", size, x.name, found, keys, percent(found, keys), float64(stored)/float64(keys))
			if percent(found, keys) < x.least {
				t.Errorf("fewer than %.0f %%", x.least)
			}
		})
	}
}

// surround puts hostile nodes next to a key, which name one another.
func surround(n *sim.Net, nodes []*sim.Node, key jami.ID, count int, addr func(i int) netip.AddrPort) {
	var list []byte
	named := min(wire.MaxNodes, count)
	for i := range count {
		id := key
		id[18], id[19] = id[18]^byte(i/200), id[19]^byte(i+1)
		list = wire.AppendNode(list, id, addr(i))
		newVillain(n, addr(i), id, func(_, r *wire.Message) {
			from := n.Rand().IntN(len(list)/wire.Node4 - named + 1)
			r.Nodes4, r.Has = list[from*wire.Node4:][:named*wire.Node4], r.Has|wire.HasNodes4
		}).meet(nodes, 8)
	}
}

// putAndGet puts a value at some node, which then goes, and looks it up from another one.
func putAndGet(t *testing.T, n *sim.Net, nodes []*sim.Node, key jami.ID) (at int, found bool) {
	t.Helper()
	v, err := core.NewValue(&jami.Value{ID: 1, Type: 4, Data: []byte("wanted")})
	if err != nil {
		t.Fatal(err)
	}
	pick := func() *sim.Node {
		for {
			if x := nodes[n.Rand().IntN(len(nodes))]; !x.Gone() {
				return x
			}
		}
	}
	y, at := pick(), -1
	y.Do(func() {
		if _, err := y.Put(key, v, core.PutOptions{Done: func(n int) { at = n }}); err != nil {
			t.Fatal(err)
		}
	})
	n.Until(time.Minute, func() bool { return at >= 0 })
	n.Remove(y)
	return at, count(n, []*sim.Node{pick()}, []kept{{key, v}}) == 1
}
