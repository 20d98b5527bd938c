package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// CreateSwarm makes a conversation of one with another account under dir (swarm §1.4). It is
// there whole, or not at all.
func CreateSwarm(ctx context.Context, dir string, a *Author, other string, now time.Time) (*Swarm, error) {
	files := map[string][]byte{"admins/" + a.URI + ".crt": a.AccountPEM, "devices/" + a.Device + ".crt": a.DevicePEM, "invited/" + other: nil}
	m := commit.Message{commit.KeyMode: rules.ModeOneToOne, commit.KeyType: commit.TypeInitial, commit.KeyInvited: other}
	return place(ctx, dir, func(r *Repo) (plumbing.Hash, error) {
		tree, err := r.putTree(files, nil)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		c := &commit.Commit{Tree: tree, Name: a.Name, Device: a.Device, Time: now.UTC().Truncate(time.Second), Message: m.Encode()}
		if err := sign(c, a.Signer); err != nil {
			return plumbing.ZeroHash, err
		}
		t, err := r.tree(tree)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if _, err := r.checker.First(c, c.Unsigned(), t); err != nil {
			return plumbing.ZeroHash, fmt.Errorf("the account's certificates do not make a conversation: %w", err)
		}
		h, err := putObject(r.disk, r.git, plumbing.CommitObject, c.Raw())
		if err != nil {
			return plumbing.ZeroHash, err
		}
		return h, putRef(r.disk, r.git, h)
	}, "")
}

// place builds a repository beside its place and moves it there. id is that of the first commit; empty: what build
// returns.
func place(ctx context.Context, dir string, build func(*Repo) (plumbing.Hash, error), id string) (_ *Swarm, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	tmp, err := os.MkdirTemp(dir, TempPrefix)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if _, err := git.PlainInitWithOptions(tmp, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: mainRef}}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	r := newRepo(tmp, id)
	r.disk = looseDisk{} // all is flushed together below
	h, err := build(r)
	if err != nil {
		return nil, err
	}
	if id == "" {
		id = h.String()
	}
	path := filepath.Join(dir, id)
	for _, step := range []func() error{
		func() error { return syncTree(tmp) },
		func() error { return os.Rename(tmp, path) },
		func() error { return syncDir(dir) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStorage, err)
		}
	}
	return OpenSwarm(ctx, path, id)
}

// looseDisk writes what is flushed later.
type looseDisk struct{}

func (looseDisk) sync(string) error { return nil }

func (looseDisk) replace(path, tmp string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
