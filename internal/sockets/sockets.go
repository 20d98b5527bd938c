// Package sockets lets a supervisor hold listening sockets for its children, so
// that they stay open, and keep what arrives, while a child is started again.
//
// The supervisor opens a [Set] and hands its files down; a child calls [UDP]
// and [TCP], which take the inherited socket of that name or, where there is
// none (a container, a single process), open one.
package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Env names the inherited sockets for a child: "name=fd,name=fd".
const Env = "PARLEY_SOCKETS"

// firstFD is the first descriptor of exec.Cmd.ExtraFiles.
const firstFD = 3

// Spec is a socket to hold. Network is "udp" or "tcp"; Setting is the
// configuration key of Addr, for the message when the address cannot be had.
type Spec struct{ Name, Network, Addr, Setting string }

// Set is what a supervisor holds for one child.
type Set struct {
	names []string
	files []*os.File
	keep  *keeper // nil: nothing but these
}

// Open opens every socket; on an error those already open are closed. The error
// names the address.
func Open(specs []Spec) (*Set, error) {
	s := new(Set)
	for _, sp := range specs {
		f, err := open(sp)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.names = append(s.names, sp.Name)
		s.files = append(s.files, f)
	}
	return s, nil
}

func open(sp Spec) (*os.File, error) {
	switch sp.Network {
	case "udp":
		c, err := listenUDP(sp.Addr)
		if err != nil {
			return nil, sp.explain(err)
		}
		defer c.Close()
		return unwatched(c, sp.Name)
	case "tcp":
		l, err := net.Listen("tcp", sp.Addr)
		if err != nil {
			return nil, sp.explain(err)
		}
		defer l.Close()
		return unwatched(l.(*net.TCPListener), sp.Name)
	}
	return nil, fmt.Errorf("socket %s: network %q", sp.Name, sp.Network)
}

// unwatched returns a socket as a file of which Go's poller knows nothing: whoever holds a socket in it
// is woken by each packet that others send or get there. A descriptor that blocks is left alone
// by it; who inherits one makes it non-blocking again.
func unwatched(c syscall.Conn, name string) (*os.File, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", name, err)
	}
	var fd int
	var derr error
	if err := rc.Control(func(p uintptr) { fd, derr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, fmt.Errorf("socket %s: %w", name, err)
	}
	if derr == nil {
		derr = unix.SetNonblock(fd, false)
	}
	if derr != nil {
		return nil, fmt.Errorf("socket %s: %w", name, derr)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Probe opens and closes each of specs, to find what is taken.
func Probe(specs []Spec) error {
	s, err := Open(specs)
	if err != nil {
		return err
	}
	s.Close()
	return nil
}

// Listen opens a TCP listener for the caller itself, with the same errors as
// [Open].
func Listen(sp Spec) (net.Listener, error) {
	l, err := net.Listen("tcp", sp.Addr)
	if err != nil {
		return nil, sp.explain(err)
	}
	return l, nil
}

// explain says what to do about an address that cannot be had.
func (sp Spec) explain(err error) error {
	setting := sp.Setting
	if setting == "" {
		setting = "socket " + sp.Name
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: %s %s is in use by another program; stop it, or set %s to another address: %w", setting, sp.Network, sp.Addr, setting, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %s %s needs a right that this user does not have; set %s to a port above 1023: %w", setting, sp.Network, sp.Addr, setting, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s %s is not an address of this machine; set %s to one that is: %w", setting, sp.Network, sp.Addr, setting, err)
	}
	return fmt.Errorf("%s: %s %s: %w", setting, sp.Network, sp.Addr, err)
}

// Files returns the files for exec.Cmd.ExtraFiles and the entry for its Env. It is called once for each
// start of a child, after the one before has ended; started is called when the child has them.
func (s *Set) Files() (files []*os.File, env string, started func(), err error) {
	started = func() {}
	if s == nil {
		return nil, Env + "=", started, nil
	}
	parts := make([]string, len(s.names))
	for i, n := range s.names {
		parts[i] = n + "=" + strconv.Itoa(firstFD+i)
	}
	files = s.files
	if s.keep != nil {
		theirs, err := s.keep.next()
		if err != nil {
			return nil, "", nil, err
		}
		started = func() { theirs.Close() }
		parts = append(parts, keeping+"="+strconv.Itoa(firstFD+len(files)))
		files = append(slices.Clone(files), theirs)
	}
	return files, Env + "=" + strings.Join(parts, ","), started, nil
}

// Close closes the supervisor's copies.
func (s *Set) Close() {
	if s.keep != nil {
		s.keep.close()
	}
	for _, f := range s.files {
		f.Close()
	}
}

// inherited returns the socket of that name, or nil.
func inherited(name string) *os.File {
	for _, part := range strings.Split(os.Getenv(Env), ",") {
		n, fd, ok := strings.Cut(part, "=")
		if !ok || n != name {
			continue
		}
		i, err := strconv.Atoi(fd)
		if err != nil || i < firstFD {
			return nil
		}
		return os.NewFile(uintptr(i), name)
	}
	return nil
}

// UDP returns the inherited socket or listens on addr.
func UDP(name, addr string) (*net.UDPConn, error) {
	f := inherited(name)
	if f == nil {
		c, err := listenUDP(addr)
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", name, err)
		}
		return c, nil
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket %s: %w", name, err)
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("inherited socket %s is not UDP", name)
	}
	return u, nil
}

// TCP returns the inherited listener or listens on addr.
func TCP(name, addr string) (net.Listener, error) {
	f := inherited(name)
	if f == nil {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", name, err)
		}
		return l, nil
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket %s: %w", name, err)
	}
	return l, nil
}

// Buffer is what a UDP socket asks for in each direction: a burst of a large room.
const Buffer = 4 << 20

// Buffers returns what the kernel gave c.
func Buffers(c *net.UDPConn) (receive, send int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var rerr, serr error
	err = rc.Control(func(fd uintptr) {
		receive, rerr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		send, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return receive / 2, send / 2, errors.Join(err, rerr, serr) // Linux tells the double (socket(7))
}

// listenUDP asks for [Buffer].
func listenUDP(addr string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var serr error
		err := rc.Control(func(fd uintptr) {
			for _, o := range []struct{ force, plain int }{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
				if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o.force, Buffer) != nil {
					if e := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o.plain, Buffer); e != nil {
						serr = e
					}
				}
			}
		})
		if err != nil {
			return err
		}
		return serr
	}}
	c, err := lc.ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}
