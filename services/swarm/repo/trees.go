package repo

import (
	"bytes"
	"errors"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// cut splits a path at its first slash.
func cut(path string) (name, rest string, isDir bool) { return strings.Cut(path, "/") }

// sortEntries puts the entries of a tree in Git's order: folders as if their
// names ended in a slash.
func sortEntries(e []object.TreeEntry) { sort.Sort(object.TreeEntrySorter(e)) }

// memory returns the bytes of an object that was encoded in memory.
func memory(o plumbing.EncodedObject) ([]byte, error) {
	rd, err := o.Reader()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(rd)
	return b.Bytes(), errors.Join(err, rd.Close())
}
