package libp2p

import (
	"bytes"
	"encoding/base32"
	"errors"
	"fmt"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
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
		return map[peer.ID]*record{p: {seq: seq, expires: testNow.Add(time.Hour), values: vs}}
	}
	w := newWatcher(overlay.Key{}, nil)
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

// TestAListenerIsBounded: strangers under a key cost it no more than its bounds, and
// what did not fit at once is told later.
func TestAListenerIsBounded(t *testing.T) {
	w := newWatcher(overlay.Key{}, nil)
	recs := map[peer.ID]*record{}
	for i := range 2 * watchWriters {
		p := peer.ID(fmt.Sprint("p", i))
		recs[p] = &record{seq: 1, expires: testNow.Add(time.Hour)}
		for id := range uint64(4) {
			recs[p].values = append(recs[p].values, overlay.Value{ID: id + 1, Writer: p.String(), Data: make([]byte, 10_000), Expires: testNow.Add(time.Minute)})
		}
	}
	told := 0
	for range 20 {
		got := len(w.diff(nil, "self", recs, testNow))
		if got > watchChanges {
			t.Fatalf("%d changes at once", got)
		}
		told += got
	}
	if told != len(w.known) || told != watchBytes/10_000 || len(w.seen) != watchWriters || w.bytes > watchBytes {
		t.Errorf("%d told, %d known, %d writers, %d bytes", told, len(w.known), len(w.seen), w.bytes)
	}
	for range 20 { // all end, in their turn
		told -= len(w.diff(nil, "self", nil, testNow.Add(2*time.Minute)))
	}
	if told != 0 || len(w.known) != 0 || w.bytes != 0 {
		t.Errorf("%d not told of, %d known, %d bytes", told, len(w.known), w.bytes)
	}
	if w.diff(nil, "self", nil, testNow.Add(2*time.Hour)); len(w.seen) != 0 {
		t.Errorf("%d writers remembered after their records ended", len(w.seen))
	}
}

// TestNothingLivesLongerThanItsType: a stranger does not decide how long we keep it.
func TestNothingLivesLongerThanItsType(t *testing.T) {
	for name, x := range map[string]struct {
		typ     uint16
		value   time.Duration
		record  time.Duration
		refused bool
	}{
		"as it should be":          {0, 10 * time.Minute, 10 * time.Minute, false},
		"clocks differ":            {0, 65 * time.Minute, 65 * time.Minute, false},
		"a week for user data":     {0, 7 * 24 * time.Hour, 7 * 24 * time.Hour, true},
		"a week for a record":      {0, 10 * time.Minute, 7 * 24 * time.Hour, true},
		"a week for a request":     {4, 7 * 24 * time.Hour, 7 * 24 * time.Hour, false},
		"a month for a request":    {4, 30 * 24 * time.Hour, 30 * 24 * time.Hour, true},
		"a day for a call's start": {5, 24 * time.Hour, 24 * time.Hour, true},
	} {
		r := record{expires: testNow.Add(x.record), values: []overlay.Value{{ID: 1, Type: x.typ, Expires: testNow.Add(x.value)}}}
		if err := r.fresh(testNow); (err != nil) != x.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// placeOf is where kad-dht keeps a writer's record.
func placeOf(k overlay.Key, writer peer.ID) ds.Key {
	return ds.NewKey("/" + namespace + "/" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(recordKey(k, writer))))
}

func writerID(t testing.TB) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStoreIsBounded(t *testing.T) {
	const limit = 80_000
	self, few, many := writerID(t), writerID(t), writerID(t)
	s := newStore(limit, self)
	ctx := t.Context()
	put := func(i int, by peer.ID, size int) error {
		return s.Put(ctx, placeOf(overlay.Key{byte(i), byte(i >> 8)}, by), make([]byte, size))
	}
	has := func(i int, by peer.ID) bool {
		ok, err := s.Has(ctx, placeOf(overlay.Key{byte(i), byte(i >> 8)}, by))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if err := put(1, few, 1000); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := put(i, many, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if s.writers[many].size > limit/writerShare || has(0, many) || !has(99, many) || !has(1, few) {
		t.Errorf("one writer has %d bytes, oldest there %v, newest %v, another's %v", s.writers[many].size, has(0, many), has(99, many), has(1, few))
	}
	for range 200 { // strangers that one makes as one likes
		by := writerID(t)
		for i := range 3 {
			if err := put(i, by, 1000); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.size > limit || !has(1, few) {
		t.Errorf("%d bytes; who takes little is there: %v", s.size, has(1, few))
	}
	for i := range 200 { // more than there is room for
		if err := put(i, self, 1000); err != nil {
			t.Fatalf("own put %d into a full store: %v", i, err)
		}
	}
	for i := range 200 {
		if !has(i, self) {
			t.Fatalf("own record %d was thrown out", i)
		}
	}
	if err := put(1, few, limit); !errors.Is(err, errFull) {
		t.Errorf("more than a share: %v", err)
	}
	if err := s.Put(ctx, ds.NewKey("/providers/AAAA/"+base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(few))), nil); err != nil {
		t.Fatal(err)
	}
	if n := s.writers[few].entries.Len(); n != 2 {
		t.Errorf("a record and what it provides: %d entries", n)
	}
	res, err := s.Query(ctx, query.Query{KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil || len(all) != len(s.entries) {
		t.Fatalf("%d entries are there, %d counted, %v", len(all), len(s.entries), err)
	}
	for _, e := range all {
		for range 2 { // a second delete counts nothing
			if err := s.Delete(ctx, ds.NewKey(e.Key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.size != 0 || len(s.writers) != 0 || len(s.heavy) != 0 || len(s.entries) != 0 {
		t.Errorf("%d bytes, %d writers left in an empty store", s.size, len(s.writers))
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
