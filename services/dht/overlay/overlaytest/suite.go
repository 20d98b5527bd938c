// Package overlaytest holds what every overlay has to do, as tests that run
// against any of them.
package overlaytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// patience bounds every wait; a listener that polls needs some of it.
const patience = 20 * time.Second

// Cluster makes n overlays that know of one another and are closed when the test
// ends.
type Cluster func(t *testing.T, n int) []overlay.Overlay

// Run runs the suite.
func Run(t *testing.T, cluster Cluster) {
	for _, x := range []struct {
		name string
		run  func(*testing.T, Cluster)
	}{
		{"AloneKeepsAndSaysSo", alone},
		{"PutIsFoundByEveryNode", putGet},
		{"ValuesOfSeveralWriters", writers},
		{"ReplaceAndCancel", replace},
		{"RestoreAndCancel", restore},
		{"Listen", listen},
		{"Expiry", expiry},
		{"Refusals", refusals},
		{"OutlivesItsWriter", outlives},
		{"Closed", closed},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(t, cluster) })
	}
}

func key(s string) (k overlay.Key) {
	copy(k[:], s)
	return k
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return c
}

func put(t *testing.T, o overlay.Overlay, v overlay.Value) overlay.Stored {
	t.Helper()
	s, err := o.Put(ctx(t), v, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wait polls until ok, and says what it saw last.
func wait(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.After(patience)
	for {
		done, saw := ok()
		if done {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: last saw %s", what, saw)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// waitValues polls a node until a key holds just these data.
func waitValues(t *testing.T, o overlay.Overlay, k overlay.Key, want ...string) {
	t.Helper()
	wait(t, fmt.Sprintf("values %q", want), func() (bool, string) {
		vs, err := o.Get(ctx(t), k)
		got := map[string]bool{}
		for _, v := range vs {
			got[string(v.Data)] = true
		}
		ok := err == nil && len(vs) == len(want)
		for _, w := range want {
			ok = ok && got[w]
		}
		return ok, fmt.Sprintf("%v, %v", got, err)
	})
}

func alone(t *testing.T, cluster Cluster) {
	o := cluster(t, 1)[0]
	s := put(t, o, overlay.Value{Key: key("k"), Data: []byte("v")})
	if s.Peers != 0 || s.Value.ID == 0 || s.Value.Writer == "" {
		t.Errorf("stored %+v; want no peers, an id and the writer", s)
	}
	waitValues(t, o, key("k"), "v")
	if n := o.Node(); n.Stored != 1 || n.Peers != 0 || n.ID == "" {
		t.Errorf("node %+v", n)
	}
}

func putGet(t *testing.T, cluster Cluster) {
	nodes := cluster(t, 4)
	big := bytes.Repeat([]byte{0xa5}, overlay.MaxSigned)
	for _, v := range []overlay.Value{{ID: 7, Type: 3, Data: []byte("small")}, {ID: 8, Data: big}, {ID: 9, Data: nil}} {
		v.Key = key("k" + fmt.Sprint(v.ID))
		if s := put(t, nodes[0], v); s.Peers == 0 {
			t.Errorf("value %d: no peer was asked", v.ID)
		}
		for i, o := range nodes {
			waitValues(t, o, v.Key, string(v.Data))
			vs, err := o.Get(ctx(t), v.Key)
			if err != nil || len(vs) != 1 {
				t.Fatalf("node %d: %d values, %v", i, len(vs), err)
			}
			left := time.Until(vs[0].Expires)
			if vs[0].ID != v.ID || vs[0].Type != v.Type || vs[0].Writer != nodes[0].Node().ID || left <= 0 || left > overlay.Lifetime(v.Type) {
				t.Errorf("node %d: id %d type %d writer %s left %s", i, vs[0].ID, vs[0].Type, vs[0].Writer, left)
			}
		}
	}
	if vs, err := nodes[1].Get(ctx(t), key("nothing")); err != nil || len(vs) != 0 {
		t.Errorf("an empty key has %v, %v", vs, err)
	}
}

func writers(t *testing.T, cluster Cluster) {
	nodes := cluster(t, 5)
	var want []string
	for i, o := range nodes[:4] {
		for j := range 2 { // the same ids at each writer
			data := fmt.Sprintf("%d-%d", i, j)
			put(t, o, overlay.Value{Key: key("k"), ID: uint64(j + 1), Data: []byte(data)})
			want = append(want, data)
		}
	}
	waitValues(t, nodes[4], key("k"), want...)
}

func replace(t *testing.T, cluster Cluster) {
	nodes := cluster(t, 3)
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 1, Data: []byte("old")})
	waitValues(t, nodes[1], key("k"), "old")
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 1, Data: []byte("new")})
	waitValues(t, nodes[1], key("k"), "new")
	if nodes[1].Cancel(ctx(t), key("k"), 1) {
		t.Error("cancelled another's value")
	}
	if !nodes[0].Cancel(ctx(t), key("k"), 1) || nodes[0].Cancel(ctx(t), key("k"), 1) {
		t.Error("cancel: want true, then false")
	}
	waitValues(t, nodes[1], key("k"))
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 1, Data: []byte("again")})
	waitValues(t, nodes[2], key("k"), "again")
}

// restore: what was put permanently before is there at once, is found by others, and
// none of it takes another's place under the same key.
func restore(t *testing.T, cluster Cluster) {
	nodes := cluster(t, 2)
	err := nodes[0].Restore([]overlay.Value{{Key: key("k"), ID: 1, Data: []byte("a")}, {Key: key("k"), ID: 2, Data: []byte("b")},
		{Key: key("k"), ID: 3, Data: make([]byte, overlay.MaxValue+1)}})
	if !errors.Is(err, overlay.ErrTooLarge) {
		t.Errorf("one that is too large: %v", err)
	}
	if vs, err := nodes[0].Get(ctx(t), key("k")); err != nil || len(vs) != 2 {
		t.Errorf("%d values at once, %v", len(vs), err)
	}
	waitValues(t, nodes[1], key("k"), "a", "b")
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 4, Data: []byte("c")})
	waitValues(t, nodes[1], key("k"), "a", "b", "c")
	if !nodes[0].Cancel(ctx(t), key("k"), 1) {
		t.Error("a restored value cannot be cancelled")
	}
	waitValues(t, nodes[1], key("k"), "b", "c")
}

// recorder keeps what a listener was told.
type recorder struct {
	mu  sync.Mutex
	got []string
}

func (r *recorder) add(c overlay.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sign := "+"
	if c.Expired {
		sign = "-"
	}
	r.got = append(r.got, sign+string(c.Value.Data))
}

func (r *recorder) wait(t *testing.T, want ...string) {
	t.Helper()
	wait(t, fmt.Sprintf("changes %q", want), func() (bool, string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Sprint(r.got) == fmt.Sprint(want), fmt.Sprint(r.got)
	})
}

func listen(t *testing.T, cluster Cluster) {
	nodes := cluster(t, 3)
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 1, Data: []byte("a")})
	waitValues(t, nodes[1], key("k"), "a")
	var near, far recorder
	for _, x := range []struct {
		o overlay.Overlay
		r *recorder
	}{{nodes[0], &near}, {nodes[1], &far}} {
		now, stop, err := x.o.Listen(ctx(t), key("k"), x.r.add)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		if len(now) != 1 || string(now[0].Data) != "a" {
			t.Errorf("at the start: %v", now)
		}
	}
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 2, Data: []byte("b")})
	for _, r := range []*recorder{&near, &far} {
		r.wait(t, "+b")
	}
	nodes[0].Cancel(ctx(t), key("k"), 1)
	for _, r := range []*recorder{&near, &far} {
		r.wait(t, "+b", "-a")
	}
	_, stop, err := nodes[1].Listen(ctx(t), key("k"), func(overlay.Change) { t.Error("told after stop") })
	if err != nil {
		t.Fatal(err)
	}
	stop()
	stop() // twice is harmless
	put(t, nodes[1], overlay.Value{Key: key("k"), ID: 3, Data: []byte("c")})
	far.wait(t, "+b", "-a", "+c")
}

// expiry takes what a value without a future would take: it only checks that the
// time left shrinks and is that of the type; waiting for the shortest lifetime, a
// minute, is left to the overlay's own tests with a clock.
func expiry(t *testing.T, cluster Cluster) {
	o := cluster(t, 1)[0]
	s := put(t, o, overlay.Value{Key: key("k"), Type: 5, Data: []byte("ice")})
	if left := time.Until(s.Value.Expires); left <= 50*time.Second || left > time.Minute {
		t.Errorf("ICE candidates live %s, want a minute", left)
	}
}

func refusals(t *testing.T, cluster Cluster) {
	o := cluster(t, 1)[0]
	if _, err := o.Put(ctx(t), overlay.Value{Key: key("k"), Data: make([]byte, overlay.MaxValue+1)}, false); !errors.Is(err, overlay.ErrTooLarge) {
		t.Errorf("too large a value: %v", err)
	}
	var err error
	n := 0
	for ; n < 100_000 && err == nil; n++ {
		_, err = o.Put(ctx(t), overlay.Value{Key: key("q"), Data: []byte("x")}, false)
	}
	if !errors.Is(err, overlay.ErrQuota) {
		t.Errorf("after %d values under one key: %v, want a quota", n, err)
	}
	if _, err := o.Put(ctx(t), overlay.Value{Key: key("other"), Data: []byte("x")}, false); err != nil {
		t.Errorf("another key after that: %v", err)
	}
}

func outlives(t *testing.T, cluster Cluster) {
	nodes := cluster(t, 4)
	put(t, nodes[0], overlay.Value{Key: key("k"), ID: 1, Data: []byte("kept")})
	waitValues(t, nodes[3], key("k"), "kept")
	if err := nodes[0].Close(); err != nil {
		t.Fatal(err)
	}
	waitValues(t, nodes[3], key("k"), "kept")
}

func closed(t *testing.T, cluster Cluster) {
	o := cluster(t, 2)[0]
	if _, _, err := o.Listen(ctx(t), key("k"), func(overlay.Change) {}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Put(ctx(t), overlay.Value{Key: key("k")}, false); !errors.Is(err, overlay.ErrClosed) {
		t.Errorf("put: %v", err)
	}
	if _, err := o.Get(ctx(t), key("k")); !errors.Is(err, overlay.ErrClosed) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := o.Listen(ctx(t), key("k"), func(overlay.Change) {}); !errors.Is(err, overlay.ErrClosed) {
		t.Errorf("listen: %v", err)
	}
}
