package sockets

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// inherit has this process be the child that a set starts.
func inherit(t *testing.T, s *Set) (*Keep, []Kept) {
	t.Helper()
	files, _, started, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(files[len(files)-1].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	started()
	t.Setenv(Env, fmt.Sprintf("%s=%d", keeping, fd))
	k, kept, err := OpenKeep()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k, kept
}

func TestConnectionsOutliveTheChild(t *testing.T) {
	s := new(Set)
	s.Keep()
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	first, found := inherit(t, s)
	if len(found) != 0 {
		t.Fatalf("the first child found %v", found)
	}
	for id := range uint64(3) {
		if err := first.Hold(7+id, near.(*net.TCPConn), mem); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Drop(8); err != nil {
		t.Fatal(err)
	}
	first.Close()
	near.Close()
	mem.Close()

	second, found := inherit(t, s)
	if len(found) != 2 || second.n != 2 {
		t.Fatalf("the second child found %v", found)
	}
	for _, x := range found {
		if x.ID != 7 && x.ID != 9 {
			t.Errorf("it found %d", x.ID)
		}
	}
	c, err := net.FileConn(found[0].Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(far, b); err != nil || string(b) != "still here" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := found[0].Memory.Stat(); err != nil {
		t.Error(err)
	}
	c.Close()
	for _, x := range found {
		x.Conn.Close()
		x.Memory.Close()
		if err := second.Drop(x.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := far.Read(b); !errors.Is(err, io.EOF) { // nobody has it any more
		t.Errorf("after all were dropped: %v", err)
	}
}
