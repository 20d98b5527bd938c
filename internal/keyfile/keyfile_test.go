package keyfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLoadMakesOnceAndKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, err := Load(path, 32)
	if err != nil || len(first) != 32 {
		t.Fatalf("first: %x %v", first, err)
	}
	again, err := Load(path, 32)
	if err != nil || !bytes.Equal(first, again) {
		t.Fatalf("again: %x %v, want %x", again, err, first)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v %v, want 0600", st.Mode(), err)
	}
	left, err := filepath.Glob(path + ".*")
	if err != nil || len(left) != 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "short": "abcd\n", "no hex": "zz" + string(make([]byte, 62))} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if key, err := Load(path, 32); err == nil {
				t.Fatalf("got %x, want an error", key)
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != text {
				t.Fatalf("file changed to %q (%v)", now, err)
			}
		})
	}
}
