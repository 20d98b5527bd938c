package opendht

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

func oneKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pair is two nodes that know each other.
func pair(t *testing.T) (a, b *Node) {
	t.Helper()
	a = start(t, 0, nil)
	b = start(t, 1, func(o *Options) { o.Bootstrap = []string{a.Node().Addresses[0]} })
	until(t, "both know each other", func() (bool, any) {
		return a.Node().Peers == 1 && b.Node().Peers == 1, []int{a.Node().Peers, b.Node().Peers}
	})
	return a, b
}

func until(t *testing.T, what string, ok func() (bool, any)) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for {
		done, saw := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: last saw %v", what, saw)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func named(cs []overlay.Count, name string) uint64 {
	i := slices.IndexFunc(cs, func(c overlay.Count) bool { return c.Name == name })
	if i < 0 {
		return 0
	}
	return cs[i].N
}

func TestReport(t *testing.T) {
	a, b := pair(t)
	key := overlay.Key(jami.HashKey("report"))
	if _, err := b.Put(t.Context(), overlay.Value{Key: key, Data: []byte("x")}, true); err != nil {
		t.Fatal(err)
	}
	r := a.Reports()[0]
	if r.ID != a.Node().ID || len(r.Tables) != 1 || r.Tables[0].Family != "ipv4" || r.Tables[0].Good != 1 || r.Tables[0].Estimate != 2 {
		t.Errorf("%+v", r)
	}
	if r.Store.Keys != 1 || r.Store.Values != 1 || r.Store.Bytes < 1 || r.Store.Quota != 64<<20 || r.Store.Own != 0 {
		t.Errorf("%+v", r.Store)
	}
	other := b.Reports()[0]
	if other.Store.Own != 1 || other.Puts != 1 || len(other.Bootstrap) != 1 || !other.Bootstrap[0].Answers || len(other.Public) != 1 {
		t.Errorf("%+v", other)
	}
	// What one sent of each kind came to the other: there is nobody else.
	until(t, "all has arrived", func() (bool, any) {
		x, y := a.Reports()[0], b.Reports()[0]
		for i, out := range x.Traffic {
			in := y.Traffic[i]
			if in.Kind != out.Kind || in.In != out.Out || in.InBytes != out.OutBytes || in.Out != out.In || in.OutBytes != out.InBytes {
				return false, []overlay.Traffic{out, in}
			}
		}
		s := a.Stats()
		var packets, bytes uint64
		for _, k := range s.Out {
			packets, bytes = packets+k.Packets, bytes+k.Bytes
		}
		return packets == s.Sent && bytes == s.SentBytes, s
	})
}

func TestDropsAreCountedByReason(t *testing.T) {
	a, _ := pair(t)
	c, err := net.Dial("udp4", a.Node().Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	foreign := wire.Message{Kind: wire.Ping, TID: 1, ID: [20]byte{1}, Network: 7}
	unasked := wire.Message{Kind: wire.Reply, TID: 1, ID: [20]byte{1}}
	for _, b := range [][]byte{[]byte("junk"), foreign.Append(nil), unasked.Append(nil)} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, reason := range []string{"malformed", "network", "unasked"} {
		until(t, reason, func() (bool, any) { r := a.Reports()[0]; return named(r.Dropped, reason) == 1, r.Dropped })
	}
}

func TestPing(t *testing.T) {
	a, b := pair(t)
	p, err := a.Ping(t.Context(), b.Node().Addresses[0])
	if err != nil || p.ID != jami.NodeID(b.id.ID).String() || p.Agent != wire.Agent || !p.Seen.IsLoopback() || p.Time <= 0 || p.Sendings != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Ping(ctx, silent.LocalAddr().String()); !errors.Is(err, overlay.ErrSilent) {
		t.Error(err)
	}
	if _, err := a.Ping(t.Context(), "224.0.0.1:4222"); err == nil || errors.Is(err, overlay.ErrSilent) {
		t.Error(err)
	}
}

func TestScanFindsAll(t *testing.T) {
	nodes := []*Node{start(t, 0, nil)}
	for i := range 11 { // more than one bucket holds
		nodes = append(nodes, start(t, 0, func(o *Options) {
			o.Key = oneKey(t)
			o.Bootstrap = []string{nodes[i/2].Node().Addresses[0]}
		}))
	}
	until(t, "each knows another", func() (bool, any) {
		for i, n := range nodes {
			if n.Node().Peers == 0 {
				return false, i
			}
		}
		return true, nil
	})
	var w overlay.Walked
	until(t, "all are found", func() (bool, any) {
		var err error
		if w, err = nodes[3].Scan(t.Context(), overlay.Walk{Nodes: 1000, Rate: 1000}); err != nil {
			t.Fatal(err)
		}
		return len(w.Nodes) == len(nodes)-1, fmt.Sprintf("%d of %d, %+v", len(w.Nodes), len(nodes)-1, w)
	})
	if !w.Whole || w.Silent != 0 || w.Asked < len(w.Nodes) {
		t.Errorf("%+v", w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w, err := nodes[3].Scan(ctx, overlay.Walk{Nodes: 1000, Rate: 1}); err != nil || w.Whole {
		t.Errorf("%+v, %v", w, err)
	}
	if w, err := nodes[3].Scan(t.Context(), overlay.Walk{Nodes: 3, Rate: 1000}); err != nil || w.Whole || len(w.Nodes) > 3 {
		t.Errorf("%+v, %v", w, err)
	}
}
