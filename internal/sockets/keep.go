package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxKept bounds what a supervisor keeps for one child.
const MaxKept = 4096

// keeping is the name by which a child finds the socket to its keeper.
const keeping = "keep"

// What is said on that socket, with the number of what it is about. The supervisor says what it has,
// and then that this was all; the child, from then on, what to keep and what to drop.
const (
	sayKept = '+' // with two files
	sayDrop = '-'
	sayAll  = '.'

	messageSize = 1 + 8
)

// ErrKept says that no more is kept.
var ErrKept = fmt.Errorf("%d connections are kept for the next process, and no more", MaxKept)

// keeper is the supervisor's side: it has files of a child for the child's successor, and knows nothing
// of what they are. One goroutine at a time uses it: that which starts and awaits the child, or, while the child
// runs, serve.
type keeper struct {
	held map[uint64][2]int // descriptors
	ours *net.UnixConn     // nil: no child was started yet
	end  chan struct{}     // closed when serve has ended
}

// Keep has the set keep connections of a child for its successor, as [OpenKeep] has it.
func (s *Set) Keep() { s.keep = &keeper{held: map[uint64][2]int{}} }

// next returns the child's end of a new connection to the keeper.
func (k *keeper) next() (*os.File, error) {
	k.stop()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keeper of connections: %w", err)
	}
	theirs, f := os.NewFile(uintptr(fds[1]), keeping), os.NewFile(uintptr(fds[0]), keeping)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("keeper of connections: %w", err)
	}
	k.ours, k.end = c.(*net.UnixConn), make(chan struct{})
	go k.serve()
	return theirs, nil
}

// stopTime is for what a child said before it died. The end follows at once, unless something else has its
// socket.
const stopTime = time.Second

// stop takes what the last child said.
func (k *keeper) stop() {
	if k.ours == nil {
		return
	}
	now := time.Now()
	err := errors.Join(k.ours.SetWriteDeadline(now), k.ours.SetReadDeadline(now.Add(stopTime)))
	if err != nil {
		k.ours.Close()
	}
	<-k.end
	k.ours = nil
}

// serve tells a child what there is, and then does what it says until it ends.
func (k *keeper) serve() {
	defer close(k.end)
	defer k.ours.Close()
	for id, fds := range k.held {
		if say(k.ours, sayKept, id, fds[:]...) != nil {
			return // it is dead
		}
	}
	if say(k.ours, sayAll, 0) != nil {
		return
	}
	for {
		op, id, fds, err := hear(k.ours)
		if err != nil {
			return
		}
		old, had := k.held[id]
		switch {
		case op == sayKept && len(fds) == 2 && !had && len(k.held) < MaxKept:
			k.held[id] = [2]int{fds[0], fds[1]}
			continue
		case op == sayDrop && had:
			delete(k.held, id)
			closeFDs(old[:])
		}
		closeFDs(fds)
	}
}

func (k *keeper) close() {
	k.stop()
	for id, fds := range k.held {
		closeFDs(fds[:])
		delete(k.held, id)
	}
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd) //nolint:errcheck // it is gone either way
	}
}

func say(c *net.UnixConn, op byte, id uint64, fds ...int) error {
	b := binary.BigEndian.AppendUint64([]byte{op}, id)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix(b, rights, nil)
	return err
}

// hear reads one message. The descriptors are the caller's.
func hear(c *net.UnixConn) (op byte, id uint64, fds []int, err error) {
	b, oob := make([]byte, messageSize), make([]byte, unix.CmsgSpace(4*4))
	n, m, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return 0, 0, nil, err
	}
	all, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil {
		return 0, 0, nil, err
	}
	for i := range all {
		if got, err := unix.ParseUnixRights(&all[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	if n != messageSize {
		closeFDs(fds)
		return 0, 0, nil, errors.New("the other end of the keeper of connections is gone")
	}
	return b[0], binary.BigEndian.Uint64(b[1:]), fds, nil
}

// Keep is the child's side of what its supervisor keeps for its successor. It is safe for concurrent use.
type Keep struct {
	mu sync.Mutex
	c  *net.UnixConn
	n  int
}

// Kept is what the last process had kept: a connection, and the memory that goes with it.
type Kept struct {
	ID           uint64
	Conn, Memory *os.File
}

// OpenKeep returns what the last process had kept, whose files are the caller's. The Keep is nil where
// there is no supervisor that keeps anything.
func OpenKeep() (*Keep, []Kept, error) {
	f := inherited(keeping)
	if f == nil {
		return nil, nil, nil
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, nil, fmt.Errorf("keeper of connections: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, nil, errors.New("keeper of connections: not a Unix socket")
	}
	var out []Kept
	for {
		op, id, fds, err := hear(u)
		switch {
		case err != nil:
			for _, x := range out {
				x.Conn.Close()
				x.Memory.Close()
			}
			return nil, nil, errors.Join(fmt.Errorf("keeper of connections: %w", err), u.Close())
		case op == sayAll:
			return &Keep{c: u, n: len(out)}, out, nil
		case op == sayKept && len(fds) == 2:
			out = append(out, Kept{id, os.NewFile(uintptr(fds[0]), "kept connection"), os.NewFile(uintptr(fds[1]), "kept memory")})
		default:
			closeFDs(fds)
		}
	}
}

// Hold has a connection and its memory kept. The error may be [ErrKept].
func (k *Keep) Hold(id uint64, conn syscall.Conn, memory *os.File) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n >= MaxKept {
		return ErrKept
	}
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	mc, err := memory.SyscallConn()
	if err != nil {
		return err
	}
	var said error
	err = rc.Control(func(fd uintptr) {
		if err := mc.Control(func(mem uintptr) { said = say(k.c, sayKept, id, int(fd), int(mem)) }); err != nil {
			said = err
		}
	})
	if err = errors.Join(err, said); err != nil {
		return fmt.Errorf("keeper of connections: %w", err)
	}
	k.n++
	return nil
}

// Drop has a connection kept no longer, of those that were held or found.
func (k *Keep) Drop(id uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n--
	if err := say(k.c, sayDrop, id); err != nil {
		return fmt.Errorf("keeper of connections: %w", err)
	}
	return nil
}

// Close has nothing kept or dropped any more.
func (k *Keep) Close() error { return k.c.Close() }
