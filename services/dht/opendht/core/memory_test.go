package core_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/sim"
)

// storedMost bounds the memory of one small value of another, under a key of its own, in
// bytes, beside what it has packed.
const storedMost = 750

// TestMemoryOfStoredValues: many small values take little.
func TestMemoryOfStoredValues(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	const values = 20_000
	n := sim.New(90)
	nodes := n.Cluster(7, 50*time.Millisecond)
	x := nodes[0]
	a := newAttacker(n, n.NextAddr(), n.ID())
	tok := a.token(t, x.Addr, jami.HashKey("k"))
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	n.Loss = 1 // nobody reads the answers
	before, packed := heap(), 0
	now := n.Now()
	for i := range values {
		v := value(t, jami.Value{ID: uint64(i + 1), Type: 4, Data: make([]byte, 64)})
		packed += len(v.Packed)
		m := putMessage(jami.HashKey(fmt.Sprint(i)), tok, v)
		m.ID = a.id
		now = now.Add(2 * time.Millisecond) // below the limit of a host
		x.Handle(now, a.addr, m.Append(nil))
	}
	each := (heap() - before - packed) / values
	got, _ := x.Storage()
	t.Logf("%d values, %d bytes each beside the %d packed", got, each, packed/values)
	if got != values || each > storedMost {
		t.Errorf("%d values, %d bytes each, at most %d", got, each, storedMost)
	}
	runtime.KeepAlive(x)
}
