package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parley-jami/parley/internal/dbfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
	"github.com/parley-jami/parley/services/names/store"
)

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func records(t testing.TB, n int) []names.Record {
	t.Helper()
	out := make([]names.Record, n)
	for i, k := range namestest.Accounts(t, n) {
		var err error
		if out[i], err = names.Sign(fmt.Sprintf("name-%d", i), k); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestOneNameOneAccount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.db")
	s := open(t, path)
	rs := records(t, 2)
	keys := namestest.Accounts(t, 2)
	second, err := names.Sign("another", keys[0])
	if err != nil {
		t.Fatal(err)
	}
	squat, err := names.Sign(rs[0].Name, keys[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ByName("name-0"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	for _, tt := range []struct {
		what string
		r    names.Record
		want error
	}{
		{"first", rs[0], nil},
		{"again", rs[0], nil},
		{"by another account", squat, store.ErrTaken},
		{"a second name", second, store.ErrHasName},
		{"the other's own", rs[1], nil},
	} {
		if err := s.Register(&tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
	}
	if n := s.Count(); n != 2 {
		t.Errorf("%d names", n)
	}
	for _, want := range rs {
		a, err := s.ByName(want.Name)
		b, err2 := s.ByAddr(want.Addr)
		if err != nil || err2 != nil || a.Verify() != nil || a.Addr != want.Addr || b.Name != want.Name {
			t.Errorf("%+v %+v %v %v", a, b, err, err2)
		}
	}
	if _, err := s.ByAddr(jami.ID{1}); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if _, err := store.Open(path); !errors.Is(err, dbfile.ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// Many want one name at the same moment: one gets it.
func TestRace(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "names.db"))
	const n = 30
	var got, refused atomic.Int32
	var wg sync.WaitGroup
	for _, k := range namestest.Accounts(t, n) {
		r, err := names.Sign("alice", k)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			switch err := s.Register(&r); {
			case err == nil:
				got.Add(1)
			case errors.Is(err, store.ErrTaken):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 || refused.Load() != n-1 || s.Count() != 1 {
		t.Errorf("%d got it, %d were refused, %d are counted", got.Load(), refused.Load(), s.Count())
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "names.db"))
	rs := records(t, 30)
	var wg sync.WaitGroup
	for i := range rs {
		wg.Go(func() {
			if err := s.Register(&rs[i]); err != nil {
				t.Error(err)
			}
		})
		if i == 15 {
			wg.Go(func() {
				if err := s.Backup(t.Context(), filepath.Join(dir, "early.db")); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ended, filepath.Join(dir, "never.db")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Backup(t.Context(), filepath.Join(dir, "copy.db")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("%v", entries)
	}
	open(t, filepath.Join(dir, "early.db"))
	b := open(t, filepath.Join(dir, "copy.db"))
	for _, r := range rs {
		if got, err := b.ByName(r.Name); err != nil || got.Verify() != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
	if b.Count() != len(rs) {
		t.Errorf("%d names", b.Count())
	}
}

// A damaged file is refused, and not a byte of it is changed.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "names.db")
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records(t, 30) {
		if err := s.Register(&r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, len(good))
	for i := range noise {
		noise[i] = byte(i * 7)
	}
	noMeta := append(make([]byte, 8192), good[8192:]...)
	noMiddle := append([]byte(nil), good...)
	clear(noMiddle[8192:])
	flipped := append([]byte(nil), good...)
	at := bytes.Index(flipped, records(t, 30)[7].Signature)
	flipped[at] ^= 1
	for what, b := range map[string][]byte{
		"a bit":              flipped,
		"cut to half a page": good[:2048], "cut to the first pages": good[:8192], "cut to three pages": good[:3*4096],
		"noise": noise, "no head": noMeta, "a text": []byte("names\n"), "no pages": noMiddle,
	} {
		path := filepath.Join(t.TempDir(), "names.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(path)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", what)
			continue
		}
		if !errors.Is(err, dbfile.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(b) {
			t.Errorf("%s: the file has changed, %v", what, err)
		}
	}
	if s := open(t, path); s.Count() != 30 {
		t.Errorf("%d names", s.Count())
	}
}

func TestNoSuchDirectory(t *testing.T) {
	if _, err := store.Open(filepath.Join(t.TempDir(), "x", "names.db")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func BenchmarkRegister(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "names.db"))
	rs := records(b, 2)
	var n atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		r := rs[0] // what is stored is not verified here: the cost is the file's
		for pb.Next() {
			i := n.Add(1)
			r.Name = fmt.Sprintf("bench-%d", i)
			r.Addr = jami.HashKey(r.Name)
			if err := s.Register(&r); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "names.db"))
	rs := records(b, 30)
	for i := range rs {
		if err := s.Register(&rs[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.ByName(rs[i%len(rs)].Name); err != nil {
				b.Error(err)
			}
		}
	})
}
