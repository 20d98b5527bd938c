package repo

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// maxCommits bounds a conversation of several: each takes some 250 bytes of memory.
const maxCommits = 100_000

// ErrInvalid says that what came is against the rules of the conversation, or not whole.
var ErrInvalid = errors.New("not a history that is taken")

// Swarm is an open conversation that devices of several accounts write (swarm §2). What comes
// is judged before it is on the disk; at a start the chain of ids from the branch on says that it
// is still that.
//
// Writing belongs to one goroutine at a time; reading is safe for concurrent use.
type Swarm struct {
	*Repo
	Conversation rules.Conversation

	mu    sync.RWMutex
	nodes map[plumbing.Hash]*node
	roles map[string]Role // by Jami Id, at the head
	bans  map[string]bool // long ids of devices that are banned there
}

// node is a commit as it stands among others.
type node struct {
	parents []plumbing.Hash
	time    int64
	user    string
	typ     string
}

// Role is what an account is in a conversation.
type Role string

// The roles (swarm §1.2).
const (
	Admin   Role = "admin"
	Member  Role = "member"
	Invited Role = "invited"
	Banned  Role = "banned"
)

// Post is a commit that somebody made, with its account.
type Post struct {
	Entry
	User string // Jami Id; empty: not known
}

// OpenSwarm opens the conversation under path.
func OpenSwarm(ctx context.Context, path, id string) (*Swarm, error) {
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
	s := &Swarm{Repo: r, nodes: map[plumbing.Hash]*node{}}
	v := &view{repo: r}
	for todo := []plumbing.Hash{r.head}; len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.nodes[h] != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, _, err := v.commit(h)
		if err == nil && len(s.nodes) >= maxCommits {
			err = fmt.Errorf("more than %d commits", maxCommits)
		}
		if err != nil {
			return nil, r.damaged("commit %s: %v", h, err)
		}
		t, err := v.tree(c.Tree)
		if err != nil {
			return nil, r.damaged("commit %s: %v", h, err)
		}
		s.nodes[h] = newNode(c, r.checker.Author(c, t))
		if len(c.Parents) == 0 && h.String() != id {
			return nil, r.damaged("its first commit is %s", h)
		}
		todo = append(todo, c.Parents...)
	}
	if s.nodes[plumbing.NewHash(id)] == nil {
		return nil, r.damaged("its first commit is not there")
	}
	if err := s.learn(v); err != nil {
		return nil, r.damaged("%v", err)
	}
	return s, nil
}

// learn reads what the first commit and the tree of the head say.
func (s *Swarm) learn(v *view) error {
	c, _, err := v.commit(plumbing.NewHash(s.ID))
	if err != nil {
		return err
	}
	m, err := commit.ParseMessage(c.Message)
	if err != nil {
		return err
	}
	s.Conversation = rules.Conversation{Mode: m[commit.KeyMode], Creator: s.nodes[plumbing.NewHash(s.ID)].user, Other: m[commit.KeyInvited]}
	if c, _, err = v.commit(s.Head()); err != nil {
		return err
	}
	t, err := v.tree(c.Tree)
	if err != nil {
		return err
	}
	roles, bans := rolesOf(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles, s.bans = roles, bans
	return nil
}

// rolesOf reads who is what; the first that says something of somebody counts (swarm §1.2).
func rolesOf(t *rules.Tree) (roles map[string]Role, bans map[string]bool) {
	roles, bans = map[string]Role{}, map[string]bool{}
	for _, x := range []struct {
		dir, end string
		role     Role
	}{{"banned/members/", ".crt", Banned}, {"banned/admins/", ".crt", Banned}, {"banned/invited/", "", Banned}, {"invited/", "", Invited}, {"members/", ".crt", Member}, {"admins/", ".crt", Admin}} {
		for p := range t.Blobs {
			if id, ok := strings.CutPrefix(p, x.dir); ok {
				if id, ok = strings.CutSuffix(id, x.end); ok {
					roles[id] = x.role
				}
			}
		}
	}
	for p := range t.Blobs {
		if id, ok := strings.CutPrefix(p, "banned/devices/"); ok {
			bans[strings.TrimSuffix(id, ".crt")] = true
		}
	}
	return roles, bans
}

func newNode(c *commit.Commit, user string) *node {
	n := &node{parents: c.Parents, time: c.Time.Unix(), user: user}
	if len(c.Parents) > 1 {
		n.typ = "merge"
	} else if m, err := commit.ParseMessage(c.Message); err == nil {
		n.typ = m[commit.KeyType]
	}
	return n
}

// Members returns who is what, by Jami Id.
func (s *Swarm) Members() map[string]Role {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.roles)
}

// May reports whether a device of an account may have the conversation (swarm §3.1).
func (s *Swarm) May(account, device string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.roles[account]
	return ok && r != Banned && !s.bans[device]
}

// Commits is how many there are.
func (s *Swarm) Commits() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.nodes)
}

// Has implements [gitwire.Source].
func (s *Swarm) Has(h plumbing.Hash) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[h] != nil
}

// Object implements [gitwire.Source].
func (s *Swarm) Object(h plumbing.Hash) (gitwire.Object, error) {
	s.Repo.mu.Lock()
	o, err := s.store.EncodedObject(plumbing.AnyObject, h)
	s.Repo.mu.Unlock()
	if err != nil {
		return gitwire.Object{}, s.damaged("object %s: %v", h, err)
	}
	data, err := s.object(o.Type(), h)
	return gitwire.Object{Type: o.Type(), Data: data}, err
}

// before is a commit and all before it.
func (s *Swarm) before(from ...plumbing.Hash) map[plumbing.Hash]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := map[plumbing.Hash]bool{}
	for todo := slices.Clone(from); len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n := s.nodes[h]
		if n == nil || seen[h] {
			continue
		}
		seen[h] = true
		todo = append(todo, n.parents...)
	}
	return seen
}

// Reaches reports whether a commit is another one or comes after it.
func (s *Swarm) Reaches(h, earlier plumbing.Hash) bool { return s.before(h)[earlier] }

// OfType lists up to n commits of a type, the newest by their dates first.
func (s *Swarm) OfType(typ string, n int) []plumbing.Hash {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []plumbing.Hash
	for h, x := range s.nodes {
		if x.typ == typ {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b plumbing.Hash) int {
		return cmp.Or(cmp.Compare(s.nodes[b].time, s.nodes[a].time), strings.Compare(a.String(), b.String()))
	})
	return out[:min(len(out), n)]
}

// Order lists a commit and those before it that are not in without: the newest first, children
// before their parents (swarm §2.9).
func (s *Swarm) Order(from plumbing.Hash, without map[plumbing.Hash]bool) []plumbing.Hash {
	in := s.before(from)
	s.mu.RLock()
	defer s.mu.RUnlock()
	children := map[plumbing.Hash]int{}
	for h := range in {
		if without[h] {
			continue
		}
		for _, p := range s.nodes[h].parents {
			children[p]++
		}
	}
	if len(in) == 0 || without[from] {
		return nil
	}
	q := &byTime{nodes: s.nodes, ids: []plumbing.Hash{from}}
	var out []plumbing.Hash
	for q.Len() > 0 {
		h := heap.Pop(q).(plumbing.Hash)
		out = append(out, h)
		for _, p := range s.nodes[h].parents {
			if children[p]--; children[p] == 0 && !without[p] {
				heap.Push(q, p)
			}
		}
	}
	return out
}

// byTime is commits whose children are listed; it gives the newest one.
type byTime struct {
	nodes map[plumbing.Hash]*node
	ids   []plumbing.Hash
}

func (q *byTime) Len() int { return len(q.ids) }
func (q *byTime) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q.nodes[q.ids[j]].time, q.nodes[q.ids[i]].time), strings.Compare(q.ids[i].String(), q.ids[j].String())) < 0
}
func (q *byTime) Swap(i, j int) { q.ids[i], q.ids[j] = q.ids[j], q.ids[i] }
func (q *byTime) Push(x any)    { q.ids = append(q.ids, x.(plumbing.Hash)) }
func (q *byTime) Pop() any {
	x := q.ids[len(q.ids)-1]
	q.ids = q.ids[:len(q.ids)-1]
	return x
}

// Since lists what is on the branch and was not before a commit, the oldest first. Of more than
// most the newest are given.
func (s *Swarm) Since(before plumbing.Hash, most int) ([]Post, error) {
	ids := s.Order(s.Head(), s.before(before))
	ids = ids[:min(len(ids), most)]
	slices.Reverse(ids)
	out := make([]Post, 0, len(ids))
	for _, h := range ids {
		p, err := s.Post(h)
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

// Post reads one commit. A merge has a message of type "merge".
func (s *Swarm) Post(h plumbing.Hash) (*Post, error) {
	s.mu.RLock()
	n := s.nodes[h]
	s.mu.RUnlock()
	if n == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, h)
	}
	c, _, err := (&view{repo: s.Repo}).commit(h)
	if err != nil {
		return nil, s.missing(err)
	}
	m := commit.Message{commit.KeyType: n.typ}
	if len(c.Parents) < 2 {
		if m, err = commit.ParseMessage(c.Message); err != nil {
			return nil, s.damaged("commit %s: %v", h, err)
		}
	}
	return &Post{Entry: *newEntry(h, c, m), User: n.user}, nil
}

// Posts lists up to limit commits before one, or the newest, the newest first, and whether there are
// more.
func (s *Swarm) Posts(before string, limit int) (out []Post, more bool, err error) {
	ids := s.Order(s.Head(), nil)
	if before != "" {
		i := slices.Index(ids, plumbing.NewHash(before))
		if i < 0 {
			return nil, false, fmt.Errorf("%w: %s", ErrNotFound, before)
		}
		ids = ids[i+1:]
	}
	for i, h := range ids {
		if i == limit {
			return out, true, nil
		}
		p, err := s.Post(h)
		if err != nil {
			return nil, false, err
		}
		out = append(out, *p)
	}
	return out, false, nil
}

// Haves lists up to n of the newest commits.
func (s *Swarm) Haves(n int) []plumbing.Hash {
	ids := s.Order(s.Head(), nil)
	return ids[:min(len(ids), n)]
}

// Missing implements [gitwire.Source].
func (s *Swarm) Missing(want plumbing.Hash, haves []plumbing.Hash) ([]plumbing.Hash, error) {
	had := s.before(haves...)
	ids := s.Order(want, had)
	seen := map[plumbing.Hash]bool{}
	v := &view{repo: s.Repo}
	// What the peer has of trees and files is in the commits right before those that it lacks.
	for _, h := range ids {
		for _, p := range s.parents(h) {
			if had[p] {
				if _, err := s.objectsOf(v, p, seen, nil); err != nil {
					return nil, err
				}
			}
		}
	}
	out := slices.Clone(ids)
	for _, h := range ids {
		var err error
		if out, err = s.objectsOf(v, h, seen, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Swarm) parents(h plumbing.Hash) []plumbing.Hash {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[h].parents
}

// objectsOf adds trees and files of a commit that were not seen to a list.
func (s *Swarm) objectsOf(v *view, h plumbing.Hash, seen map[plumbing.Hash]bool, out []plumbing.Hash) ([]plumbing.Hash, error) {
	c, _, err := v.commit(h)
	if err != nil {
		return nil, err
	}
	err = v.walk(c.Tree, func(id plumbing.Hash, _ string, _ bool) bool {
		if seen[id] {
			return false
		}
		seen[id] = true
		out = append(out, id)
		return true
	})
	return out, err
}

// found reads what rules ask of an earlier commit; more are those that are being judged.
func (s *Swarm) found(more map[plumbing.Hash]*node) rules.Past {
	return func(id string) (string, string, bool) {
		h := plumbing.NewHash(id)
		s.mu.RLock()
		n := s.nodes[h]
		s.mu.RUnlock()
		if n == nil {
			n = more[h]
		}
		if n == nil {
			return "", "", false
		}
		return n.user, n.typ, true
	}
}
