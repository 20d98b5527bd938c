// Package bots keeps the list of bots in one file, bots.json. The list says who
// was let in; the bus process enforces it.
package bots

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
)

// maxFile bounds the file, and maxBots the list.
const (
	maxFile = 8 << 20
	maxBots = 10_000
)

// Errors of the list.
var (
	ErrExists   = errors.New("a bot of that name exists")
	ErrNotFound = errors.New("no bot of that name")
	ErrFull     = errors.New("too many bots; revoke some")
)

// DamagedError says that the file does not parse. It is never overwritten.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged (%v); nothing was changed: put it back from a backup, or move it away "+
		"(running bots stay let in until they are revoked), and restart identity", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Bot is one entry.
type Bot struct {
	Name    string     `json:"name"`
	Room    string     `json:"room"`
	Rights  []string   `json:"rights"`
	UserKey string     `json:"user_key"` // public nkey
	Created time.Time  `json:"created"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

// file is the format of bots.json.
type file struct {
	Version int   `json:"version"`
	Bots    []Bot `json:"bots"`
}

const version = 1

// Registry is the list in memory and on disk. It is safe for concurrent use.
type Registry struct {
	path string

	mu   sync.Mutex
	bots []Bot
}

// Open reads the list; a file that is not there is an empty list.
func Open(path string) (*Registry, error) {
	r := &Registry{path: path}
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bots: %w", err)
	}
	if st.Size() > maxFile {
		return nil, &DamagedError{path, fmt.Errorf("%d bytes, at most %d", st.Size(), maxFile)}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("bots: %w", err)
	}
	r.bots, err = parse(b)
	if err != nil {
		return nil, &DamagedError{path, err}
	}
	return r, nil
}

func parse(b []byte) ([]Bot, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != version {
		return nil, fmt.Errorf("version %d, want %d", f.Version, version)
	}
	seen := map[string]bool{}
	for _, bot := range f.Bots {
		if bot.Name == "" || seen[bot.Name] {
			return nil, fmt.Errorf("name %q is empty or there twice", bot.Name)
		}
		seen[bot.Name] = true
	}
	return f.Bots, nil
}

// List returns a copy, oldest first.
func (r *Registry) List() []Bot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bots)
}

// Get returns one bot.
func (r *Registry) Get(name string) (Bot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.indexLocked(name); i >= 0 {
		return r.bots[i], nil
	}
	return Bot{}, ErrNotFound
}

// CanAdd returns the error that Add would, without adding.
func (r *Registry) CanAdd(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.canAddLocked(name)
}

// Add writes a new bot; the name of a revoked one may be used again.
func (r *Registry) Add(b Bot) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.canAddLocked(b.Name); err != nil {
		return err
	}
	next := slices.Clone(r.bots)
	if i := r.indexLocked(b.Name); i >= 0 {
		next = slices.Delete(next, i, i+1)
	}
	return r.writeLocked(append(next, b))
}

// Revoke marks a bot; once more changes nothing.
func (r *Registry) Revoke(name string, at time.Time) (Bot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.indexLocked(name)
	if i < 0 {
		return Bot{}, ErrNotFound
	}
	if r.bots[i].Revoked != nil {
		return r.bots[i], nil
	}
	next := slices.Clone(r.bots)
	next[i].Revoked = &at
	return next[i], r.writeLocked(next)
}

func (r *Registry) canAddLocked(name string) error {
	i := r.indexLocked(name)
	switch {
	case i >= 0 && r.bots[i].Revoked == nil:
		return ErrExists
	case i < 0 && len(r.bots) >= maxBots:
		return ErrFull
	}
	return nil
}

func (r *Registry) indexLocked(name string) int {
	return slices.IndexFunc(r.bots, func(b Bot) bool { return b.Name == name })
}

func (r *Registry) writeLocked(next []Bot) error {
	b, err := json.MarshalIndent(file{Version: version, Bots: next}, "", "  ")
	if err != nil {
		return fmt.Errorf("bots: %w", err)
	}
	if err := atomicfile.Write(r.path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	r.bots = next
	return nil
}
