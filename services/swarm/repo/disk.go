package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
)

// disk is what a commit writes through. Git's own answer to a crash is to write
// beside and rename; go-git does neither sync nor rename a ref, so these few
// operations are ours. A test puts a disk in its place that is full.
type disk interface {
	// replace puts data at path so that a crash leaves the old or the new file and
	// a return without error outlives a power cut. tmp is in the same directory tree.
	replace(path, tmp string, data []byte, mode fs.FileMode) error
	// sync flushes a directory.
	sync(dir string) error
}

type realDisk struct{}

func (realDisk) replace(path, tmp string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(tmp)))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	made := false
	if _, err = os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		made = true
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	if err = syncDir(dir); err == nil && made {
		err = syncDir(filepath.Dir(dir))
	}
	return err
}

func (realDisk) sync(dir string) error { return syncDir(dir) }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree flushes all files and directories under root.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return nil
		}
		return syncDir(path) // the same calls serve a file
	})
}

// putObject stores a loose object in Git's form. The object is there whole, or
// not at all.
func putObject(d disk, gitDir string, typ plumbing.ObjectType, data []byte) (plumbing.Hash, error) {
	var b bytes.Buffer
	w := objfile.NewWriter(&b)
	if err := w.WriteHeader(typ, int64(len(data))); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("object: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("object: %w", err)
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("object: %w", err)
	}
	h := w.Hash()
	hex := h.String()
	path := filepath.Join(gitDir, "objects", hex[:2], hex[2:])
	if _, err := os.Lstat(path); err == nil {
		return h, nil // same name, same bytes; it was synced when it was written
	}
	tmp := filepath.Join(gitDir, "objects", "tmp_obj_"+hex)
	if err := d.replace(path, tmp, b.Bytes(), 0o444); err != nil {
		// It may be there and not be flushed: the next try shall not find it.
		err = errors.Join(err, ignoreMissing(os.Remove(path)))
		return plumbing.ZeroHash, fmt.Errorf("%w: object %s: %w", ErrStorage, hex, err)
	}
	return h, nil
}

// putRef moves refs/heads/main as Git does: through main.lock.
func putRef(d disk, gitDir string, h plumbing.Hash) error {
	path := filepath.Join(gitDir, filepath.FromSlash(mainRef))
	if err := d.replace(path, path+".lock", []byte(h.String()+"\n"), 0o644); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStorage, mainRef, err)
	}
	return nil
}

// sweep removes what a killed writer left. Only the owner of the repository may
// call it, before it writes.
func sweep(gitDir string) error {
	left, err := filepath.Glob(filepath.Join(gitDir, "objects", "tmp_obj_*"))
	if err != nil {
		return err
	}
	left = append(left, filepath.Join(gitDir, filepath.FromSlash(mainRef)+".lock"))
	for _, p := range left {
		if err := ignoreMissing(os.Remove(p)); err != nil {
			return err
		}
	}
	return nil
}

// ReplaceFile writes a small state file so that a crash leaves the old or the new one.
func ReplaceFile(path string, data []byte) error {
	if err := (realDisk{}).replace(path, path+".tmp", data, 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}
