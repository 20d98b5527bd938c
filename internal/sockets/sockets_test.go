package sockets

import (
	"errors"
	"os"
	"testing"
	"time"
)

// Who holds a socket for another process must not be woken by what happens there.
func TestHeldSocketsAreNotPolled(t *testing.T) {
	s, err := Open([]Spec{{Name: "u", Network: "udp", Addr: "127.0.0.1:0"}, {Name: "t", Network: "tcp", Addr: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, f := range s.files {
		if err := f.SetReadDeadline(time.Now()); !errors.Is(err, os.ErrNoDeadline) { // that of files which are polled
			t.Errorf("%s: %v", s.names[i], err)
		}
	}
}
