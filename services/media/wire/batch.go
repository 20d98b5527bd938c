// Package wire moves datagrams between UDP sockets and fixed slots of memory,
// many with one system call, and tells what a datagram is. It knows bytes and
// sockets; it has no goroutine, no clock and no log, and it does not allocate
// once its batches are made.
package wire

import (
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SlotSize is the largest datagram taken or sent. Audio stays far below the
// usual MTU of 1,500; what is larger is junk.
const SlotSize = 1600

// ReadBatch and SendBatch are how many datagrams one system call moves: the
// gain per datagram is small beyond.
const (
	ReadBatch = 32
	SendBatch = 64
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// v4 views the address as the kernel's IPv4 form, which is shorter.
func (s *Sockaddr) v4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)) //nolint:gosec // both forms start alike and v6 is longer
}

// Reader reads batches of one socket. It belongs to one goroutine.
type Reader struct {
	sock  *Socket
	msgs  [ReadBatch]mmsghdr
	iovs  [ReadBatch]unix.Iovec
	names [ReadBatch]unix.RawSockaddrInet6
	bufs  []byte
	n     int
	errno unix.Errno
	read  func(fd uintptr) bool
	drain func(fd uintptr) bool
}

// NewReader makes the slots for reading s.
func NewReader(s *Socket) *Reader {
	r := &Reader{sock: s, bufs: make([]byte, ReadBatch*SlotSize)}
	for i := range r.msgs {
		r.iovs[i].Base = &r.bufs[i*SlotSize]
		r.iovs[i].SetLen(SlotSize)
		r.msgs[i].hdr.Iov = &r.iovs[i]
		r.msgs[i].hdr.SetIovlen(1)
		r.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	r.read = func(fd uintptr) bool {
		r.recv(fd)
		return r.errno != unix.EAGAIN
	}
	r.drain = func(fd uintptr) bool {
		r.recv(fd)
		return true
	}
	return r
}

func (r *Reader) recv(fd uintptr) {
	for i := range r.msgs {
		r.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.msgs[i].hdr.Flags = 0
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), ReadBatch, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		r.n, r.errno = int(n), errno
		if errno != 0 {
			r.n = 0
		}
		return
	}
}

// Read waits until something is there and returns how many datagrams were read;
// [Reader.Packet] gives them until the next Read. An error means that the socket
// was closed; errors that a stranger's ICMP can cause are passed over.
func (r *Reader) Read() (int, error) {
	for {
		if err := r.sock.rc.Read(r.read); err != nil {
			return 0, err
		}
		switch r.errno {
		case 0:
			return r.n, nil
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENOBUFS, unix.ENOMEM:
			continue
		default:
			return 0, r.errno
		}
	}
}

// Drain throws away what waits in the socket now, at most max datagrams, and
// returns how many that were.
func (r *Reader) Drain(max int) (int, error) {
	total := 0
	for total < max {
		if err := r.sock.rc.Read(r.drain); err != nil {
			return total, err
		}
		if r.n == 0 {
			return total, nil
		}
		total += r.n
	}
	return total, nil
}

// Packet returns the bytes and the sender of datagram i; ok is false when it
// did not fit a slot.
func (r *Reader) Packet(i int) (pkt []byte, from netip.AddrPort, ok bool) {
	m := &r.msgs[i]
	if m.hdr.Flags&unix.MSG_TRUNC != 0 {
		return nil, addrPort(&r.names[i]), false
	}
	off := i * SlotSize
	return r.bufs[off : off+int(m.len) : off+SlotSize], addrPort(&r.names[i]), true
}

// Writer gathers datagrams for one socket. It belongs to one goroutine.
type Writer struct {
	sock  *Socket
	msgs  [SendBatch]mmsghdr
	iovs  [SendBatch]unix.Iovec
	names [SendBatch]unix.RawSockaddrInet6
	bufs  []byte
	n     int
	sent  int
	bad   int
	write func(fd uintptr) bool

	// Sent and Dropped count datagrams since the start; Dropped are those that
	// the kernel refused (buffer full, no route).
	Sent, Dropped uint64
}

// NewWriter makes the slots for sending through s.
func NewWriter(s *Socket) *Writer {
	w := &Writer{sock: s, bufs: make([]byte, SendBatch*SlotSize)}
	for i := range w.msgs {
		w.iovs[i].Base = &w.bufs[i*SlotSize]
		w.msgs[i].hdr.Iov = &w.iovs[i]
		w.msgs[i].hdr.SetIovlen(1)
		w.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&w.names[i]))
	}
	w.write = w.send
	return w
}

// Slot returns the memory for the next datagram, of length SlotSize. It sends
// what is queued first when there is no free slot.
func (w *Writer) Slot() []byte {
	if w.n == SendBatch {
		w.Flush()
	}
	off := w.n * SlotSize
	return w.bufs[off : off+SlotSize : off+SlotSize]
}

// Queue takes the first n bytes of the slot that Slot returned last for to.
func (w *Writer) Queue(n int, to *Sockaddr) {
	if n > SlotSize || !to.Valid() {
		return
	}
	i := w.n
	w.names[i] = to.raw
	w.msgs[i].hdr.Namelen = to.len
	w.iovs[i].SetLen(n)
	w.n++
}

// Flush sends what is queued. It never waits: what the kernel does not take at
// once is dropped and counted, as late audio is of no use.
func (w *Writer) Flush() {
	if w.n == 0 {
		return
	}
	w.sent, w.bad = 0, 0
	if w.sock.via != nil {
		w.hand()
	} else if err := w.sock.rc.Write(w.write); err != nil {
		w.bad = w.n - w.sent
	}
	w.Sent += uint64(w.sent)
	w.Dropped += uint64(w.bad)
	w.n = 0
}

// hand gives what is queued to who sends for the socket.
func (w *Writer) hand() {
	for i := range w.n {
		off := i * SlotSize
		if w.sock.via(w.bufs[off:off+int(w.iovs[i].Len)], addrPort(&w.names[i])) {
			w.sent++
		} else {
			w.bad++
		}
	}
}

// send goes to the kernel without telling Go's scheduler, as the call cannot wait: what it
// takes, some 0.2 ms, is work, and the processor would be given away in the midst of a tick.
func (w *Writer) send(fd uintptr) bool {
	at := 0
	for at < w.n {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.msgs[at])), uintptr(w.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errors.Is(errno, unix.EAGAIN), errno == unix.ENOBUFS:
			w.bad += w.n - at
			return true
		case errno != 0: // the first one is refused; the others may go
			w.bad++
			at++
		default:
			w.sent += int(n)
			at += int(n)
		}
	}
	return true
}
