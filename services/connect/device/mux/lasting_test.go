package mux

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/sockets/socketstest"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/lasting"
)

// process gives this test what the one before had kept, as its supervisor does.
func process(t *testing.T, held *sockets.Set) (*sockets.Keep, []sockets.Kept) {
	t.Helper()
	k, kept := socketstest.Next(t, held)
	t.Cleanup(func() { k.Close() })
	return k, kept
}

// asItIs is a copy of a memory: what a process leaves that dies now.
func asItIs(t *testing.T, f *os.File) *os.File {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("copy", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	out := os.NewFile(uintptr(fd), "copy")
	if _, err := out.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	return out
}

func session(t *testing.T, c net.Conn, keep *sockets.Keep, read, write byte) *lasting.Conn {
	t.Helper()
	x, why, err := lasting.New(c, lasting.Session{Suite: tls.TLS_AES_256_GCM_SHA384, Read: bytes.Repeat([]byte{read}, 48), Write: bytes.Repeat([]byte{write}, 48)}, lasting.Config{Keep: keep})
	if err != nil || why != nil {
		t.Fatal(err, why)
	}
	return x
}

// startLasting runs a socket whose channels "sip" last; those of before go to restored.
func startLasting(t *testing.T, c *lasting.Conn) (x *side, restored chan *Channel) {
	t.Helper()
	x = &side{taken: make(chan *Channel, 64), ended: make(chan error, 1)}
	restored = make(chan *Channel, 64)
	x.Socket = New(c, Config{Peer: channel.Peer{DeviceLong: "peer"}, Lasts: "sip", Accept: func(c *Channel) error {
		x.taken <- c
		return nil
	}, Restored: func(c *Channel) error {
		restored <- c
		return nil
	}})
	go func() { x.ended <- x.Run() }()
	t.Cleanup(func() { x.end1(t); c.Free() })
	return x, restored
}

func TestChannelsGoOn(t *testing.T) {
	held := new(sockets.Set)
	held.Keep()
	defer held.Close()
	keep, _ := process(t, held)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{far, near} { // as a handshake does, of which bytes were counted
		if _, err := c.Write([]byte("h")); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []net.Conn{far, near} {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := startLasting(t, session(t, far, nil, 1, 2))
	a, _ := startLasting(t, session(t, near, keep, 2, 1))

	theirs := open(t, b, "sip") // by b's word
	got := <-a.taken
	git := open(t, b, "git://x")
	gitHere := <-a.taken
	ours := open(t, a, "sip")
	<-b.taken
	ended := open(t, b, "sip")
	gone := <-a.taken
	write := func(c *Channel, text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	next := func(c *Channel, want string, again, done bool) {
		t.Helper()
		m, err := c.Next()
		if err != nil || string(m.Data) != want || m.Again != again {
			t.Fatalf("%q (again: %t), %v, in place of %q", m.Data, m.Again, err, want)
		}
		if done {
			m.Done()
		}
	}
	write(ended, "of a channel that ends")
	next(gone, "of a channel that ends", false, false)
	if err := ended.Close(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = gone.Next()
	}
	for _, text := range []string{"done with", "being acted upon", "not read"} {
		write(theirs, text)
	}
	next(got, "done with", false, true)
	next(got, "being acted upon", false, false)
	for len(got.more) == 0 { // the last one has come
		time.Sleep(time.Millisecond)
	}
	for _, text := range []string{"x", "y"} { // and since this comes after it, so far is noted
		write(git, text)
		if m, err := gitHere.ReadMessage(); err != nil || string(m) != text {
			t.Fatalf("%q, %v", m, err)
		}
	}
	for !a.settled() {
		time.Sleep(time.Millisecond)
	}
	id, mine := got.Lasts()
	ourID, mineToo := ours.Lasts()
	if id == 0 || mine || ourID == 0 || ourID == id || !mineToo {
		t.Fatalf("they last as %x (ours: %t) and %x (ours: %t)", id, mine, ourID, mineToo)
	}

	keep.Close() // the process dies: what it does from here on, nobody sees
	keep, kept := process(t, held)
	if len(kept) != 1 {
		t.Fatalf("kept: %v", kept)
	}
	memory := asItIs(t, kept[0].Memory)
	kept[0].Memory.Close()
	kept[0].Memory = memory
	near.Close()
	a.end1(t)

	c, err := lasting.Restore(kept[0], func([]byte, net.Addr) (lasting.Config, error) { return lasting.Config{Keep: keep}, nil }, keep)
	if err != nil {
		t.Fatal(err)
	}
	a, restored := startLasting(t, c)
	all := []*Channel{<-restored, <-restored}
	slices.SortFunc(all, func(x, y *Channel) int { // the other side's first
		_, i := x.Lasts()
		_, j := y.Lasts()
		return cmp.Compare(fmt.Sprint(i), fmt.Sprint(j))
	})
	if x, _ := all[0].Lasts(); x != id {
		t.Errorf("theirs is %x now, was %x", x, id)
	}
	if x, _ := all[1].Lasts(); x != ourID {
		t.Errorf("ours is %x now, was %x", x, ourID)
	}
	next(all[0], "being acted upon", true, true)
	next(all[0], "not read", true, true)
	write(theirs, "new")
	next(all[0], "new", false, true)
	write(all[0], "answer")
	if m, err := theirs.ReadMessage(); err != nil || string(m) != "answer" {
		t.Errorf("%q, %v", m, err)
	}
	if _, err := git.ReadMessage(); !errors.Is(err, io.EOF) {
		t.Errorf("the channel of another kind ends with %v", err)
	}
	open(t, b, "git://y")
	<-a.taken
	open(t, a, "git://z")
	if !a.Beacon() || !b.Beacon() {
		t.Error("beacons are not known any more")
	}
	if err := all[1].Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case x := <-restored:
		t.Errorf("another channel: %s", x.Name())
	default:
	}
}
