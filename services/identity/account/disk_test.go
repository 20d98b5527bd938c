//go:build interop

package account

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
)

// TestDiskThatRefuses: full and read-only disks give an error and lose nothing.
func TestDiskThatRefuses(t *testing.T) {
	_, a := create(t)
	dir := t.TempDir()
	mount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, "size=256k"); err != nil {
			t.Fatalf("a small disk, which needs root: %v", err)
		}
	}
	mount(0)
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := os.CopyFS(filepath.Join(dir, filepath.Base(a.Dir)), os.DirFS(a.Dir)); err != nil {
		t.Fatal(err)
	}
	a, err := (&Store{Root: dir}).Load()
	if err != nil {
		t.Fatal(err)
	}
	try := func(why error) {
		t.Helper()
		before := snapshot(t, a.Dir)
		for what, err := range map[string]error{
			"archive":  a.ChangeArchive(nil, func(x *jami.Archive) error { x.Settings["x"] = "y"; return nil }),
			"settings": func() error { _, err := a.Change(func(s *Settings) { s.Alias += "x" }); return err }(),
			"password": a.SetPassword(nil, []byte("pw")),
		} {
			if !errors.Is(err, why) || !strings.Contains(err.Error(), a.Dir) {
				t.Errorf("%s: %v, want %v", what, err, why)
			}
		}
		if snapshot(t, a.Dir) != before {
			t.Errorf("%v: files were changed", why)
		}
		if got, err := (&Store{Root: dir}).Load(); err != nil || got.Guard() != Plain {
			t.Errorf("%v, %v", got, err)
		}
	}
	hog := filepath.Join(dir, "hog")
	if err := os.WriteFile(hog, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	try(syscall.ENOSPC)
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	mount(syscall.MS_REMOUNT | syscall.MS_RDONLY)
	try(syscall.EROFS)
}
