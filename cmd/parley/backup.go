package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
)

// tarball returns the files as a .tar.gz, for the owner alone.
func tarball(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(files[name])), ModTime: time.Now(), Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		if _, err := t.Write(files[name]); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return b.Bytes(), nil
}

// writeTree writes the files into a new directory within dir, which appears as a whole.
func writeTree(dir string, files map[string][]byte) (string, error) {
	to := filepath.Join(dir, time.Now().UTC().Format("parley-identity-20060102T150405Z"))
	tmp, err := os.MkdirTemp(dir, ".parley-identity-*") // with mode 0700
	if err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	err = func() error {
		for name, b := range files {
			path := filepath.Join(tmp, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if err := atomicfile.Write(path, b, 0o600); err != nil {
				return err
			}
		}
		return os.Rename(tmp, to)
	}()
	if err != nil {
		return "", errors.Join(fmt.Errorf("backup: %w", err), os.RemoveAll(tmp))
	}
	return to, atomicfile.SyncDir(dir)
}
