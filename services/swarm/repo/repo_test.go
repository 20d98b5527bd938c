package repo_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	git "github.com/go-git/go-git/v5"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

func text(body, key string) commit.Message {
	m := commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: body, commit.KeyFrom: "p1", commit.KeyName: "Ann"}
	if key != "" {
		m[commit.KeyOnce] = key
	}
	return m
}

func size(e *repo.Entry) int { return len(e.Message.Encode()) }

func create(t testing.TB, id *swarmtest.Identity) *repo.Repo {
	t.Helper()
	r, err := repo.Create(t.TempDir(), "main", &id.Author, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func post(t testing.TB, r *repo.Repo, id *swarmtest.Identity, n int) {
	t.Helper()
	for i := range n {
		if _, err := r.Append(&id.Author, text(fmt.Sprint("message ", i), ""), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPages(t *testing.T) {
	id := swarmtest.New(t)
	r := create(t, id)
	post(t, r, id, 7)
	for _, tt := range []struct {
		limit, bytes int
		want         []string
	}{
		{3, 1 << 20, []string{"456", "123", "0"}},
		{7, 1 << 20, []string{"0123456"}},
		{10, 170, []string{"56", "34", "12", "0"}},
	} {
		before := ""
		for i, want := range tt.want {
			page, more, err := r.Page(before, tt.limit, tt.bytes, size)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, e := range page {
				got += e.Message[commit.KeyBody][len("message "):]
			}
			if got != want || more != (i < len(tt.want)-1) {
				t.Fatalf("limit %d, page %d: %q, more %v; want %q", tt.limit, i, got, more, want)
			}
			before = page[0].ID
		}
	}
	if _, _, err := r.Page("0123456789012345678901234567890123456789", 1, 1, size); !errors.Is(err, repo.ErrNotFound) {
		t.Fatalf("page before a commit that is not there: %v", err)
	}
	if page, more, err := r.Page(r.ID, 5, 1000, size); len(page) != 0 || more || err != nil {
		t.Fatalf("page before the first commit: %d %v %v", len(page), more, err)
	}
}

func TestKeyIsOneCommitAlsoAfterRestart(t *testing.T) {
	id := swarmtest.New(t)
	r := create(t, id)
	first, err := r.Append(&id.Author, text("hello", "k1"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	post(t, r, id, 2)
	for range 2 {
		again, err := r.Append(&id.Author, text("hello", "k1"), time.Now())
		if err != nil || again.ID != first.ID {
			t.Fatalf("same key: %v, %v; want %s", again, err, first.ID)
		}
		if r, err = repo.Open(r.Path, r.ID); err == nil {
			err = r.Load(context.Background(), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	other := text("hello", "k1")
	other[commit.KeyFrom] = "p2"
	if e, err := r.Append(&id.Author, other, time.Now()); err != nil || e.ID == first.ID {
		t.Fatalf("the same key of another sender: %v, %v", e, err)
	}
	if r.Count() != 4 {
		t.Fatalf("%d messages, want 4", r.Count())
	}
}

func TestGitReadsIt(t *testing.T) {
	id := swarmtest.New(t)
	r := create(t, id)
	post(t, r, id, 3)
	g, err := git.PlainOpen(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := g.Head()
	if err != nil || head.Name() != "refs/heads/main" {
		t.Fatalf("HEAD: %v, %v", head, err)
	}
	w, err := g.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := w.Status(); err != nil || !st.IsClean() {
		t.Fatalf("work tree: %v, %v", st, err)
	}
	for _, p := range []string{"admins/" + id.URI + ".crt", "devices/" + id.Device + ".crt"} {
		if _, err := os.Stat(filepath.Join(r.Path, p)); err != nil {
			t.Error(err)
		}
	}
	c, err := g.CommitObject(head.Hash())
	if err != nil || c.Author.Email != id.Device || c.Message != `{"body":"message 2","parley-from":"p1","parley-name":"Ann","type":"text/plain"}` {
		t.Fatalf("commit: %v, %v", c, err)
	}
	if room, err := repo.Room(r.Path); err != nil || room != "main" {
		t.Fatalf("room %q, %v", room, err)
	}
}

func TestRenewedCertificateIsCommitted(t *testing.T) {
	id := swarmtest.New(t)
	r := create(t, id)
	post(t, r, id, 1)
	id.RenewDevice(t)
	post(t, r, id, 1)
	r, err := repo.Open(r.Path, r.ID)
	if err == nil {
		err = r.Load(context.Background(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamage changes what is on the disk; it has to be refused, and kept as it is.
func TestDamage(t *testing.T) {
	id := swarmtest.New(t)
	object := func(r *repo.Repo, h string) string { return filepath.Join(r.Path, ".git", "objects", h[:2], h[2:]) }
	for name, harm := range map[string]func(t *testing.T, r *repo.Repo){
		"empty branch": func(t *testing.T, r *repo.Repo) {
			write(t, filepath.Join(r.Path, ".git/refs/heads/main"), nil)
		},
		"branch to nowhere": func(t *testing.T, r *repo.Repo) {
			write(t, filepath.Join(r.Path, ".git/refs/heads/main"), []byte("0123456789012345678901234567890123456789\n"))
		},
		"no first commit": func(t *testing.T, r *repo.Repo) { remove(t, object(r, r.ID)) },
		"a commit in the middle is gone": func(t *testing.T, r *repo.Repo) {
			page, _, err := r.Page("", 2, 1<<20, size)
			if err != nil {
				t.Fatal(err)
			}
			remove(t, object(r, page[0].ID))
		},
		"a commit is cut": func(t *testing.T, r *repo.Repo) { write(t, object(r, r.Head().String()), []byte("x")) },
		"other bytes under a tree's name": func(t *testing.T, r *repo.Repo) {
			g, err := git.PlainOpen(r.Path)
			if err != nil {
				t.Fatal(err)
			}
			c, err := g.CommitObject(r.Head())
			if err != nil {
				t.Fatal(err)
			}
			tree, err := c.Tree()
			if err != nil {
				t.Fatal(err)
			}
			other, err := os.ReadFile(object(r, tree.Entries[0].Hash.String())) // the folder of admins
			if err != nil {
				t.Fatal(err)
			}
			write(t, object(r, tree.Entries[1].Hash.String()), other)
		},
		"a stranger's commit": func(t *testing.T, r *repo.Repo) {
			bad := *id
			bad.Signer = swarmtest.New(t).DeviceKey
			post(t, r, &bad, 1)
		},
		"no .git": func(t *testing.T, r *repo.Repo) {
			if err := os.Rename(filepath.Join(r.Path, ".git"), filepath.Join(r.Path, "git")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := create(t, id)
			post(t, r, id, 3)
			harm(t, r)
			r, err := repo.Open(r.Path, r.ID)
			if err == nil {
				err = r.Load(context.Background(), nil)
			}
			if !errors.Is(err, repo.ErrDamaged) {
				t.Fatalf("opened: %v", err)
			}
		})
	}
}

// TestLeftovers: what a killed writer leaves does not harm.
func TestLeftovers(t *testing.T) {
	id := swarmtest.New(t)
	r := create(t, id)
	post(t, r, id, 2)
	head := r.Head()
	write(t, filepath.Join(r.Path, ".git/refs/heads/main.lock"), []byte("0123"))
	write(t, filepath.Join(r.Path, ".git/objects/tmp_obj_1234"), []byte("x"))
	r, err := repo.Open(r.Path, r.ID)
	if err == nil {
		err = r.Load(context.Background(), nil)
	}
	if err != nil || r.Head() != head {
		t.Fatalf("head %s, %v; want %s", r.Head(), err, head)
	}
	post(t, r, id, 1)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	remove(t, path)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func BenchmarkAppend(b *testing.B) {
	id := swarmtest.New(b)
	r := create(b, id)
	b.ReportAllocs()
	for b.Loop() {
		post(b, r, id, 1)
	}
}

// BenchmarkLoad10000 opens a long chat as after a restart, with keys as Jami has.
func BenchmarkLoad10000(b *testing.B) {
	id := swarmtest.WithBits(b, 4096)
	r := create(b, id)
	r.NoSync()
	post(b, r, id, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		o, err := repo.Open(r.Path, r.ID)
		if err == nil {
			err = o.Load(context.Background(), nil)
		}
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := o.Page("", 50, 1<<20, size); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPage50(b *testing.B) {
	id := swarmtest.New(b)
	r := create(b, id)
	post(b, r, id, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Page("", 50, 1<<20, size); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	id := swarmtest.New(t)
	repo.FullDisk(t, create(t, id), &id.Author)
}

func TestUnflushedBranch(t *testing.T) {
	id := swarmtest.New(t)
	repo.Unflushed(t, create(t, id), &id.Author)
}

func TestDetached(t *testing.T) {
	id := swarmtest.New(t)
	r := create(t, id)
	post(t, r, id, 1)
	for range 2 {
		if err := repo.Detach(r.Path); err != nil {
			t.Fatal(err)
		}
		if room, err := repo.Room(r.Path); room != "" || err != nil {
			t.Fatalf("room %q, %v", room, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(r.Path, ".git", "config")); err != nil || !strings.Contains(string(text), "was = main") {
		t.Fatalf("%s, %v", text, err)
	}
	if _, err := git.PlainOpen(r.Path); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(r.Path, r.ID)
	if err == nil {
		err = r.Load(context.Background(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Detach(t.TempDir()); err != nil {
		t.Fatalf("nothing there: %v", err)
	}
}

func TestRoomsOfOneSecondAreApart(t *testing.T) {
	id, dir, now, seen := swarmtest.New(t), t.TempDir(), time.Now(), map[string]bool{}
	was := repo.SetBackSpan(time.Second) // more rooms than that have seconds
	defer repo.SetBackSpan(was)
	for i := range 5 {
		r, err := repo.Create(dir, fmt.Sprint("room", i), &id.Author, now)
		if err != nil {
			t.Fatal(err)
		}
		seen[r.ID] = true
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); len(seen) != 5 || len(left) != 5 || err != nil {
		t.Fatalf("conversations %v, on the disk %v, %v", seen, left, err)
	}
}

// A conversation with messages of before a revocation opens; one with a later one
// doesn't.
func TestLoadKnowsWhatIsRevoked(t *testing.T) {
	id, now := swarmtest.New(t), time.Now()
	r, err := repo.Create(t.TempDir(), "main", &id.Author, now.Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, ago := range []time.Duration{time.Hour, 30 * time.Minute} {
		if _, err := r.Append(&id.Author, text("of "+ago.String()+" ago", ""), now.Add(-ago)); err != nil {
			t.Fatal(err)
		}
	}
	for ago, want := range map[time.Duration]error{10 * time.Minute: nil, 45 * time.Minute: repo.ErrDamaged} {
		r, err := repo.Open(r.Path, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Load(t.Context(), id.Revoke(t, now.Add(-ago))); !errors.Is(err, want) {
			t.Errorf("revoked %s ago: %v, want %v", ago, err, want)
		}
	}
}
