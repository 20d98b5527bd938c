package libp2p

import (
	"bytes"
	"errors"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-jami/parley/services/dht/overlay"
)

var testNow = time.UnixMilli(1_795_000_000_000)

// signed makes a record and its name.
func signed(t testing.TB, key crypto.PrivKey, r record) (string, []byte) {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.pack(key)
	if err != nil {
		t.Fatal(err)
	}
	return recordKey(r.key, id), b
}

func sample() record {
	k := overlay.Key{1, 2, 3}
	return record{key: k, seq: 7, expires: testNow.Add(10 * time.Minute), values: []overlay.Value{
		{Key: k, ID: 1, Type: 0, Data: []byte("a"), Expires: testNow.Add(10 * time.Minute)},
		{Key: k, ID: 1 << 63, Type: 65535, Data: []byte{}, Expires: testNow.Add(time.Minute)},
	}}
}

func TestRecordRoundTrip(t *testing.T) {
	key := newKey(t)
	want := sample()
	name, b := signed(t, key, want)
	got, err := parseRecord(name, b)
	if err != nil {
		t.Fatal(err)
	}
	if got.key != want.key || got.seq != want.seq || !got.expires.Equal(want.expires) || len(got.values) != 2 {
		t.Fatalf("got %+v", got)
	}
	for i, v := range got.values {
		w := want.values[i]
		if v.ID != w.ID || v.Type != w.Type || !bytes.Equal(v.Data, w.Data) || !v.Expires.Equal(w.Expires) || v.Writer == "" {
			t.Errorf("value %d: %+v, want %+v", i, v, w)
		}
	}
	if n := len(got.live(testNow.Add(2 * time.Minute))); n != 1 {
		t.Errorf("%d values live after two minutes, want 1", n)
	}
}

func TestValidatorRefuses(t *testing.T) {
	key, other := newKey(t), newKey(t)
	v := validator{func() time.Time { return testNow }}
	name, good := signed(t, key, sample())
	if err := v.Validate(name, good); err != nil {
		t.Fatal(err)
	}
	otherName, _ := signed(t, other, sample())
	elsewhere := sample()
	elsewhere.key = overlay.Key{9}
	elsewhereName, _ := signed(t, key, elsewhere)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/3] ^= 1
	change := func(fn func(*record)) []byte {
		r := sample()
		fn(&r)
		_, b := signed(t, key, r)
		return b
	}
	for what, x := range map[string]struct {
		name string
		b    []byte
	}{
		"another writer's name": {otherName, good},
		"another key":           {elsewhereName, good},
		"no name":               {"", good},
		"upper-case key":        {"/parley/0102030000000000000000000000000000000ABC" + name[48:], good},
		"changed":               {name, flipped},
		"cut":                   {name, good[:len(good)-1]},
		"empty":                 {name, nil},
		"expired":               {name, change(func(r *record) { r.expires = testNow; r.values = nil })},
		"expires too late":      {name, change(func(r *record) { r.expires = testNow.Add(9 * 24 * time.Hour) })},
		"value outlives record": {name, change(func(r *record) { r.values[0].Expires = r.expires.Add(time.Second) })},
		"id 0":                  {name, change(func(r *record) { r.values[0].ID = 0 })},
		"id twice":              {name, change(func(r *record) { r.values[1].ID = 1 })},
		"value too large":       {name, change(func(r *record) { r.values[0].Data = make([]byte, overlay.MaxValue+1) })},
		"too many values": {name, change(func(r *record) {
			for i := range maxValues {
				r.values = append(r.values, overlay.Value{ID: uint64(i + 2), Expires: r.expires})
			}
		})},
	} {
		if v.Validate(x.name, x.b) == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestSelectTakesTheNewest(t *testing.T) {
	key := newKey(t)
	r := sample()
	name, old := signed(t, key, r)
	r.seq++
	_, newer := signed(t, key, r)
	v := validator{time.Now}
	for _, x := range []struct {
		in   [][]byte
		want int
	}{{[][]byte{old, newer}, 1}, {[][]byte{newer, old}, 0}, {[][]byte{[]byte("junk"), old}, 1}} {
		if got, err := v.Select(name, x.in); err != nil || got != x.want {
			t.Errorf("got %d, %v; want %d", got, err, x.want)
		}
	}
	if _, err := v.Select(name, [][]byte{[]byte("junk")}); err == nil {
		t.Error("selected junk")
	}
}

func TestDiff(t *testing.T) {
	self, p := peer.ID("self"), peer.ID("p")
	val := func(id uint64, data string, left time.Duration) overlay.Value {
		return overlay.Value{ID: id, Data: []byte(data), Expires: testNow.Add(left)}
	}
	rec := func(seq uint64, vs ...overlay.Value) map[peer.ID]*record {
		return map[peer.ID]*record{p: {seq: seq, values: vs}}
	}
	w := &watcher{known: map[valueID]overlay.Value{}, seqs: map[peer.ID]uint64{}}
	for _, x := range []struct {
		name string
		own  []overlay.Value
		recs map[peer.ID]*record
		at   time.Duration
		want string
	}{
		{"nothing", nil, nil, 0, ""},
		{"first", []overlay.Value{val(1, "own", time.Hour)}, rec(1, val(1, "a", time.Minute)), 0, "+own+a"},
		{"the same", []overlay.Value{val(1, "own", time.Hour)}, rec(1, val(1, "a", time.Minute)), 0, ""},
		{"not reached", []overlay.Value{val(1, "own", time.Hour)}, nil, 0, ""},
		{"refreshed", []overlay.Value{val(1, "own", time.Hour)}, rec(2, val(1, "a", 2*time.Minute)), 0, ""},
		{"not yet expired", []overlay.Value{val(1, "own", time.Hour)}, nil, 90 * time.Second, ""},
		{"changed", []overlay.Value{val(1, "own", time.Hour)}, rec(3, val(1, "b", 2*time.Minute)), 0, "+b"},
		{"an older copy", []overlay.Value{val(1, "own", time.Hour)}, rec(2, val(1, "a", 2*time.Minute)), 0, ""},
		{"own cancelled", nil, nil, 0, "-own"},
		{"expired", nil, nil, 2 * time.Minute, "-b"},
		{"again", nil, rec(4, val(1, "c", time.Minute)), 0, "+c"},
		{"cancelled", nil, rec(5), 0, "-c"},
	} {
		got := ""
		for _, c := range w.diff(x.own, self, x.recs, testNow.Add(x.at)) {
			got += map[bool]string{false: "+", true: "-"}[c.Expired] + string(c.Value.Data)
		}
		if got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := newStore(10_000)
	ctx := t.Context()
	n := 0
	var err error
	for ; err == nil; n++ {
		err = s.Put(ctx, ds.NewKey(string(rune('a'+n))), make([]byte, 1000))
	}
	if !errors.Is(err, errFull) || n < 5 || n > 10 {
		t.Fatalf("after %d entries: %v", n, err)
	}
	if err := s.Put(ctx, ds.NewKey("a"), make([]byte, 1000)); err != nil {
		t.Errorf("replacing with the same size: %v", err)
	}
	if err := s.Put(ctx, ds.NewKey("a"), make([]byte, 9000)); !errors.Is(err, errFull) {
		t.Errorf("replacing with more than fits: %v", err)
	}
	for i := range n {
		for range 2 { // a second delete counts nothing
			if err := s.Delete(ctx, ds.NewKey(string(rune('a'+i)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.size != 0 {
		t.Errorf("%d bytes left in an empty store", s.size)
	}
}

func FuzzRecord(f *testing.F) {
	key := newKey(f)
	name, b := signed(f, key, sample())
	f.Add(name, b)
	f.Add(name, []byte{0x92, 0xc6, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if r, err := parseRecord(name, b); err == nil && len(r.values) > maxValues {
			t.Error("too many values")
		}
	})
}

// FuzzBody is what a peer that signs correctly may send.
func FuzzBody(f *testing.F) {
	f.Add([]byte("\x95\x01\xc4\x14aaaaaaaaaaaaaaaaaaaa\x07\xce\x10\x00\x00\x00\x91\x94\x01\x00\x01\xc4\x01a"))
	f.Add([]byte("\x95\x01\xc4\x14aaaaaaaaaaaaaaaaaaaa\x07\x01\xdd\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseBody(b)
		if err != nil {
			return
		}
		key := newKey(t)
		name, again := signed(t, key, *r)
		if r2, err := parseRecord(name, again); err != nil || len(r2.values) != len(r.values) {
			t.Errorf("does not survive a round trip: %v", err)
		}
	})
}
