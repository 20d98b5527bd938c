package bots

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func bot(name string) Bot {
	return Bot{Name: name, Room: "main", Rights: []string{"listen"}, UserKey: "U", Created: time.Unix(1, 0).UTC()}
}

func open(t *testing.T, path string) *Registry {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// add lets a bot in, as identity does.
func (r *Registry) add(b Bot) error {
	if err := r.Begin(b); err != nil {
		return err
	}
	return r.Done(b.Name)
}

// TestPendingOutlivesTheProcess: what was begun is known at the next start.
func TestPendingOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bots.json")
	r := open(t, path)
	if err := r.Begin(bot("echo")); err != nil {
		t.Fatal(err)
	}
	r = open(t, path)
	if p := r.Pending(); len(p) != 1 || p[0].Name != "echo" || len(r.List()) != 0 {
		t.Fatalf("pending %v, list %v", p, r.List())
	}
	if err := r.add(bot("echo")); err != nil {
		t.Fatalf("the name of a pending one: %v", err)
	}
	if err := r.Drop("echo"); err != nil || len(r.List()) != 1 {
		t.Fatalf("one that is let in was dropped: %v, %v", r.List(), err)
	}
}

func TestRevokedOnesDoNotFillTheList(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "bots.json"))
	at := time.Unix(2, 0)
	for i := range maxBots {
		r.bots = append(r.bots, bot(fmt.Sprint("old", i)))
		r.bots[i].Revoked = &at
	}
	if err := r.add(bot("new")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Revoke("new", at); err != nil {
		t.Fatal(err)
	}
	if l := r.List(); len(l) != keepRevoked || l[len(l)-1].Name != "new" {
		t.Fatalf("%d revoked ones are kept", len(l))
	}
	r.bots = nil
	for i := range maxBots {
		r.bots = append(r.bots, bot(fmt.Sprint("in", i)))
	}
	if err := r.Begin(bot("one more")); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
}

func TestRegistry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bots.json")
	r := open(t, path)
	for _, name := range []string{"echo", "recorder"} {
		if err := r.add(bot(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.add(bot("echo")); !errors.Is(err, ErrExists) {
		t.Errorf("same name again: %v", err)
	}
	if _, err := r.Revoke("nobody", time.Unix(2, 0)); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoking nobody: %v", err)
	}
	at := time.Unix(2, 0).UTC()
	for range 2 { // the second changes nothing
		b, err := r.Revoke("echo", at)
		if err != nil || b.Revoked == nil || !b.Revoked.Equal(time.Unix(2, 0)) {
			t.Errorf("revoked %+v, %v", b, err)
		}
		at = time.Unix(3, 0).UTC()
	}
	again := open(t, path)
	if b, err := again.Get("echo"); err != nil || b.Revoked == nil {
		t.Errorf("after a restart: %+v, %v", b, err)
	}
	if err := again.add(bot("echo")); err != nil {
		t.Errorf("the name of a revoked bot: %v", err)
	}
	if n := len(again.List()); n != 2 {
		t.Errorf("%d bots, want 2", n)
	}
}

func TestDamagedFileIsKept(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"version":1,"bots":[{"na`, "newer": `{"version":9,"bots":[]}`,
		"twice": `{"version":1,"bots":[{"name":"a"},{"name":"a"}]}`,
	} {
		path := filepath.Join(t.TempDir(), "bots.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		var d *DamagedError
		if !errors.As(err, &d) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want a DamagedError that names the file", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%s: file changed to %q, %v", name, b, err)
		}
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	r := open(t, filepath.Join(dir, "bots.json")) // the directory isn't there
	if err := r.add(bot("echo")); err == nil {
		t.Fatal("added without a file")
	}
	if len(r.List()) != 0 {
		t.Error("the bot is in the list")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"bots":[{"name":"a","room":"main","rights":["listen"],"user_key":"U","created":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		bots, err := parse(b)
		if err == nil && len(bots) > len(b) {
			t.Error("more bots than bytes")
		}
	})
}
