package dbfile

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var bucket = []byte("things")

// options are of a file whose records have sums.
func options() Options {
	return Options{Version: 7, Buckets: [][]byte{bucket}, Check: func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error { _, err := Unseal(k, v); return err })
	}}
}

func put(key string, size int) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).Put([]byte(key), Seal([]byte(key), bytes.Repeat([]byte("x"), size)))
	}
}

func mustOpen(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func keys(t testing.TB, f *File) (all []string) {
	t.Helper()
	err := f.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, _ []byte) error { all = append(all, string(k)); return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// grown makes a file with branches, overflow pages, free pages and inline buckets.
func grown(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.db")
	f := mustOpen(t, path)
	for i := range 40 {
		err := f.Write(func(tx *bolt.Tx) error {
			for j := range 10 {
				if err := put(fmt.Sprintf("key-%04d", (i*10+j)*7%1000), 20+i*j)(tx); err != nil {
					return err
				}
			}
			if i%3 == 0 {
				return tx.Bucket(bucket).Delete(fmt.Appendf(nil, "key-%04d", i*7))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Write(put("large", 20_000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	f := mustOpen(t, path)
	if err := f.Write(put("a", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, options()); !errors.Is(err, ErrInUse) {
		t.Errorf("twice: %v", err)
	}
	no := errors.New("no")
	if err := f.Write(func(tx *bolt.Tx) error { return errors.Join(put("b", 1)(tx), no) }); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(put("c", 1)); !errors.Is(err, berrors.ErrDatabaseNotOpen) {
		t.Error(err)
	}
	f = mustOpen(t, path)
	if got := keys(t, f); len(got) != 1 || got[0] != "a" {
		t.Errorf("%q", got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	other := options()
	other.Version++
	if _, err := Open(path, other); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if left, err := filepath.Glob(path + "?*"); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// One that fails takes no other with it.
func TestManyWritersSomeOfWhomFail(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "f.db"))
	no := errors.New("no")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			err := f.Write(func(tx *bolt.Tx) error {
				if err := put(fmt.Sprintf("%03d", i), 10)(tx); err != nil || i%3 != 0 {
					return err
				}
				return no
			})
			if (err != nil) != (i%3 == 0) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if got := keys(t, f); len(got) != 133 {
		t.Errorf("%d keys", len(got))
	}
}

// A file that was cut at any length is refused and stays as it is, or nothing of use
// was cut off.
func TestCutAtAnyLength(t *testing.T) {
	good := grown(t)
	step := 509
	if testing.Short() {
		step = 4999
	}
	for n := 0; n < len(good); n += step {
		tryDamaged(t, fmt.Sprintf("cut to %d of %d", n, len(good)), good[:n], good)
	}
}

// A bit that flips anywhere is noticed, or was in a place that nobody reads.
func TestFlippedBits(t *testing.T) {
	good := grown(t)
	tries := 1500
	if testing.Short() {
		tries = 200
	}
	r := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	try := func(at int) {
		b := bytes.Clone(good)
		b[at] ^= 1 << r.IntN(8)
		if tryDamaged(t, fmt.Sprintf("a bit of byte %d", at), b, good) {
			noticed++
		}
	}
	for at := range 2 * (pageHead + metaSize) { // both heads
		try(at%(pageHead+metaSize) + at/(pageHead+metaSize)*4096)
	}
	for page := 2; page*4096 < len(good); page++ { // heads and elements, where structure is
		for range 8 {
			try(page*4096 + r.IntN(128))
		}
	}
	for range tries {
		try(r.IntN(len(good)))
	}
	if noticed < 100 {
		t.Errorf("%d are noticed", noticed)
	}
}

// tryDamaged reports whether the file is refused. One that is taken has all that the
// good one has, and can be written.
func tryDamaged(t *testing.T, what string, b, good []byte) bool {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "f.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, options())
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
			t.Errorf("%s: the file was changed, %v", what, err)
		}
		return true
	}
	defer f.Close()
	whole := filepath.Join(dir, "good.db")
	if err := os.WriteFile(whole, good, 0o600); err != nil {
		t.Fatal(err)
	}
	want := mustOpen(t, whole)
	if got := keys(t, f); fmt.Sprint(got) != fmt.Sprint(keys(t, want)) {
		t.Errorf("%s: %d keys", what, len(got))
	}
	for i := range 3 {
		if err := f.Write(put(fmt.Sprintf("new-%d", i), 3000)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	return false
}

func TestSomethingElse(t *testing.T) {
	stranger := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(stranger, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("else")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(stranger)
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{
		"empty": {}, "a text": []byte("hello\n"), "zeros": make([]byte, 1<<16), "another program's": other, "noise": bytes.Repeat([]byte{0xed, 7, 1}, 20000),
	} {
		path := filepath.Join(t.TempDir(), "f.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, options()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
			t.Errorf("%s: the file was changed, %v", what, err)
		}
	}
	if _, err := Open(t.TempDir(), options()); err == nil {
		t.Error("a directory opens")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "x", "f.db"), options()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// The file is cut short while it is open: reads and writes fail, the process lives.
func TestCutWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	if err := os.WriteFile(path, grown(t), 0o600); err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, path)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := f.Write(put(fmt.Sprintf("key-%04d", 70*i), 10)); !errors.Is(err, ErrDamaged) {
				t.Errorf("a write: %v", err)
			}
			err := f.View(func(tx *bolt.Tx) error {
				return tx.Bucket(bucket).ForEach(func(k, v []byte) error { _, err := Unseal(k, v); return err })
			})
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("a read: %v", err)
			}
		})
	}
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	good := grown(f)
	f.Add(good[:1<<14])
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := verify(bytes.NewReader(b), int64(len(b))); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}
