package resume

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Files keeps one JSON file a leg in a directory of mode 0700. Different legs may
// be written concurrently, one leg by one goroutine at a time.
type Files struct{ dir string }

const (
	suffix  = ".json"
	damaged = ".damaged"
)

// OpenFiles makes the directory when it is not there.
func OpenFiles(dir string) (*Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("leg files: %w", err)
	}
	return &Files{dir: dir}, nil
}

func (f *Files) path(tag uint64) string {
	return filepath.Join(f.dir, fmt.Sprintf("%016x", tag)+suffix)
}

// Save writes the state of the leg with that tag, whole or not at all.
func (f *Files) Save(tag uint64, state any) error {
	b, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("leg file: %w", err)
	}
	tmp := f.path(tag) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("leg file: %w", err)
	}
	if err := os.Rename(tmp, f.path(tag)); err != nil {
		return fmt.Errorf("leg file: %w", err)
	}
	return nil
}

// Delete forgets a leg.
func (f *Files) Delete(tag uint64) error {
	if err := os.Remove(f.path(tag)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("leg file: %w", err)
	}
	return nil
}

// Load gives every leg file to use. One that use refuses is set aside under
// another name and reported through bad; the others go on.
func (f *Files) Load(use func(raw []byte) error, bad func(path string, err error)) error {
	list, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("leg files: %w", err)
	}
	for _, e := range list {
		path := filepath.Join(f.dir, e.Name())
		if !strings.HasSuffix(path, suffix) {
			if strings.HasSuffix(path, suffix+".new") { // the process died while writing it
				if err := os.Remove(path); err != nil {
					bad(path, err)
				}
			}
			continue
		}
		raw, err := os.ReadFile(path)
		if err == nil {
			err = use(raw)
		}
		if err == nil {
			continue
		}
		bad(path, err)
		if err := os.Rename(path, path+damaged); err != nil {
			bad(path, err)
		}
	}
	return nil
}

// Clear forgets all legs, but keeps what was set aside.
func (f *Files) Clear() error {
	list, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("leg files: %w", err)
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), damaged) {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil {
			return fmt.Errorf("leg files: %w", err)
		}
	}
	return nil
}
