package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many packets one system call reads.
const batch = 64

const (
	slotSize = 1600 // DTLS sends up to 1,200
	ctlSize  = 96   // packet info, time stamp, count of drops
)

// socket is the one socket of all legs.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	msgs [batch]mmsghdr
	iovs [batch]unix.Iovec
	bufs [batch][slotSize]byte
	ctls [batch][ctlSize]byte
	from [batch]unix.RawSockaddrInet4
	// dropped counts what found the buffer full since the socket was opened (SO_RXQ_OVFL).
	dropped uint32
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func newSocket() (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var serr error
		err := rc.Control(func(p uintptr) {
			fd := int(p)
			if serr = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1); serr != nil {
				return
			}
			if serr = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); serr != nil {
				return
			}
			if serr = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); serr != nil {
				return
			}
			// A burst to 20,000 listeners; without the privilege for FORCE as much as may be.
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) != nil {
				serr = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<20)
			}
		})
		if err != nil {
			return err
		}
		return serr
	}}
	c, err := lc.ListenPacket(context.Background(), "udp4", "0.0.0.0:0")
	if err != nil {
		return nil, fmt.Errorf("socket of the legs: %w", err)
	}
	s := &socket{conn: c.(*net.UDPConn)}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("socket of the legs: %w", err)
	}
	for i := range s.msgs {
		s.iovs[i].Base = &s.bufs[i][0]
		s.iovs[i].SetLen(slotSize)
		s.msgs[i].hdr.Iov = &s.iovs[i]
		s.msgs[i].hdr.SetIovlen(1)
		s.msgs[i].hdr.Control = &s.ctls[i][0]
		s.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&s.from[i]))
	}
	return s, nil
}

func (s *socket) port() int { return s.conn.LocalAddr().(*net.UDPAddr).Port }

// read waits for packets and calls fn for each with its source, its destination and its
// arrival in unix nanoseconds.
func (s *socket) read(fn func(from netip.AddrPort, to [4]byte, at int64, pkt []byte)) error {
	for i := range s.msgs {
		s.msgs[i].hdr.SetControllen(ctlSize)
		s.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet4
	}
	var n uintptr
	var errno unix.Errno
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&s.msgs[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		return errno != unix.EAGAIN && errno != unix.EINTR
	})
	if err != nil {
		return err
	}
	if errno == unix.ECONNREFUSED { // the node restarted: an ICMP of an earlier packet
		return nil
	}
	if errno != 0 {
		return errno
	}
	for i := range int(n) {
		to, at, dropped := control(s.ctls[i][:s.msgs[i].hdr.Controllen])
		s.dropped = max(s.dropped, dropped)
		from := netip.AddrPortFrom(netip.AddrFrom4(s.from[i].Addr), port(s.from[i].Port))
		fn(from, to, at, s.bufs[i][:min(s.msgs[i].len, slotSize)])
	}
	return nil
}

// port is a port as the kernel writes it, in the network's order.
func port(raw uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], raw)
	return binary.BigEndian.Uint16(b[:])
}

// control reads the destination, the time stamp and the count of drops (cmsg(3)).
func control(b []byte) (to [4]byte, at int64, dropped uint32) {
	for len(b) >= unix.SizeofCmsghdr {
		size := int(binary.NativeEndian.Uint64(b))
		level, kind := int32(binary.NativeEndian.Uint32(b[8:])), int32(binary.NativeEndian.Uint32(b[12:]))
		if size < unix.SizeofCmsghdr || size > len(b) {
			return to, at, dropped
		}
		data := b[unix.SizeofCmsghdr:size]
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			copy(to[:], data[8:12]) // ipi_addr
		case level == unix.SOL_SOCKET && kind == unix.SCM_TIMESTAMPNS && len(data) >= 16:
			at = int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
		case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(data) >= 4:
			dropped = binary.NativeEndian.Uint32(data)
		}
		if size = (size + 7) &^ 7; size > len(b) {
			return to, at, dropped
		}
		b = b[size:]
	}
	return to, at, dropped
}

// write sends from a leg's own address.
func (s *socket) write(pkt []byte, from netip.Addr, to netip.AddrPort) error {
	var oob [unix.SizeofCmsghdr + 16]byte
	binary.NativeEndian.PutUint64(oob[:], unix.SizeofCmsghdr+unix.SizeofInet4Pktinfo)
	binary.NativeEndian.PutUint32(oob[8:], unix.IPPROTO_IP)
	binary.NativeEndian.PutUint32(oob[12:], unix.IP_PKTINFO)
	a := from.As4()
	copy(oob[unix.SizeofCmsghdr+4:], a[:]) // ipi_spec_dst
	_, _, err := s.conn.WriteMsgUDPAddrPort(pkt, oob[:], to)
	return err
}
