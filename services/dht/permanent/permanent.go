// Package permanent keeps the values that are to be refreshed until they are
// cancelled in a file, so that they outlive the process.
package permanent

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/services/dht/overlay"
)

const (
	version = 1
	maxFile = 64 << 20
	// maxList bounds the values; each change writes the whole file.
	maxList = 256
)

// DamagedError says that the file does not parse. It is never overwritten.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged (%v); nothing was changed: put it back from a backup, or move it away to forget the "+
		"values that were put permanently, and restart dht", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

type entry struct {
	Key  string `json:"key"`
	ID   uint64 `json:"id,string"`
	Type uint16 `json:"type"`
	Data []byte `json:"data"`
}

type file struct {
	Version int     `json:"version"`
	Values  []entry `json:"values"`
}

// List is the list in memory and on disk. It is safe for concurrent use.
type List struct {
	path string

	mu     sync.Mutex
	values []overlay.Value
}

// Open reads the list; a file that is not there is an empty list.
func Open(path string) (*List, error) {
	l := &List{path: path}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return l, nil
	case err != nil:
		return nil, fmt.Errorf("permanent values: %w", err)
	case st.Size() > maxFile:
		return nil, &DamagedError{path, fmt.Errorf("%d bytes, at most %d", st.Size(), maxFile)}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("permanent values: %w", err)
	}
	if l.values, err = parse(b); err != nil {
		return nil, &DamagedError{path, err}
	}
	return l, nil
}

func parse(b []byte) ([]overlay.Value, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != version {
		return nil, fmt.Errorf("version %d, want %d", f.Version, version)
	}
	out := make([]overlay.Value, 0, len(f.Values))
	for _, e := range f.Values {
		v := overlay.Value{ID: e.ID, Type: e.Type, Data: e.Data}
		k, err := hex.DecodeString(e.Key)
		if err != nil || len(k) != len(v.Key) || e.ID == 0 {
			return nil, fmt.Errorf("value %d: bad key or id", e.ID)
		}
		copy(v.Key[:], k)
		out = append(out, v)
	}
	return out, nil
}

// All returns a copy.
func (l *List) All() []overlay.Value {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.values)
}

// Get returns a value of the list.
func (l *List) Get(key overlay.Key, id uint64) (overlay.Value, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := index(l.values, key, id); i >= 0 {
		return l.values[i], true
	}
	return overlay.Value{}, false
}

// Set writes a value, in place of one with the same key and id.
func (l *List) Set(v overlay.Value) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := slices.Clone(l.values)
	if i := index(next, v.Key, v.ID); i >= 0 {
		next[i] = v
	} else if len(next) >= maxList {
		return fmt.Errorf("%w: at most %d permanent values", overlay.ErrQuota, maxList)
	} else {
		next = append(next, v)
	}
	return l.writeLocked(next)
}

// Remove forgets a value; had is false when it was not there, which is no error.
func (l *List) Remove(key overlay.Key, id uint64) (had bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := index(l.values, key, id)
	if i < 0 {
		return false, nil
	}
	return true, l.writeLocked(slices.Delete(slices.Clone(l.values), i, i+1))
}

func index(vs []overlay.Value, key overlay.Key, id uint64) int {
	return slices.IndexFunc(vs, func(v overlay.Value) bool { return v.Key == key && v.ID == id })
}

func (l *List) writeLocked(next []overlay.Value) error {
	f := file{Version: version, Values: make([]entry, len(next))}
	for i, v := range next {
		f.Values[i] = entry{Key: hex.EncodeToString(v.Key[:]), ID: v.ID, Type: v.Type, Data: v.Data}
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("permanent values: %w", err)
	}
	if err := atomicfile.Write(l.path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	l.values = next
	return nil
}
