package opendht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

func start(t *testing.T, i int, change func(*Options)) *Node {
	t.Helper()
	o := Options{Key: overlaytest.Keys()[i], Listen: "127.0.0.1:0", Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))}
	if change != nil {
		change(&o)
	}
	n, err := New(o)
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

func cluster(t *testing.T, n int) []overlay.Overlay {
	t.Helper()
	var out []overlay.Overlay
	for i := range n {
		out = append(out, start(t, i, func(o *Options) {
			if i > 0 {
				o.Bootstrap = out[0].Node().Addresses
			}
		}))
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, x := range out {
		for x.Node().Peers < n-1 {
			if time.Now().After(deadline) {
				t.Fatalf("%s knows %d of %d", x.Node().ID, x.Node().Peers, n-1)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return out
}

func TestOverlay(t *testing.T) { overlaytest.Run(t, cluster) }

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return c
}

func mustPut(t *testing.T, n overlay.Overlay, v overlay.Value, permanent bool) overlay.Stored {
	t.Helper()
	s, err := n.Put(ctx(t), v, permanent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pack(t *testing.T, v *jami.Value) []byte {
	t.Helper()
	b, err := v.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForms: each kind of value is on the wire what stock nodes expect, and comes back
// as its reader expects.
func TestForms(t *testing.T) {
	nodes := cluster(t, 2)
	key := overlay.Key(jami.HashKey("k"))
	mine := func(v *jami.Value) *jami.Value {
		if err := v.Sign(overlaytest.Keys()[5]); err != nil {
			t.Fatal(err)
		}
		return v
	}
	other, _, err := jami.PublicIDs(&overlaytest.Keys()[5].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	announcement := pack(t, mine(&jami.Value{ID: 11, Data: []byte("announcement")}))
	secret, err := (&jami.Value{ID: 12, Type: 4, Data: []byte("secret")}).EncryptTo(&overlaytest.Keys()[4].PublicKey, overlaytest.Keys()[5])
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca, err := jami.NewCA(overlaytest.Keys()[4], now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := jami.PackBin(jami.MarshalChain(ca))
	if err != nil {
		t.Fatal(err)
	}
	certKey, _ := jami.CertIDs(ca)
	for name, x := range map[string]struct {
		put, want overlay.Value
	}{
		"announcement": {overlay.Value{Key: key, ID: 11, Data: announcement}, overlay.Value{ID: 11, Data: announcement, Writer: other.String()}},
		"new id": {overlay.Value{Key: key, ID: 21, Data: announcement},
			overlay.Value{ID: 21, Data: pack(t, mine(&jami.Value{ID: 21, Data: []byte("announcement")})), Writer: other.String()}},
		"encrypted":   {overlay.Value{Key: key, ID: 12, Type: 4, Data: pack(t, secret)}, overlay.Value{ID: 12, Data: pack(t, secret)}},
		"plain":       {overlay.Value{Key: key, Data: pack(t, &jami.Value{ID: 13, Type: 3, Data: []byte("text"), UserType: "x"})}, overlay.Value{ID: 13, Type: 3, Data: []byte("text")}},
		"certificate": {overlay.Value{Key: overlay.Key(certKey), ID: 1, Type: 8, Data: cert}, overlay.Value{ID: 1, Type: 8, Data: cert}},
		"own":         {overlay.Value{Key: key, ID: 14, Type: 3, Data: []byte("own")}, overlay.Value{ID: 14, Type: 3, Data: []byte("own"), Writer: nodes[0].Node().ID}},
	} {
		t.Run(name, func(t *testing.T) {
			mustPut(t, nodes[0], x.put, false)
			vs, err := nodes[1].Get(ctx(t), x.put.Key)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range vs {
				if v.ID == x.want.ID && v.Type == x.want.Type && v.Writer == x.want.Writer && bytes.Equal(v.Data, x.want.Data) {
					return
				}
			}
			t.Errorf("got %+v, want %+v", vs, x.want)
		})
	}
}

func TestSpoiltSignatureIsNotPut(t *testing.T) {
	n := start(t, 0, nil)
	v := &jami.Value{ID: 1, Data: []byte("data")}
	if err := v.Sign(overlaytest.Keys()[1]); err != nil {
		t.Fatal(err)
	}
	v.Data = []byte("other")
	if _, err := n.Put(ctx(t), overlay.Value{Key: overlay.Key{1}, Data: pack(t, v)}, false); !errors.Is(err, overlay.ErrRefused) {
		t.Errorf("%v", err)
	}
	if n.Node().Stored != 0 {
		t.Error("it is kept")
	}
}

// TestSizes: what is packed may have all of the room, what is signed here leaves some for
// the signature.
func TestSizes(t *testing.T) {
	n := start(t, 0, nil)
	full := pack(t, &jami.Value{ID: 1, Data: make([]byte, overlay.MaxValue-64)})
	if _, err := n.Put(ctx(t), overlay.Value{Key: overlay.Key{1}, Data: full}, false); err != nil || len(full) < overlay.MaxSigned {
		t.Errorf("%d bytes packed: %v", len(full), err)
	}
	if _, err := n.Put(ctx(t), overlay.Value{Key: overlay.Key{1}, Data: make([]byte, overlay.MaxSigned+1)}, false); !errors.Is(err, overlay.ErrTooLarge) {
		t.Errorf("too large to be signed: %v", err)
	}
}

// TestRestartKeepsWriting: a process that starts anew, and knows nothing of the sequences
// of the one before, replaces what that put.
func TestRestartKeepsWriting(t *testing.T) {
	peer := start(t, 0, nil)
	key := overlay.Key(jami.HashKey("k"))
	boot := func(o *Options) { o.Bootstrap = peer.Node().Addresses }
	for i := range 4 {
		data := []byte(fmt.Sprint("version ", i))
		o := Options{Key: overlaytest.Keys()[1], Listen: "127.0.0.1:0", Log: zap.NewNop()}
		boot(&o)
		n, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // before anybody is known, or after
			if err := n.Restore([]overlay.Value{{Key: key, ID: 1, Data: data}}); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, func() bool { return n.Node().Peers > 0 })
		if i%2 == 1 {
			mustPut(t, n, overlay.Value{Key: key, ID: 1, Data: data}, true)
		}
		wait(t, func() bool {
			vs, err := peer.Get(ctx(t), key)
			return err == nil && len(vs) == 1 && bytes.Equal(vs[0].Data, data)
		})
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not come")
		}
	}
}

// TestSavedNodes: a node that starts again is back within a second, without its
// bootstrap nodes.
func TestSavedNodes(t *testing.T) {
	a, b := start(t, 0, nil), start(t, 1, nil)
	path := filepath.Join(t.TempDir(), "nodes.json")
	c := start(t, 2, func(o *Options) { o.State, o.Bootstrap = path, append(a.Node().Addresses, b.Node().Addresses...) })
	wait(t, func() bool { return c.Node().Peers == 2 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c = start(t, 2, func(o *Options) { o.State = path })
	wait(t, func() bool { return c.Node().Peers > 0 })
	if d := time.Since(began); d > time.Second {
		t.Errorf("back after %s", d)
	}
}

func TestDamagedStateIsNoObstacle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.json")
	if err := os.WriteFile(path, []byte("{junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, 0, func(o *Options) { o.State, o.Log = path, zap.NewNop() })
}

func TestAddresses(t *testing.T) {
	both := start(t, 0, func(o *Options) { o.Listen = "" })
	if got := both.Node().Addresses; len(got) < 1 {
		t.Errorf("listens on %v", got)
	}
	for _, bad := range []string{"nonsense", "name.example:1", "127.0.0.1:99999", both.conn[0].LocalAddr().String()} {
		if n, err := New(Options{Key: overlaytest.Keys()[1], Listen: bad, Log: zap.NewNop()}); err == nil {
			t.Errorf("%q was taken", bad)
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestIPv6(t *testing.T) {
	a, err := New(Options{Key: overlaytest.Keys()[0], Listen: "[::1]:0", Log: zap.NewNop()})
	if err != nil {
		t.Skip(err)
	}
	defer a.Close()
	b := start(t, 1, func(o *Options) { o.Listen, o.Bootstrap = "[::1]:0", a.Node().Addresses })
	wait(t, func() bool { return b.Node().Peers == 1 })
	mustPut(t, b, overlay.Value{Key: overlay.Key{1}, Data: []byte("six")}, false)
	if vs, err := a.Get(ctx(t), overlay.Key{1}); err != nil || len(vs) != 1 {
		t.Errorf("%v, %v", vs, err)
	}
}

func TestNodeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.pem")
	a, err := NodeKey(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NodeKey(path)
	if err != nil || !a.Equal(b) {
		t.Errorf("another key the second time: %v", err)
	}
	if err := os.WriteFile(path, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NodeKey(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestUnfitIsNotPut: what is not the content of its type is refused for that, not for its
// id; what has another's id is told of the way out.
func TestUnfitIsNotPut(t *testing.T) {
	n := start(t, 0, nil)
	for typ, says := range map[uint16]string{1: "service", mapping.TypeCertificate: "certificate"} {
		_, err := n.Put(ctx(t), overlay.Value{Key: overlay.Key{1}, Type: typ, Data: []byte("a")}, false)
		if !errors.Is(err, overlay.ErrRefused) || !errors.Is(err, mapping.ErrUnfit) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "id;") {
			t.Errorf("type %d: %v", typ, err)
		}
	}
	if n.Node().Stored != 0 {
		t.Error("it is kept")
	}
	for i, seq := range []uint16{2, 1} {
		v := &jami.Value{ID: 3, Seq: seq, Data: []byte{byte(i)}}
		if err := v.Sign(overlaytest.Keys()[1]); err != nil {
			t.Fatal(err)
		}
		_, err := n.Put(ctx(t), overlay.Value{Key: overlay.Key{1}, ID: 3, Data: pack(t, v)}, false)
		if i == 0 && err != nil || i == 1 && (err == nil || !strings.Contains(err.Error(), "--seq")) {
			t.Errorf("sequence %d: %v", seq, err)
		}
	}
}
