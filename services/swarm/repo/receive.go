package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/rules"
)

// Clone takes a conversation that came whole, judges each commit, and puts it under dir. expect is who is in
// it for sure: the account that it is for, or nothing is left there.
func Clone(ctx context.Context, dir, id, expect string, head plumbing.Hash, came gitwire.Objects, revoked *trust.Revocations) (*Swarm, error) {
	v := &view{came: came}
	s := &Swarm{Repo: newRepo("", id), nodes: map[plumbing.Hash]*node{}}
	s.checker = rules.NewChecker(revoked)
	news, nodes, err := s.judge(ctx, v, head)
	if err != nil {
		return nil, err
	}
	c, _, err := v.commit(head)
	if err != nil {
		return nil, err
	}
	t, err := v.tree(c.Tree)
	if err != nil {
		return nil, err
	}
	if roles, _ := rolesOf(t); nodes[plumbing.NewHash(id)] == nil || roles[expect] == "" || roles[expect] == Banned {
		return nil, fmt.Errorf("%w: the account is not in that conversation", ErrInvalid)
	}
	return place(ctx, dir, func(r *Repo) (plumbing.Hash, error) {
		if err := keep(r, v, news); err != nil {
			return plumbing.ZeroHash, err
		}
		return head, putRef(r.disk, r.git, head)
	}, id)
}

// Receive takes what came of a conversation: where it is good the branch moves on, by a merge of
// the given author where both sides have something of their own. merged is that commit, or zero. An
// author of nil merges nothing.
func (s *Swarm) Receive(ctx context.Context, head plumbing.Hash, came gitwire.Objects, revoked *trust.Revocations, a *Author, now time.Time) (merged plumbing.Hash, err error) {
	v := &view{repo: s.Repo, came: came}
	if !s.Has(head) {
		s.checker = rules.NewChecker(revoked)
		news, nodes, err := s.judge(ctx, v, head)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if err := keep(s.Repo, v, news); err != nil {
			return plumbing.ZeroHash, err
		}
		s.mu.Lock()
		for h, n := range nodes {
			s.nodes[h] = n
		}
		s.mu.Unlock()
		v.came = nil
	}
	own := s.Head()
	switch {
	case s.before(own)[head]:
		return plumbing.ZeroHash, nil
	case s.before(head)[own]:
		return plumbing.ZeroHash, s.move(v, head)
	case a == nil:
		return plumbing.ZeroHash, fmt.Errorf("%w: the account cannot merge what it has not joined", ErrInvalid)
	}
	return s.merge(v, own, head, a, now)
}

// judge judges the commits up to head that are not known, the oldest first.
func (s *Swarm) judge(ctx context.Context, v *view, head plumbing.Hash) ([]plumbing.Hash, map[plumbing.Hash]*node, error) {
	news, err := s.unknown(v, head)
	if err != nil {
		return nil, nil, err
	}
	nodes := map[plumbing.Hash]*node{}
	conv := &s.Conversation
	for _, h := range news {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		c, signed, err := v.commit(h)
		if err != nil {
			return nil, nil, invalid(h, err)
		}
		t, err := v.tree(c.Tree)
		if err != nil {
			return nil, nil, invalid(h, err)
		}
		if len(c.Parents) == 0 {
			if h.String() != s.ID {
				return nil, nil, invalid(h, errors.New("the beginning of another conversation"))
			}
			if conv, err = s.checker.First(c, signed, t); err != nil {
				return nil, nil, invalid(h, err)
			}
			nodes[h] = newNode(c, conv.Creator)
			continue
		}
		var parents []*rules.Tree
		for _, p := range c.Parents {
			pc, _, err := v.commit(p)
			if err != nil {
				return nil, nil, invalid(h, err)
			}
			pt, err := v.tree(pc.Tree)
			if err != nil {
				return nil, nil, invalid(h, err)
			}
			parents = append(parents, pt)
		}
		user, _, err := s.checker.Next(conv, c, signed, t, parents, s.found(nodes))
		if err != nil {
			return nil, nil, invalid(h, err)
		}
		nodes[h] = newNode(c, user)
	}
	return news, nodes, nil
}

func invalid(h plumbing.Hash, err error) error {
	if errors.Is(err, ErrDamaged) { // of ours
		return err
	}
	return fmt.Errorf("%w: commit %s: %w", ErrInvalid, h, err)
}

// unknown lists the commits up to head that are not known, parents before children.
func (s *Swarm) unknown(v *view, head plumbing.Hash) ([]plumbing.Hash, error) {
	var out []plumbing.Hash
	left := maxCommits - s.Commits()
	state := map[plumbing.Hash]int{} // 1: its parents come first; 2: listed
	for todo := []plumbing.Hash{head}; len(todo) > 0; {
		h := todo[len(todo)-1]
		if state[h] == 2 || s.Has(h) {
			todo = todo[:len(todo)-1]
			continue
		}
		if state[h] == 1 {
			state[h] = 2
			out = append(out, h)
			todo = todo[:len(todo)-1]
			continue
		}
		if left--; left < 0 {
			return nil, fmt.Errorf("%w: more than %d commits", ErrInvalid, maxCommits)
		}
		c, _, err := v.commit(h)
		if err != nil {
			return nil, invalid(h, err)
		}
		state[h] = 1
		todo = append(todo, c.Parents...) // by their ids these are acyclic
	}
	return out, nil
}

// keep writes commits and what is in them; other objects that came are dropped.
func keep(r *Repo, v *view, commits []plumbing.Hash) error {
	if len(commits) > 16 { // one flush of all is faster than one each
		old := r.disk
		if _, real := old.(realDisk); real {
			r.disk = looseDisk{}
			defer func() { r.disk = old }()
			if err := keepAll(r, v, commits); err != nil {
				return err
			}
			if err := syncTree(r.git); err != nil {
				return fmt.Errorf("%w: %w", ErrStorage, err)
			}
			return nil
		}
	}
	return keepAll(r, v, commits)
}

func keepAll(r *Repo, v *view, commits []plumbing.Hash) error {
	seen := map[plumbing.Hash]bool{}
	put := func(h plumbing.Hash) error {
		o, came := v.came[h]
		if !came || seen[h] {
			return nil
		}
		seen[h] = true
		_, err := putObject(r.disk, r.git, o.Type, o.Data)
		return err
	}
	for _, h := range commits {
		c, _, err := v.commit(h)
		if err != nil {
			return err
		}
		var errs error
		err = v.walk(c.Tree, func(id plumbing.Hash, _ string, file bool) bool {
			if _, came := v.came[id]; !came || seen[id] {
				return false
			}
			if file {
				if _, err := v.object(plumbing.BlobObject, id); err != nil {
					errs = errors.Join(errs, err)
				}
			}
			errs = errors.Join(errs, put(id))
			return true
		})
		if err = errors.Join(err, errs, put(h)); err != nil {
			return err
		}
	}
	return nil
}

// move has the branch end at a commit.
func (s *Swarm) move(v *view, h plumbing.Hash) error {
	if err := putRef(s.disk, s.git, h); err != nil {
		// It may have moved and not be flushed: it is what the disk says.
		return errors.Join(err, s.readHead())
	}
	s.Repo.mu.Lock()
	s.head = h
	s.Repo.mu.Unlock()
	return s.learn(v)
}

// merge makes one commit of two ends (swarm §2.8).
func (s *Swarm) merge(v *view, own, theirs plumbing.Hash, a *Author, now time.Time) (plumbing.Hash, error) {
	base := s.base(own, theirs)
	var trees [3]*rules.Tree
	for i, h := range []plumbing.Hash{base, own, theirs} {
		if h.IsZero() {
			return plumbing.ZeroHash, fmt.Errorf("%w: %s and %s have nothing in common", ErrInvalid, own, theirs)
		}
		c, _, err := v.commit(h)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if trees[i], err = v.tree(c.Tree); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	files, err := mergeFiles(trees[0].Blobs, trees[1].Blobs, trees[2].Blobs, theirs.String() > own.String())
	if err != nil {
		return plumbing.ZeroHash, err
	}
	tree, err := s.putFolder(files, "")
	if err != nil {
		return plumbing.ZeroHash, err
	}
	c := &commit.Commit{Tree: tree, Parents: []plumbing.Hash{own, theirs}, Name: a.Name, Device: a.Device, Time: now.UTC().Truncate(time.Second),
		Message: []byte("Merge commit '" + theirs.String() + "'")}
	return s.add(v, c, a)
}

// base is a commit that both ends have, none of whose children both have: the newest.
func (s *Swarm) base(a, b plumbing.Hash) plumbing.Hash {
	both, of := s.before(a), s.before(b)
	for _, h := range s.Order(a, nil) {
		if both[h] && of[h] {
			return h
		}
	}
	return plumbing.ZeroHash
}

// profile is the one file whose two versions can be merged.
const profile = "profile.vcf"

// mergeFiles is what both sides made of base. Where both changed the profile the side with the
// greater id has it.
func mergeFiles(base, ours, theirs map[string]plumbing.Hash, theirsGreater bool) (map[string]plumbing.Hash, error) {
	out := map[string]plumbing.Hash{}
	paths := make([]string, 0, len(ours)+len(theirs))
	for p := range ours {
		paths = append(paths, p)
	}
	for p := range theirs {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		b, o, t := base[p], ours[p], theirs[p]
		h := o
		switch {
		case o == t, t == b:
		case o == b:
			h = t
		case p == profile && !o.IsZero() && !t.IsZero():
			if theirsGreater {
				h = t
			}
		default:
			return nil, fmt.Errorf("%w: both sides changed %.120q", ErrInvalid, p)
		}
		if !h.IsZero() {
			out[p] = h
		}
	}
	return out, nil
}

// add signs a commit, judges it as others will, and has the branch end there.
func (s *Swarm) add(v *view, c *commit.Commit, a *Author) (plumbing.Hash, error) {
	if err := sign(c, a.Signer); err != nil {
		return plumbing.ZeroHash, err
	}
	t, err := v.tree(c.Tree)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	var parents []*rules.Tree
	for _, p := range c.Parents {
		pc, _, err := v.commit(p)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		pt, err := v.tree(pc.Tree)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		parents = append(parents, pt)
	}
	user, _, err := s.checker.Next(&s.Conversation, c, c.Unsigned(), t, parents, s.found(nil))
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%w: what would be written: %w", ErrInvalid, err)
	}
	h, err := putObject(s.disk, s.git, plumbing.CommitObject, c.Raw())
	if err != nil {
		return plumbing.ZeroHash, err
	}
	s.mu.Lock()
	s.nodes[h] = newNode(c, user)
	s.mu.Unlock()
	return h, s.move(v, h)
}

// Write commits a message of the author's; its certificates come along where the tree lacks them. It returns
// when that is on the disk.
func (s *Swarm) Write(a *Author, m commit.Message, now time.Time) (*Post, error) {
	return s.write(a, m, now, nil)
}

// Join makes a member of an author who is invited (swarm §2.5); nil: it is one already.
func (s *Swarm) Join(a *Author, now time.Time) (*Post, error) {
	switch s.Members()[a.URI] {
	case Admin, Member:
		return nil, nil
	case Invited:
	default:
		return nil, fmt.Errorf("%w: the account is not invited", ErrInvalid)
	}
	return s.write(a, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "join", commit.KeyURI: a.URI}, now, func(files map[string]plumbing.Hash) error {
		delete(files, "invited/"+a.URI)
		return s.file(files, "members/"+a.URI+".crt", a.AccountPEM)
	})
}

// file puts a file into a list.
func (s *Swarm) file(files map[string]plumbing.Hash, path string, data []byte) error {
	h, err := putObject(s.disk, s.git, plumbing.BlobObject, data)
	files[path] = h
	return err
}

func (s *Swarm) write(a *Author, m commit.Message, now time.Time, edit func(map[string]plumbing.Hash) error) (*Post, error) {
	v := &view{repo: s.Repo}
	head := s.Head()
	parent, _, err := v.commit(head)
	if err != nil {
		return nil, s.missing(err)
	}
	t, err := v.tree(parent.Tree)
	if err != nil {
		return nil, s.missing(err)
	}
	files := make(map[string]plumbing.Hash, len(t.Blobs)+1)
	for p, h := range t.Blobs {
		files[p] = h
	}
	if err := s.file(files, "devices/"+a.Device+".crt", a.DevicePEM); err != nil {
		return nil, err
	}
	for _, p := range []string{"admins/" + a.URI + ".crt", "members/" + a.URI + ".crt"} {
		if _, ok := files[p]; ok {
			if err := s.file(files, p, a.AccountPEM); err != nil { // renewed, maybe
				return nil, err
			}
		}
	}
	if edit != nil {
		if err := edit(files); err != nil {
			return nil, err
		}
	}
	tree, err := s.putFolder(files, "")
	if err != nil {
		return nil, err
	}
	c := &commit.Commit{Tree: tree, Parents: []plumbing.Hash{head}, Name: a.Name, Device: a.Device, Time: now.UTC().Truncate(time.Second), Message: m.Encode()}
	h, err := s.add(v, c, a)
	if err != nil {
		return nil, err
	}
	return s.Post(h)
}
