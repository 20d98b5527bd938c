package both

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/opendht"
	"github.com/parley-jami/parley/services/dht/overlay"
)

func node(t *testing.T, bootstrap ...string) *opendht.Node {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n, err := opendht.New(opendht.Options{Key: k, Listen: "127.0.0.1:0", Bootstrap: bootstrap, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not come")
		}
	}
}

// TestBoth: two networks that know nothing of each other, and a node in each.
func TestBoth(t *testing.T) {
	left, right := node(t), node(t)
	o := New(node(t, left.Node().Addresses...), node(t, right.Node().Addresses...), zap.NewNop())
	wait(t, func() bool { return o.a.Node().Peers == 1 && o.b.Node().Peers == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	key := overlay.Key{1}
	var mu sync.Mutex
	var got []string
	now, stop, err := o.Listen(ctx, key, func(c overlay.Change) {
		mu.Lock()
		defer mu.Unlock()
		sign := "+"
		if c.Expired {
			sign = "-"
		}
		got = append(got, sign+string(c.Value.Data))
	})
	if err != nil || len(now) != 0 {
		t.Fatalf("%v, %v", now, err)
	}
	told := func(want ...string) {
		t.Helper()
		wait(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Equal(got, want)
		})
	}
	st, err := o.Put(ctx, overlay.Value{Key: key, Data: []byte("mine")}, false)
	if err != nil || st.Peers != 2 {
		t.Fatalf("%+v, %v", st, err)
	}
	told("+mine")
	for _, side := range []*opendht.Node{left, right} {
		if vs, err := side.Get(ctx, key); err != nil || len(vs) != 1 || string(vs[0].Data) != "mine" || vs[0].ID != st.Value.ID {
			t.Errorf("one side has %+v, %v", vs, err)
		}
	}
	if _, err := right.Put(ctx, overlay.Value{Key: key, Data: []byte("theirs")}, false); err != nil {
		t.Fatal(err)
	}
	told("+mine", "+theirs")
	if vs, err := o.Get(ctx, key); err != nil || len(vs) != 2 {
		t.Errorf("%+v, %v", vs, err)
	}
	if !o.Cancel(ctx, key, st.Value.ID) {
		t.Error("not cancelled")
	}
	told("+mine", "+theirs", "-mine")
	stop()
	if n := o.Node(); n.Peers != 2 || len(n.Addresses) != 2 || n.Overlay != "opendht+opendht" {
		t.Errorf("%+v", n)
	}
	// One of two is enough.
	if err := o.b.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := o.Put(ctx, overlay.Value{Key: key, Data: []byte("half")}, false); err != nil || st.Peers != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Get(ctx, key); !errors.Is(err, overlay.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, _, err := o.Listen(ctx, key, func(overlay.Change) {}); !errors.Is(err, overlay.ErrClosed) {
		t.Errorf("%v", err)
	}
}
