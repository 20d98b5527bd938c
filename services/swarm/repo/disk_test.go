package repo

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/swarm/commit"
)

// fullDisk fails from the n-th write on.
type fullDisk struct{ left int }

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
			err = again.Load(context.Background())
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
