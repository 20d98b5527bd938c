//go:build interop

package jams

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap/zaptest"

	client "github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// disk is a small disk that ends with the test.
func disk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("jams", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func remount(t *testing.T, dir string, flags uintptr, data string) {
	t.Helper()
	if err := syscall.Mount("jams", dir, "tmpfs", syscall.MS_REMOUNT|flags, data); err != nil {
		t.Fatal(err)
	}
}

// The disk gets full: who enrols then is told that the server failed, all else goes
// on, and with room again nothing is lost.
func TestFullDisk(t *testing.T) {
	data := disk(t, "300k")
	const users = 40
	var names []string
	for i := range users {
		names = append(names, fmt.Sprintf("user-%d", i))
	}
	addUsers(t, data, names...)
	s := start(t, data)
	ctx := t.Context()
	keys := namestest.Accounts(t, 600)
	c := ask(t, s.url, s.roots)
	n := 0
	var first *client.Enrolment
	for ; n < len(keys); n++ {
		e, err := c.Enrol(ctx, names[n%users], "secret", "device", keys[n])
		if errors.Is(err, client.ErrUnavailable) {
			t.Log(err)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = e
		}
	}
	if n == 0 || n == len(keys) {
		t.Fatalf("%d enrolments", n)
	}
	if list, err := asDevice(t, c, keys[0], first).Devices(ctx); err != nil || len(list) == 0 {
		t.Errorf("%v, %v", list, err)
	}
	if !strings.Contains(s.log.String(), "no space left") {
		t.Error("the log does not say why")
	}
	if err := s.end(); err == nil {
		t.Fatal("it ended by itself")
	}
	remount(t, data, 0, "size=8m")
	s = start(t, data)
	op := client.NewOperator(client.OperatorSocket(s.dir))
	defer op.Close()
	if sum, err := op.Summary(ctx); err != nil || sum.Devices != n {
		t.Errorf("%+v of %d, %v", sum, n, err)
	}
	if _, err := ask(t, s.url, s.roots).Enrol(ctx, names[n%users], "secret", "device", keys[n]); err != nil {
		t.Error(err)
	}
	t.Logf("full after %d enrolments", n)
}

// No room at all, and a disk that is read-only: a clear error, and nothing is left or
// lost.
func TestDiskThatRefuses(t *testing.T) {
	data := disk(t, "64k")
	addUsers(t, data, "alice")
	fill := filepath.Join(data, "fill")
	if err := os.WriteFile(fill, make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("there was room")
	}
	run := func() error {
		s := &Service{env: env(data, zaptest.NewLogger(t)), bits: testBits}
		return s.Run(t.Context())
	}
	if err := run(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("no room: %v", err)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	remount(t, data, 0, "size=8m")
	s := start(t, data)
	if _, err := ask(t, s.url, s.roots).Enrol(t.Context(), "alice", "secret", "device", namestest.Accounts(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.end(); err == nil {
		t.Fatal("it ended by itself")
	}
	path := filepath.Join(data, "jams", fileAccounts)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	remount(t, data, syscall.MS_RDONLY, "")
	if err := run(); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), path) {
		t.Errorf("read-only: %v", err)
	}
	remount(t, data, 0, "")
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed, %v", err)
	}
}
