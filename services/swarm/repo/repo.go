// Package repo keeps a conversation in a Git repository, in the layout of Jami's
// swarms (swarm §1): append a signed commit, read pages, verify what is on disk.
//
// Order of writing: the commit object is flushed to the disk before the branch
// names it, and the branch before [Repo.Append] returns. A process killed at any
// moment leaves a repository with every commit that was acknowledged.
//
// Append and Load belong to one goroutine; Page may be called from any.
package repo

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/config"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// mainRef is the only branch of a conversation (swarm §1.1).
const mainRef = "refs/heads/main"

// cacheSize bounds the objects that one repository keeps in memory, in bytes:
// some hundred messages, what those who join late ask for.
const cacheSize = 1 << 20

// MaxObject bounds an object, in bytes: the picture of a conversation is in its profile.
const MaxObject = 2 << 20

// Bounds of a commit's tree, folders included, and of the trees kept in memory.
const (
	maxFiles = 4096
	maxDepth = 4
	maxTrees = 64
)

// The errors of a repository. ErrStorage is the disk's fault and may pass;
// ErrDamaged is what is on the disk; ErrNotFound a commit that is not there.
var (
	ErrStorage  = errors.New("conversation not written")
	ErrDamaged  = errors.New("conversation damaged")
	ErrNotFound = errors.New("no such commit")
)

// Author is who commits: the account's device. Signer signs SHA-512 digests with
// PKCS#1 v1.5.
type Author struct {
	Name       string // display name
	URI        string // Jami Id, 40 hex
	Device     string // long device id, 64 hex
	AccountPEM []byte // account certificate and its CA
	DevicePEM  []byte // device certificate alone
	Signer     crypto.Signer
}

// Entry is a commit with its message.
type Entry struct {
	ID      string
	Parent  string // empty for the first
	Device  string
	Time    time.Time
	Message commit.Message
}

// Repo is an open conversation.
type Repo struct {
	ID   string // id of the initial commit
	Path string

	git  string // Path/.git
	disk disk

	// of the goroutine that appends
	checker *rules.Checker
	trees   map[plumbing.Hash]*rules.Tree
	keys    map[string]plumbing.Hash
	count   int
	// The branch moved, and its directory could not be flushed.
	unsynced bool

	mu    sync.Mutex // guards the fields below; go-git's storage is not concurrent
	store *filesystem.Storage
	head  plumbing.Hash
}

func newRepo(path, id string) *Repo {
	git := filepath.Join(path, ".git")
	return &Repo{ID: id, Path: path, git: git, disk: realDisk{}, checker: rules.NewChecker(nil),
		trees: map[plumbing.Hash]*rules.Tree{}, keys: map[string]plumbing.Hash{},
		store: filesystem.NewStorageWithOptions(osfs.New(git, osfs.WithBoundOS()), cache.NewObjectLRU(cacheSize), filesystem.Options{})}
}

// Open opens the repository of conversation id under path. It looks at the branch
// and the first commit alone; [Repo.Load] reads the rest.
func Open(path, id string) (*Repo, error) {
	r := newRepo(path, id)
	if fi, err := os.Stat(r.git); err != nil || !fi.IsDir() {
		return nil, r.damaged("no Git repository there: %v", err)
	}
	if err := sweep(r.git); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	if err := r.readHead(); err != nil {
		return nil, err
	}
	if _, _, _, err := r.read(plumbing.NewHash(id)); err != nil {
		return nil, r.damaged("first commit: %v", err)
	}
	return r, nil
}

func (r *Repo) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

func (r *Repo) readHead() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ref, err := r.store.Reference(mainRef)
	if err != nil || ref.Type() != plumbing.HashReference || ref.Hash().IsZero() {
		return r.damaged("branch main: %v", err)
	}
	r.head = ref.Hash()
	return nil
}

// Head returns the newest commit.
func (r *Repo) Head() plumbing.Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head
}

// Count returns the text messages that Load and Append have seen.
func (r *Repo) Count() int { return r.count }

// object reads an object and proves that its bytes have its name: go-git does
// not, and a changed bit shall not be shown as somebody's words.
func (r *Repo) object(typ plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, err := r.store.EncodedObject(typ, h)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		r.store.Reindex() // somebody may have run git gc
		o, err = r.store.EncodedObject(typ, h)
	}
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, h)
	}
	if err != nil {
		return nil, r.damaged("object %s: %v", h, err)
	}
	if o.Size() > MaxObject {
		return nil, r.damaged("object %s: %d bytes", h, o.Size())
	}
	rd, err := o.Reader()
	if err != nil {
		return nil, r.damaged("object %s: %v", h, err)
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(rd)
	if err = errors.Join(err, rd.Close()); err != nil {
		return nil, r.damaged("object %s: %v", h, err)
	}
	if plumbing.ComputeHash(typ, b.Bytes()) != h {
		return nil, r.damaged("object %s has other bytes than its name says", h)
	}
	return b.Bytes(), nil
}

// read returns a commit, what its signature covers, and its message (nil when it
// is no JSON: a merge).
func (r *Repo) read(h plumbing.Hash) (*commit.Commit, []byte, commit.Message, error) {
	raw, err := r.object(plumbing.CommitObject, h)
	if err != nil {
		return nil, nil, nil, err
	}
	c, signed, err := commit.Parse(raw)
	if err != nil {
		return nil, nil, nil, r.damaged("commit %s: %v", h, err)
	}
	m, err := commit.ParseMessage(c.Message)
	if err != nil {
		return nil, nil, nil, r.damaged("commit %s: %v", h, err)
	}
	return c, signed, m, nil
}

// tree reads the file list of a tree; nearly all commits have the same one.
func (r *Repo) tree(h plumbing.Hash) (*rules.Tree, error) {
	if t, ok := r.trees[h]; ok {
		return t, nil
	}
	t := &rules.Tree{ID: h, Blobs: map[string]plumbing.Hash{},
		Read: func(b plumbing.Hash) ([]byte, error) { return r.object(plumbing.BlobObject, b) }}
	left := maxFiles
	if err := r.folder(t, h, "", maxDepth, &left); err != nil {
		return nil, r.missing(err)
	}
	if len(r.trees) >= maxTrees {
		clear(r.trees)
	}
	r.trees[h] = t
	return t, nil
}

// folder reads one folder and those in it into t.
func (r *Repo) folder(t *rules.Tree, h plumbing.Hash, prefix string, depth int, left *int) error {
	raw, err := r.object(plumbing.TreeObject, h)
	if err != nil {
		return err
	}
	entries, err := parseTree(raw)
	if err != nil {
		return r.damaged("tree %s: %v", h, err)
	}
	if *left -= len(entries); *left < 0 || depth == 0 {
		return r.damaged("tree %s: more than %d files, or folders deeper than %d", h, maxFiles, maxDepth)
	}
	for _, e := range entries {
		path := prefix + e.Name
		if e.Mode == filemode.Regular {
			t.Blobs[path] = e.Hash
		} else if err := r.folder(t, e.Hash, path+"/", depth-1, left); err != nil {
			return err
		}
	}
	return nil
}

// Load verifies every commit from the newest to the first, those of revoked devices too,
// and learns which idempotency keys were used. It is to be called once, before Append.
func (r *Repo) Load(ctx context.Context, revoked *trust.Revocations) error {
	r.checker = rules.NewChecker(revoked)
	keys, count := map[string]plumbing.Hash{}, 0
	h := r.Head()
	c, signed, m, err := r.read(h)
	if err != nil {
		return r.missing(err)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		tree, err := r.tree(c.Tree)
		if err != nil {
			return err
		}
		var (
			old     *rules.Tree
			pc      *commit.Commit
			psigned []byte
			pm      commit.Message
		)
		if len(c.Parents) > 0 {
			if pc, psigned, pm, err = r.read(c.Parents[0]); err != nil {
				return r.missing(err)
			}
			if old, err = r.tree(pc.Tree); err != nil {
				return err
			}
		}
		if _, err := r.checker.Check(c, signed, tree, old); err != nil {
			return r.damaged("commit %s: %v", h, err)
		}
		if m[commit.KeyOnce] != "" {
			keys[onceKey(m)] = h
		}
		if m[commit.KeyType] == commit.TypeText {
			count++
		}
		if old == nil {
			break
		}
		h, c, signed, m = c.Parents[0], pc, psigned, pm
	}
	if h.String() != r.ID {
		return r.damaged("its first commit is %s", h)
	}
	r.keys, r.count = keys, count
	return nil
}

// missing turns "not found" inside a repository into damage.
func (r *Repo) missing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return r.damaged("%v", err)
	}
	return err
}

// onceKey is what makes a message the same one: who sent it and the key.
func onceKey(m commit.Message) string { return m[commit.KeyFrom] + "\x00" + m[commit.KeyOnce] }

// Append commits a message and returns when it is on the disk. A message whose
// sender has used its idempotency key before is answered with that commit.
func (r *Repo) Append(a *Author, m commit.Message, now time.Time) (*Entry, error) {
	if m[commit.KeyOnce] != "" {
		if h, ok := r.keys[onceKey(m)]; ok {
			if r.unsynced {
				if err := r.syncRef(); err != nil {
					return nil, err
				}
			}
			return r.entry(h)
		}
	}
	head := r.Head()
	parent, _, _, err := r.read(head)
	if err != nil {
		return nil, r.missing(err)
	}
	if r.unsynced { // a message is on the branch and not told to anybody: nothing stands on it before it is safe
		if err := r.syncRef(); err != nil {
			return nil, err
		}
	}
	treeID, err := r.ownTree(a, parent.Tree)
	if err != nil {
		return nil, err
	}
	c := &commit.Commit{Tree: treeID, Parents: []plumbing.Hash{head}, Name: a.Name, Device: a.Device,
		Time: now.UTC().Truncate(time.Second), Message: m.Encode()}
	if err := sign(c, a.Signer); err != nil {
		return nil, err
	}
	h, err := putObject(r.disk, r.git, plumbing.CommitObject, c.Raw())
	if err != nil {
		return nil, err
	}
	if err := putRef(r.disk, r.git, h); err != nil {
		// The branch may have moved all the same (its directory could not be
		// flushed): then the message is there, and one more try makes it safe. Would
		// it be refused, the sender's next try would be a second message.
		if herr := r.readHead(); herr != nil || r.Head() != h {
			return nil, errors.Join(err, herr)
		}
		r.took(h, m)
		r.unsynced = true
		if serr := r.syncRef(); serr != nil {
			return nil, errors.Join(err, serr)
		}
		return newEntry(h, c, m), nil
	}
	r.mu.Lock()
	r.head = h
	r.mu.Unlock()
	r.took(h, m)
	return newEntry(h, c, m), nil
}

// took notes a message that the branch holds.
func (r *Repo) took(h plumbing.Hash, m commit.Message) {
	if m[commit.KeyOnce] != "" {
		r.keys[onceKey(m)] = h
	}
	if m[commit.KeyType] == commit.TypeText {
		r.count++
	}
}

// syncRef flushes where the branch lies.
func (r *Repo) syncRef() error {
	if err := r.disk.sync(filepath.Dir(filepath.Join(r.git, filepath.FromSlash(mainRef)))); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStorage, mainRef, err)
	}
	r.unsynced = false
	return nil
}

func sign(c *commit.Commit, s crypto.Signer) error {
	sum := sha512.Sum512(c.Unsigned())
	sig, err := s.Sign(rand.Reader, sum[:], crypto.SHA512)
	if err != nil {
		return fmt.Errorf("sign the commit: %w", err)
	}
	c.Signature = sig
	return nil
}

func (r *Repo) entry(h plumbing.Hash) (*Entry, error) {
	c, _, m, err := r.read(h)
	if err != nil {
		return nil, err
	}
	return newEntry(h, c, m), nil
}

func newEntry(h plumbing.Hash, c *commit.Commit, m commit.Message) *Entry {
	e := &Entry{ID: h.String(), Device: c.Device, Time: c.Time, Message: m}
	if len(c.Parents) > 0 {
		e.Parent = c.Parents[0].String()
	}
	return e
}

// Page returns up to limit text messages older than before (empty: the newest),
// oldest first, and whether there are more. It stops early, but not before the
// first, when they come to more than maxBytes as size counts them.
func (r *Repo) Page(before string, limit, maxBytes int, size func(*Entry) int) (page []*Entry, more bool, err error) {
	h := r.Head()
	if before != "" {
		e, err := r.entry(plumbing.NewHash(before))
		if err != nil {
			return nil, false, err
		}
		if e.Parent == "" {
			return nil, false, nil
		}
		h = plumbing.NewHash(e.Parent)
	}
	for sum := 0; ; {
		e, err := r.entry(h)
		if err != nil {
			return nil, false, r.missing(err)
		}
		if e.Message[commit.KeyType] == commit.TypeText {
			sum += size(e)
			if len(page) == limit || (len(page) > 0 && sum > maxBytes) {
				more = true
				break
			}
			page = append(page, e)
		}
		if e.Parent == "" {
			break
		}
		h = plumbing.NewHash(e.Parent)
	}
	for i, j := 0, len(page)-1; i < j; i, j = i+1, j-1 {
		page[i], page[j] = page[j], page[i]
	}
	return page, more, nil
}

// Has reports whether a commit is in the repository.
func (r *Repo) Has(id string) bool {
	_, err := r.object(plumbing.CommitObject, plumbing.NewHash(id))
	return err == nil
}

// Room returns the room whose conversation this is, as its Git configuration
// says: "parley.room". It lets a node find its rooms again without any other file.
// It is empty after [Detach].
func Room(path string) (string, error) {
	c, err := readConfig(path)
	if err != nil {
		return "", err
	}
	return c.Section("parley").Option("room"), nil
}

// Detach has a conversation say that it was of its room: "parley.was". A
// repository whose configuration is gone or damaged says nothing anyway.
func Detach(path string) error {
	c, err := readConfig(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	room := c.Section("parley").Option("room")
	if room == "" {
		return nil
	}
	c.Section("parley").RemoveOption("room")
	c.SetOption("parley", "", "was", room)
	var b bytes.Buffer
	if err := config.NewEncoder(&b).Encode(c); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return ReplaceFile(configFile(path), b.Bytes())
}

func configFile(path string) string { return filepath.Join(path, ".git", "config") }

// maxConfig bounds a Git configuration; ours has 200 bytes.
const maxConfig = 64 << 10

func readConfig(path string) (*config.Config, error) {
	f, err := os.Open(configFile(path))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%w: %s: a configuration of more than %d bytes", ErrDamaged, path, maxConfig)
	}
	return parseConfig(text)
}

func parseConfig(text []byte) (*config.Config, error) {
	c := config.New()
	if err := config.NewDecoder(bytes.NewReader(text)).Decode(c); err != nil {
		return nil, fmt.Errorf("%w: configuration: %w", ErrDamaged, err)
	}
	return c, nil
}
