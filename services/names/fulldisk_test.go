//go:build interop

package names

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	client "github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// The disk gets full: who asks then is told that the server failed, look-ups go on,
// and with room again nothing is lost.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("names", dir, "tmpfs", 0, "size=200k"); err != nil {
		t.Fatalf("a small disk, which needs root: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	full := startChild(t, dir)
	ctx := t.Context()
	keys := namestest.Accounts(t, 200)
	c := ask(t, full.url)
	n := 0
	for ; n < len(keys); n++ {
		err := c.Register(ctx, fmt.Sprintf("name-%d", n), "00", keys[n])
		if errors.Is(err, client.ErrUnavailable) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 || n == len(keys) {
		t.Fatalf("%d registrations", n)
	}
	if _, err := ask(t, full.url).Lookup(ctx, "name-0"); err != nil {
		t.Error(err)
	}
	full.kill(t)
	if err := syscall.Mount("names", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	again := startChild(t, dir)
	defer again.kill(t)
	c = ask(t, again.url)
	for i := range n {
		if r, err := c.Lookup(ctx, fmt.Sprintf("name-%d", i)); err != nil || !r.Verified() {
			t.Errorf("%d of %d: %v", i, n, err)
		}
	}
	if err := c.Register(ctx, fmt.Sprintf("name-%d", n), "00", keys[n]); err != nil {
		t.Error(err)
	}
	t.Logf("full after %d names", n)
}
