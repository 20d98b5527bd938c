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

// maxFile bounds the file, maxBots the bots that are let in, and keepRevoked how many
// of the revoked ones are remembered: the list has to fit into a message of the bus.
const (
	maxFile     = 8 << 20
	maxBots     = 2000
	keepRevoked = 500
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
	// Pending says that the bus was about to be asked to let it in: whether it did is
	// not known, and nobody has been given the credentials.
	Pending bool `json:"pending,omitempty"`
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

// List returns a copy without the pending ones, oldest first.
func (r *Registry) List() []Bot {
	return r.only(func(b *Bot) bool { return !b.Pending })
}

// Pending returns the bots that have to be shut out.
func (r *Registry) Pending() []Bot {
	return r.only(func(b *Bot) bool { return b.Pending })
}

func (r *Registry) only(want func(*Bot) bool) []Bot {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Bot
	for i := range r.bots {
		if want(&r.bots[i]) {
			out = append(out, r.bots[i])
		}
	}
	return out
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

// Begin writes a new bot as pending; the name of a revoked or a pending one may be
// used again.
func (r *Registry) Begin(b Bot) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.indexLocked(b.Name); i >= 0 && r.bots[i].Revoked == nil && !r.bots[i].Pending {
		return ErrExists
	}
	next := r.withoutLocked(b.Name)
	in := 0
	for i := range next {
		if next[i].Revoked == nil {
			in++
		}
	}
	if in >= maxBots {
		return ErrFull
	}
	b.Pending = true
	return r.writeLocked(append(next, b))
}

// Done ends a Begin: the bot is let in.
func (r *Registry) Done(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.indexLocked(name)
	if i < 0 {
		return ErrNotFound
	}
	next := slices.Clone(r.bots)
	next[i].Pending = false
	return r.writeLocked(next)
}

// Drop forgets a pending bot; what is not pending is left.
func (r *Registry) Drop(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.indexLocked(name); i < 0 || !r.bots[i].Pending {
		return nil
	}
	return r.writeLocked(r.withoutLocked(name))
}

// withoutLocked returns a copy without a name.
func (r *Registry) withoutLocked(name string) []Bot {
	return slices.DeleteFunc(slices.Clone(r.bots), func(b Bot) bool { return b.Name == name })
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
	next[i].Revoked, next[i].Pending = &at, false
	b := next[i]
	return b, r.writeLocked(forgetRevoked(next))
}

// forgetRevoked drops the oldest revoked bots beyond keepRevoked.
func forgetRevoked(bots []Bot) []Bot {
	n := 0
	for i := range bots {
		if bots[i].Revoked != nil {
			n++
		}
	}
	return slices.DeleteFunc(bots, func(b Bot) bool {
		if b.Revoked == nil || n <= keepRevoked {
			return false
		}
		n--
		return true
	})
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
