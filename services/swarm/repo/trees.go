package repo

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// cut splits a path at its first slash.
func cut(path string) (name, rest string, isDir bool) { return strings.Cut(path, "/") }

// parseTree reads a tree object with what a conversation has: files with mode
// 100644 and folders, each name once and fit for a path.
func parseTree(raw []byte) ([]object.TreeEntry, error) {
	var out []object.TreeEntry
	seen := map[string]bool{}
	for len(raw) > 0 {
		head, rest, ok := bytes.Cut(raw, []byte{0})
		mode, name, ok2 := strings.Cut(string(head), " ")
		if !ok || !ok2 || len(rest) < len(plumbing.ZeroHash) {
			return nil, errors.New("it ends within an entry")
		}
		e := object.TreeEntry{Name: name, Hash: plumbing.Hash(rest[:len(plumbing.ZeroHash)])}
		raw = rest[len(plumbing.ZeroHash):]
		switch mode {
		case "100644":
			e.Mode = filemode.Regular
		case "40000":
			e.Mode = filemode.Dir
		default:
			return nil, fmt.Errorf("%.80q has mode %.20q; files have 100644 and folders 40000", name, mode)
		}
		if name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.ContainsAny(name, "/\\") || seen[name] {
			return nil, fmt.Errorf("%.80q is no name, or there twice", name)
		}
		seen[name] = true
		out = append(out, e)
	}
	return out, nil
}

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
