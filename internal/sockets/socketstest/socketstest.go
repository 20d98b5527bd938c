// Package socketstest lets tests be the processes that a supervisor starts one after the other.
package socketstest

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/internal/sockets"
)

// Next has the test be the next child of a set that keeps connections, and returns what the one before had kept. The Keep
// is the caller's to close.
func Next(t testing.TB, held *sockets.Set) (*sockets.Keep, []sockets.Kept) {
	t.Helper()
	files, _, started, err := held.Files()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(files[len(files)-1].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	started()
	t.Setenv(sockets.Env, fmt.Sprintf("keep=%d", fd))
	k, kept, err := sockets.OpenKeep()
	if err != nil {
		t.Fatal(err)
	}
	return k, kept
}
