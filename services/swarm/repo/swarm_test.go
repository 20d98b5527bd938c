package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/repo"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

var limits = gitwire.Limits{Pack: 1 << 20, Objects: 10_000, Object: 1 << 20, All: 8 << 20}

// fetch asks one repository for what another lacks, over a connection.
func fetch(t testing.TB, from *repo.Swarm, known func(plumbing.Hash) bool, haves []plumbing.Hash) (plumbing.Hash, gitwire.Objects) {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- gitwire.Serve(far, from.ID, from, func(plumbing.Hash) {}) }()
	head, objs, err := gitwire.Fetch(near, from.ID, "device", known, haves, limits)
	if err != nil {
		t.Fatal(err)
	}
	near.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return head, objs
}

// pull brings what a has to b.
func pull(t testing.TB, b, a *repo.Swarm, who *swarmtest.Identity) {
	t.Helper()
	head, objs := fetch(t, a, b.Has, b.Haves(100))
	if _, err := b.Receive(t.Context(), head, objs, nil, &who.Author, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func say(t testing.TB, s *repo.Swarm, who *swarmtest.Identity, body string) {
	t.Helper()
	if _, err := s.Write(&who.Author, commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: body}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// pair is a conversation of two, at both.
func pair(t testing.TB) (ann, bob *swarmtest.Identity, a, b *repo.Swarm) {
	t.Helper()
	ann, bob = swarmtest.New(t), swarmtest.New(t)
	a, err := repo.CreateSwarm(t.Context(), t.TempDir(), &ann.Author, bob.URI, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	say(t, a, ann, "before you came")
	head, objs := fetch(t, a, func(plumbing.Hash) bool { return false }, nil)
	if b, err = repo.Clone(t.Context(), t.TempDir(), a.ID, bob.URI, head, objs, nil); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Join(&bob.Author, time.Now()); err != nil || p == nil {
		t.Fatal(p, err)
	}
	pull(t, a, b, ann)
	return ann, bob, a, b
}

func bodies(t testing.TB, s *repo.Swarm) string {
	t.Helper()
	posts, more, err := s.Posts("", 1000)
	if err != nil || more {
		t.Fatal(more, err)
	}
	var out []string
	for _, p := range posts {
		out = append(out, p.Message[commit.KeyType]+":"+p.Message[commit.KeyBody])
	}
	return strings.Join(out, " ")
}

func TestSwarmOfTwo(t *testing.T) {
	ann, bob, a, b := pair(t)
	if want := map[string]repo.Role{ann.URI: repo.Admin, bob.URI: repo.Member}; !maps.Equal(a.Members(), want) || !maps.Equal(b.Members(), want) {
		t.Fatalf("%v, %v", a.Members(), b.Members())
	}
	if p, err := b.Join(&bob.Author, time.Now()); p != nil || err != nil {
		t.Errorf("joining twice: %v, %v", p, err)
	}
	// Both write at once; one merges, the other follows.
	say(t, a, ann, "one")
	say(t, b, bob, "two")
	pull(t, a, b, ann)
	pull(t, b, a, bob)
	if a.Head() != b.Head() || bodies(t, a) != bodies(t, b) || !strings.Contains(bodies(t, a), "merge:") {
		t.Fatalf("%s\n%s", bodies(t, a), bodies(t, b))
	}
	say(t, b, bob, "three")
	pull(t, a, b, ann)
	if a.Head() != b.Head() {
		t.Error("it did not move forward")
	}
	posts, err := a.Since(plumbing.NewHash(a.ID), 100)
	if err != nil || len(posts) != a.Commits()-1 || posts[0].Message[commit.KeyBody] != "before you came" || posts[0].User != ann.URI || posts[len(posts)-1].User != bob.URI {
		t.Errorf("%+v, %v", posts, err)
	}
	again, err := repo.OpenSwarm(t.Context(), a.Path, a.ID)
	if err != nil || again.Head() != a.Head() || bodies(t, again) != bodies(t, a) || !maps.Equal(again.Members(), a.Members()) {
		t.Errorf("opened again: %v", err)
	}
	if _, err := again.Write(&bob.Author, commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: "x"}, time.Now()); err != nil {
		t.Errorf("written after it was opened: %v", err)
	}
	// Git itself finds nothing wrong.
	if _, err := exec.LookPath("git"); err == nil {
		if out, err := exec.Command("git", "-C", a.Path, "fsck", "--strict").CombinedOutput(); err != nil || strings.Contains(string(out), "missing") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func TestSwarmRefuses(t *testing.T) {
	ann, bob, a, b := pair(t)
	eve := swarmtest.New(t)
	write := func(s *repo.Swarm, who *swarmtest.Identity, m commit.Message) error {
		_, err := s.Write(&who.Author, m, time.Now())
		return err
	}
	text := commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: "x"}
	for name, err := range map[string]error{
		"a stranger":                   write(b, eve, text),
		"a type that is none":          write(b, bob, commit.Message{commit.KeyType: ""}),
		"a second beginning":           write(b, bob, commit.Message{commit.KeyType: commit.TypeInitial, commit.KeyMode: "0"}),
		"an edit of another's":         write(b, bob, commit.Message{commit.KeyType: commit.TypeEdited, "edit": a.ID}),
		"who joins for another":        write(b, bob, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "join", commit.KeyURI: eve.URI}),
		"a third one":                  write(b, bob, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "add", commit.KeyURI: eve.URI}),
		"an invitation that is none":   write(b, bob, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "add", commit.KeyURI: ann.URI}),
		"a member's unknown action":    write(b, bob, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "x", commit.KeyURI: ann.URI}),
		"who counts and no admin":      write(b, bob, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "ban", commit.KeyURI: ann.URI}),
		"who counts without votes":     write(a, ann, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "ban", commit.KeyURI: bob.URI}),
		"a profile of no admin":        write(b, bob, commit.Message{commit.KeyType: commit.TypeProfile}),
		"who leaves and is still here": write(b, bob, commit.Message{commit.KeyType: commit.TypeMember, commit.KeyAction: "remove", commit.KeyURI: bob.URI}),
	} {
		if !errors.Is(err, repo.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if bob.Signer = eve.DeviceKey; !errors.Is(write(b, bob, text), repo.ErrInvalid) {
		t.Error("a signature of another key")
	}
	if a.Head() != b.Head() {
		t.Error("something was written")
	}
	if !a.May(ann.URI, ann.Device) || !a.May(bob.URI, bob.Device) || a.May(eve.URI, eve.Device) {
		t.Error("who may have it")
	}

	// What comes is judged before anything of it is kept.
	head, objs := fetch(t, a, func(plumbing.Hash) bool { return false }, nil)
	clone := func(change func(gitwire.Objects), expect, id string) error {
		came := maps.Clone(objs)
		if change != nil {
			change(came)
		}
		dir := t.TempDir()
		_, err := repo.Clone(t.Context(), dir, id, expect, head, came, nil)
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); err != nil && len(left) > 0 {
			t.Errorf("it left %v", left)
		}
		return err
	}
	if err := clone(nil, bob.URI, a.ID); err != nil {
		t.Fatal(err)
	}
	drop := func(typ plumbing.ObjectType) func(gitwire.Objects) {
		return func(o gitwire.Objects) {
			for h, x := range o {
				if x.Type == typ && len(x.Data) > 0 && h != head {
					delete(o, h)
					return
				}
			}
		}
	}
	for name, err := range map[string]error{
		"for who is not in it":   clone(nil, eve.URI, a.ID),
		"another conversation":   clone(nil, bob.URI, head.String()),
		"a path for an id":       clone(nil, bob.URI, "../../x"),
		"a commit is not there":  clone(drop(plumbing.CommitObject), bob.URI, a.ID),
		"a tree is not there":    clone(drop(plumbing.TreeObject), bob.URI, a.ID),
		"a file is not there":    clone(drop(plumbing.BlobObject), bob.URI, a.ID),
		"no commit where one is": clone(func(o gitwire.Objects) { o[head] = gitwire.Object{Type: plumbing.BlobObject} }, bob.URI, a.ID),
		"nothing":                clone(func(o gitwire.Objects) { clear(o) }, bob.URI, a.ID),
		"a revoked device wrote it": func() error {
			_, err := repo.Clone(t.Context(), t.TempDir(), a.ID, bob.URI, head, objs, ann.Revoke(t, time.Now().Add(-time.Hour)))
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := repo.Clone(ctx, t.TempDir(), a.ID, bob.URI, head, objs, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A history with many commits comes whole, and later only what is new.
func TestSwarmComesInPieces(t *testing.T) {
	ann, bob, a, b := pair(t)
	for i := range 60 {
		say(t, a, ann, fmt.Sprint(i))
	}
	_, objs := fetch(t, a, b.Has, b.Haves(100))
	if len(objs) != 60 { // commits alone: trees and files are there
		t.Errorf("%d objects came", len(objs))
	}
	pull(t, b, a, bob)
	if a.Head() != b.Head() {
		t.Error("it did not come")
	}
	page, more, err := b.Posts(a.Head().String(), 10)
	if err != nil || !more || len(page) != 10 || page[0].Message[commit.KeyBody] != "58" {
		t.Errorf("%v, %v, %v", page, more, err)
	}
}

// A device that an administrator banned neither gets anything nor writes.
func TestBannedDevice(t *testing.T) {
	ann, bob, a, b := pair(t)
	if err := repo.BanDevice(a, &ann.Author, bob.Device); err != nil {
		t.Fatal(err)
	}
	if a.May(bob.URI, bob.Device) || !a.May(bob.URI, ann.Device) {
		t.Error("who may have it")
	}
	pull(t, b, a, bob)
	if _, err := b.Write(&bob.Author, commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: "x"}, time.Now()); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("it writes: %v", err)
	}
	again, err := repo.OpenSwarm(t.Context(), a.Path, a.ID)
	if err != nil || again.May(bob.URI, bob.Device) {
		t.Errorf("opened again: %v", err)
	}
}
