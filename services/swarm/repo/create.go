package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// TempPrefix starts the names of repositories that are being built; what a
// killed process left of them can be removed.
const TempPrefix = "tmp-"

// createTries bounds the initial commits that [Create] makes until one is new.
const createTries = 16

// backSpan is how far the second try is dated back at most; with each further one it doubles.
var backSpan = time.Hour

// Create makes a group conversation under dir, in a directory named after its
// initial commit (swarm §1.1, §1.4). It is there whole, or not at all.
//
// An initial commit has nothing of its own but its time: two rooms of one second
// would be the same conversation. The second one is dated back a little, and the more of them
// there are, the further.
func Create(dir, room string, a *Author, now time.Time) (*Repo, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	at := now
	for i := range createTries {
		r, err := create(dir, room, a, at)
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return r, err
		}
		at = now.Add(-time.Duration(1+rand.Int64N(int64(backSpan/time.Second)<<i)) * time.Second)
	}
	return nil, fmt.Errorf("%w: no conversation id is free", ErrStorage)
}

func create(dir, room string, a *Author, at time.Time) (_ *Repo, err error) {
	tmp, err := os.MkdirTemp(dir, TempPrefix)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	r := newRepo(tmp, "")
	h, err := r.build(room, a, at)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, h.String())
	for _, step := range []func() error{
		func() error { return syncTree(tmp) },
		func() error { return os.Rename(tmp, path) },
		func() error { return syncDir(dir) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStorage, err)
		}
	}
	return Open(path, h.String())
}

func (r *Repo) build(room string, a *Author, now time.Time) (plumbing.Hash, error) {
	g, err := git.PlainInitWithOptions(r.Path, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: mainRef}})
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	cfg, err := g.Config()
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	cfg.Raw.SetOption("parley", "", "room", room)
	if err := g.SetConfig(cfg); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	tree, err := r.putTree(map[string][]byte{"admins/" + a.URI + ".crt": a.AccountPEM, "devices/" + a.Device + ".crt": a.DevicePEM}, nil)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	c := &commit.Commit{Tree: tree, Name: a.Name, Device: a.Device, Time: now.UTC().Truncate(time.Second),
		Message: commit.Message{commit.KeyMode: commit.ModeInvitesOnly, commit.KeyType: commit.TypeInitial}.Encode()}
	if err := sign(c, a.Signer); err != nil {
		return plumbing.ZeroHash, err
	}
	h, err := putObject(r.disk, r.git, plumbing.CommitObject, c.Raw())
	if err != nil {
		return plumbing.ZeroHash, err
	}
	files, err := r.tree(tree)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := r.checker.Check(c, c.Unsigned(), files, nil); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("the account's certificates do not make a conversation: %w", err)
	}
	if err := putRef(r.disk, r.git, h); err != nil {
		return plumbing.ZeroHash, err
	}
	return h, checkout(g, h)
}

// checkout writes the work tree and the index.
func checkout(g *git.Repository, h plumbing.Hash) error {
	w, err := g.Worktree()
	if err == nil {
		err = w.Reset(&git.ResetOptions{Commit: h, Mode: git.HardReset})
	}
	if err != nil {
		return fmt.Errorf("%w: work tree: %w", ErrStorage, err)
	}
	return nil
}

// putTree writes files and base's other files as a tree of one level of folders.
func (r *Repo) putTree(files map[string][]byte, base *rules.Tree) (plumbing.Hash, error) {
	blobs := map[string]plumbing.Hash{}
	if base != nil {
		for p, h := range base.Blobs {
			blobs[p] = h
		}
	}
	for p, data := range files {
		h, err := putObject(r.disk, r.git, plumbing.BlobObject, data)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		blobs[p] = h
	}
	return r.putFolder(blobs, "")
}

// putFolder writes the folder with that path prefix and those in it.
func (r *Repo) putFolder(blobs map[string]plumbing.Hash, prefix string) (plumbing.Hash, error) {
	t := &object.Tree{}
	seen := map[string]bool{}
	for p, h := range blobs {
		if len(p) <= len(prefix) || p[:len(prefix)] != prefix {
			continue
		}
		name, _, isDir := cut(p[len(prefix):])
		switch {
		case seen[name]:
		case isDir:
			sub, err := r.putFolder(blobs, prefix+name+"/")
			if err != nil {
				return plumbing.ZeroHash, err
			}
			t.Entries = append(t.Entries, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: sub})
		default:
			t.Entries = append(t.Entries, object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: h})
		}
		seen[name] = true
	}
	sortEntries(t.Entries)
	o := &plumbing.MemoryObject{}
	if err := t.Encode(o); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("tree: %w", err)
	}
	raw, err := memory(o)
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("tree: %w", err)
	}
	return putObject(r.disk, r.git, plumbing.TreeObject, raw)
}

// ownTree returns the tree that the author commits on: the given one, or one with
// its certificates renewed (swarm §1.5). The work tree stays that of the first
// commit: nothing reads it, and peers get objects alone.
func (r *Repo) ownTree(a *Author, id plumbing.Hash) (plumbing.Hash, error) {
	t, err := r.tree(id)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	want := map[string][]byte{"devices/" + a.Device + ".crt": a.DevicePEM}
	if _, ok := t.Blobs["admins/"+a.URI+".crt"]; ok {
		want["admins/"+a.URI+".crt"] = a.AccountPEM
	}
	for p, data := range want {
		if t.Blobs[p] == plumbing.ComputeHash(plumbing.BlobObject, data) {
			delete(want, p)
		}
	}
	if len(want) == 0 {
		return id, nil
	}
	return r.putTree(want, t)
}
