package bots

import (
	"errors"
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

func TestRegistry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bots.json")
	r := open(t, path)
	for _, name := range []string{"echo", "recorder"} {
		if err := r.Add(bot(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Add(bot("echo")); !errors.Is(err, ErrExists) {
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
	if err := again.Add(bot("echo")); err != nil {
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
	if err := r.Add(bot("echo")); err == nil {
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
