package repo

import (
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// view is a repository together with objects that came and are not in it. It belongs to one goroutine.
type view struct {
	repo *Repo // nil: none
	came gitwire.Objects

	trees map[plumbing.Hash]*rules.Tree
}

func (v *view) object(typ plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	if o, ok := v.came[h]; ok {
		if o.Type != typ {
			return nil, fmt.Errorf("%w: %s is no %v", ErrInvalid, h, typ)
		}
		return o.Data, nil
	}
	if v.repo == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, h)
	}
	return v.repo.object(typ, h)
}

// commit returns a commit and what its signature covers.
func (v *view) commit(h plumbing.Hash) (*commit.Commit, []byte, error) {
	raw, err := v.object(plumbing.CommitObject, h)
	if err != nil {
		return nil, nil, err
	}
	return commit.Parse(raw)
}

// tree reads the file list of a tree.
func (v *view) tree(h plumbing.Hash) (*rules.Tree, error) {
	if t, ok := v.trees[h]; ok {
		return t, nil
	}
	t := &rules.Tree{ID: h, Blobs: map[string]plumbing.Hash{},
		Read: func(b plumbing.Hash) ([]byte, error) { return v.object(plumbing.BlobObject, b) }}
	err := v.walk(h, func(id plumbing.Hash, path string, file bool) bool {
		if file {
			t.Blobs[path] = id
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if v.trees == nil || len(v.trees) >= maxTrees {
		v.trees = map[plumbing.Hash]*rules.Tree{}
	}
	v.trees[h] = t
	return t, nil
}

// walk tells fn of a tree and all in it; what is below a folder for which fn says false is passed over.
func (v *view) walk(h plumbing.Hash, fn func(id plumbing.Hash, path string, file bool) bool) error {
	left := maxFiles
	return v.folder(h, "", maxDepth+2, &left, fn)
}

func (v *view) folder(h plumbing.Hash, prefix string, depth int, left *int, fn func(plumbing.Hash, string, bool) bool) error {
	if !fn(h, prefix, false) {
		return nil
	}
	raw, err := v.object(plumbing.TreeObject, h)
	if err != nil {
		return err
	}
	entries, err := parseTree(raw)
	if err != nil {
		return fmt.Errorf("%w: tree %s: %w", ErrInvalid, h, err)
	}
	if *left -= len(entries); *left < 0 || depth == 0 {
		return fmt.Errorf("%w: tree %s: more than %d files, or folders too deep", ErrInvalid, h, maxFiles)
	}
	for _, e := range entries {
		if e.Mode == filemode.Regular {
			fn(e.Hash, prefix+e.Name, true)
		} else if err := v.folder(e.Hash, prefix+e.Name+"/", depth-1, left, fn); err != nil {
			return err
		}
	}
	return nil
}
