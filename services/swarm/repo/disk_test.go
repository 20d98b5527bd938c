package repo

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/swarm/commit"
)

// fullDisk fails from the n-th write on.
type fullDisk struct{ left int }

func (d *fullDisk) sync(dir string) error { return realDisk{}.sync(dir) }

var errNoSpace = errors.New("no space left on device")

func (d *fullDisk) replace(path, tmp string, data []byte, mode fs.FileMode) error {
	if d.left--; d.left < 0 {
		return errNoSpace
	}
	return realDisk{}.replace(path, tmp, data, mode)
}

// failAfter lets n writes pass and fails the others.
func (r *Repo) failAfter(n int) { r.disk = &fullDisk{left: n} }

// heal gives the disk back.
func (r *Repo) heal() { r.disk = realDisk{} }

// FullDisk runs the scenario of a disk that fills up at each of a post's writes.
func FullDisk(t *testing.T, r *Repo, a *Author) {
	for n := range 2 {
		m := commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: strings.Repeat("x", n+1), commit.KeyOnce: "k" + strings.Repeat("x", n)}
		head, count := r.Head(), r.Count()
		r.failAfter(n)
		if _, err := r.Append(a, m, time.Now()); !errors.Is(err, ErrStorage) {
			t.Fatalf("write %d fails: %v", n, err)
		}
		if r.Head() != head || r.Count() != count {
			t.Fatalf("write %d fails: something was kept", n)
		}
		again, err := Open(r.Path, r.ID)
		if err == nil {
			err = again.Load(context.Background(), nil)
		}
		if err != nil || again.Head() != head {
			t.Fatalf("write %d fails: opened again: %v", n, err)
		}
		r.heal()
		if e, err := r.Append(a, m, time.Now()); err != nil || e.Parent != head.String() {
			t.Fatalf("the same post with room on the disk: %v, %v", e, err)
		}
	}
}

// unflushed moves the branch and cannot flush its directory: left times, then
// not any more.
type unflushed struct{ left int }

func (d *unflushed) replace(path, tmp string, data []byte, mode fs.FileMode) error {
	err := realDisk{}.replace(path, tmp, data, mode)
	if filepath.Base(path) == "main" && err == nil && d.left > 0 {
		d.left--
		return errNoSpace
	}
	return err
}

func (d *unflushed) sync(dir string) error {
	if d.left > 0 {
		d.left--
		return errNoSpace
	}
	return realDisk{}.sync(dir)
}

// Unflushed runs the scenario of a branch whose directory cannot be flushed: the
// message is there once, however often it is sent.
func Unflushed(t *testing.T, r *Repo, a *Author) {
	m := func(key string) commit.Message {
		return commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: "x", commit.KeyOnce: key}
	}
	head, count := r.Head(), r.Count()
	r.disk = &unflushed{left: 1}
	e, err := r.Append(a, m("once"), time.Now())
	if err != nil || e.Parent != head.String() || r.Count() != count+1 {
		t.Fatalf("flushed at the second try: %v, %v, %d messages", e, err, r.Count())
	}
	r.disk = &unflushed{left: 4}
	for i := range 3 { // the first takes two
		if _, err := r.Append(a, m("later"), time.Now()); !errors.Is(err, ErrStorage) {
			t.Fatalf("try %d: acknowledged, and not safe: %v", i, err)
		}
	}
	again, err := r.Append(a, m("later"), time.Now().Add(time.Minute))
	if err != nil || again.Parent != e.ID || r.Count() != count+2 || r.Head().String() != again.ID {
		t.Fatalf("%+v, %v, %d messages", again, err, r.Count())
	}
	r.heal()
}

// lazyDisk promises nothing; a benchmark fills a repository with it.
type lazyDisk struct{}

func (lazyDisk) replace(path, _ string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, mode)
}

func (lazyDisk) sync(string) error { return nil }

// NoSync makes writing fast.
func (r *Repo) NoSync() { r.disk = lazyDisk{} }
