package users

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"go.uber.org/zap"
	"gopkg.in/yaml.v3"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jams"
)

const (
	maxFile  = 32 << 20
	maxUsers = 100_000
	// recheck is how often the file's time is looked at.
	recheck = time.Second
	// waiting is how many logins wait for a core; each needs 64 MiB while it has one.
	waiting = 64
)

// Entry is one user of the file.
type Entry struct {
	Name        string `yaml:"name"`
	Password    string `yaml:"password"` // argon2id
	DisplayName string `yaml:"displayName,omitempty"`
	Email       string `yaml:"email,omitempty"`
	Disabled    bool   `yaml:"disabled,omitempty"`
}

type document struct {
	Users []Entry `yaml:"users"`
}

type entry struct {
	User
	hash     hash
	disabled bool
}

// parseFile reads YAML, or JSON, which is YAML too. Errors say no passwords.
func parseFile(text []byte) (map[string]entry, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("users: %d bytes, %d are allowed", len(text), maxFile)
	}
	var doc document
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		// The message of the library may quote a value.
		return nil, fmt.Errorf("users: the file is not YAML or JSON of the form {users: [{name, password, displayName, email, disabled}]}")
	}
	if len(doc.Users) > maxUsers {
		return nil, fmt.Errorf("users: %d, %d are allowed", len(doc.Users), maxUsers)
	}
	out := make(map[string]entry, len(doc.Users))
	for i, e := range doc.Users {
		name, err := jams.UserName(e.Name)
		if err != nil {
			return nil, fmt.Errorf("users: entry %d: %w", i+1, err)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("users: %s stands there twice", name)
		}
		h, err := parseHash(e.Password)
		if err != nil {
			return nil, fmt.Errorf("users: %s: %w", name, err)
		}
		out[name] = entry{User{name, jams.Printable(e.DisplayName, jams.MaxDeviceName), jams.Printable(e.Email, jams.MaxDeviceName)}, h, e.Disabled}
	}
	return out, nil
}

// File is a [Source]. It reads its file again when that changes; while the new one
// does not parse the old one holds.
type File struct {
	path string
	log  *zap.Logger

	cores chan struct{}
	queue chan struct{}

	mu      sync.Mutex
	by      map[string]entry
	stamp   time.Time
	size    int64
	checked time.Time
}

// OpenFile reads the file.
func OpenFile(path string, log *zap.Logger) (*File, error) {
	f := &File{path: path, log: log, cores: make(chan struct{}, runtime.GOMAXPROCS(0)), queue: make(chan struct{}, waiting)}
	if err := f.readLocked(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) readLocked() error {
	f.checked = time.Now()
	st, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	if f.by != nil && st.ModTime().Equal(f.stamp) && st.Size() == f.size {
		return nil
	}
	if st.Size() > maxFile {
		return fmt.Errorf("users: %s has %d bytes, %d are allowed", f.path, st.Size(), maxFile)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	f.stamp, f.size = st.ModTime(), st.Size()
	by, err := parseFile(text)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.by = by
	return nil
}

func (f *File) get(name string) (entry, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) >= recheck {
		if err := f.readLocked(); err != nil {
			f.log.Warn("the users of before stay", zap.Error(err))
		}
	}
	e, ok := f.by[name]
	return e, ok
}

// Authenticate is of [Source].
func (f *File) Authenticate(ctx context.Context, name, password string) (User, error) {
	select {
	case f.queue <- struct{}{}:
		defer func() { <-f.queue }()
	default:
		return User{}, ErrBusy
	}
	select {
	case f.cores <- struct{}{}:
		defer func() { <-f.cores }()
	case <-ctx.Done():
		return User{}, ctx.Err()
	}
	e, ok := f.get(name)
	if !ok {
		e.hash = nobody
	}
	if right := e.hash.is(password); !right || !ok || e.disabled {
		return User{}, ErrCredentials
	}
	return e.User, nil
}

// Active is of [Source].
func (f *File) Active(name string) bool {
	e, ok := f.get(name)
	return ok && !e.disabled
}

// ErrExists says that an entry is there already.
var ErrExists = errors.New("there is this user already")

// ErrNoUser says that no entry has this name.
var ErrNoUser = errors.New("there is no such user")

// Add writes another entry into the file, which it makes when there is none.
func Add(path string, e Entry) error {
	return change(path, func(by map[string]*yaml.Node, list *yaml.Node) error {
		if by[e.Name] != nil {
			return fmt.Errorf("%w: %s", ErrExists, e.Name)
		}
		var n yaml.Node
		if err := n.Encode(e); err != nil {
			return err
		}
		list.Content = append(list.Content, &n)
		return nil
	})
}

// SetPassword replaces the hash of an entry.
func SetPassword(path, name, hash string) error {
	return change(path, func(by map[string]*yaml.Node, _ *yaml.Node) error {
		n := by[name]
		if n == nil {
			return fmt.Errorf("%w: %s", ErrNoUser, name)
		}
		value(n, "password").SetString(hash)
		return nil
	})
}

// value returns the value of a key of a mapping.
func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// change edits the file's tree, so that comments and order stay, and replaces the
// file when the outcome is one that would be read.
func change(path string, edit func(by map[string]*yaml.Node, list *yaml.Node) error) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("users: %w", err)
	}
	if _, err := parseFile(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("users: []\n")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("users: %s does not parse", path)
	}
	if len(doc.Content) == 0 || value(doc.Content[0], "users") == nil || value(doc.Content[0], "users").Kind != yaml.SequenceNode {
		return fmt.Errorf("users: %s has no list \"users\"", path)
	}
	list := value(doc.Content[0], "users")
	by := map[string]*yaml.Node{}
	for _, n := range list.Content {
		if v := value(n, "name"); v != nil {
			name, err := jams.UserName(v.Value)
			if err != nil {
				return err
			}
			by[name] = n
		}
	}
	if len(list.Content) == 0 {
		list.Style = 0
	}
	if err := edit(by, list); err != nil {
		return err
	}
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	if _, err := parseFile(out); err != nil {
		return err
	}
	return atomicfile.Write(path, out, 0o600)
}
