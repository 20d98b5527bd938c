package repo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

func FuzzTree(f *testing.F) {
	h := string(plumbing.ComputeHash(plumbing.BlobObject, nil).String()[:20])
	f.Add([]byte("100644 a.crt\x00" + h + "40000 devices\x00" + h))
	f.Add([]byte("100755 a\x00" + h))
	f.Add([]byte("40000 .git\x00" + h))
	f.Add([]byte("100644 a\x00short"))
	f.Add([]byte("100644 a\x00" + h + "100644 a\x00" + h))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseTree(raw)
		if err != nil {
			return
		}
		size, seen := 0, map[string]bool{}
		for _, e := range entries {
			if e.Name == "" || strings.Contains(e.Name, "/") || seen[e.Name] {
				t.Errorf("name %q", e.Name)
			}
			seen[e.Name] = true
			size += len(e.Name) + len(" \x00") + len(e.Hash) + map[filemode.FileMode]int{filemode.Regular: 6, filemode.Dir: 5}[e.Mode]
		}
		if size != len(raw) {
			t.Errorf("%d bytes make entries of %d", len(raw), size)
		}
	})
}

// FuzzRoom covers the configuration that names a room, and taking it off.
func FuzzRoom(f *testing.F) {
	f.Add("[core]\n\tbare = false\n[parley]\n\troom = main\n")
	f.Add("[parley]\nroom = \"a\nb\"\n")
	f.Add("[parley \"x\"]\nroom = y\n[parley]\nroom = a\nroom = b\n")
	f.Add("[")
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseConfig([]byte(text)); err != nil {
			return
		}
		if err := os.WriteFile(configFile(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		room, err := Room(dir)
		if err != nil && len(text) <= maxConfig {
			t.Fatal(err)
		}
		if err := Detach(dir); err != nil {
			t.Fatal(err)
		}
		if left, err := Room(dir); err == nil && left != "" {
			t.Errorf("room %q, and %q after it was taken off", room, left)
		}
	})
}
