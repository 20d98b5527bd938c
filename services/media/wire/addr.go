package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockaddr is a socket address in the form in which one family of socket takes
// it, made once for a peer and copied for each packet. The zero value names
// nobody.
type Sockaddr struct {
	raw unix.RawSockaddrInet6 // large enough for both families
	len uint32
}

// Valid reports whether it names somebody.
func (s *Sockaddr) Valid() bool { return s.len != 0 }

// Socket is a UDP socket with what its system calls need to know of it. It is
// safe for concurrent use.
type Socket struct {
	conn *net.UDPConn
	rc   syscall.RawConn
	v6   bool
	addr netip.AddrPort
	via  func(b []byte, to netip.AddrPort) bool // instead of conn; nil: conn
}

// Via returns a socket of IPv4 whose datagrams send takes instead of the kernel, as those of a
// relay. send copies b and does not wait; false: it dropped it. Nothing is read from it.
func Via(addr netip.AddrPort, send func(b []byte, to netip.AddrPort) bool) *Socket {
	return &Socket{addr: addr, via: send}
}

// New wraps a UDP socket and owns it from here on.
func New(c *net.UDPConn) (*Socket, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("udp socket: %w", err)
	}
	s := &Socket{conn: c, rc: rc}
	var serr error
	err = rc.Control(func(fd uintptr) {
		var sa unix.Sockaddr
		sa, serr = unix.Getsockname(int(fd))
		_, s.v6 = sa.(*unix.SockaddrInet6)
	})
	if err == nil {
		err = serr
	}
	if err != nil {
		return nil, fmt.Errorf("udp socket: %w", err)
	}
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("udp socket: local address is %T", c.LocalAddr())
	}
	s.addr = netip.AddrPortFrom(local.AddrPort().Addr().Unmap(), local.AddrPort().Port())
	return s, nil
}

// Local returns the address that the socket is bound to.
func (s *Socket) Local() netip.AddrPort { return s.addr }

// Dual reports whether the socket reaches IPv6 (and, when bound to any address,
// IPv4 in mapped form).
func (s *Socket) Dual() bool { return s.v6 }

// Close closes the socket; reads that wait end.
func (s *Socket) Close() error {
	if s.via != nil {
		return nil // who sends closes
	}
	return s.conn.Close()
}

// Sockaddr converts ap for this socket; false when the socket's family cannot
// reach it.
func (s *Socket) Sockaddr(ap netip.AddrPort) (Sockaddr, bool) {
	var out Sockaddr
	a := ap.Addr()
	if !ap.IsValid() || ap.Port() == 0 {
		return out, false
	}
	if s.v6 {
		out.raw.Family = unix.AF_INET6
		out.raw.Addr = a.As16() // IPv4 becomes ::ffff:a.b.c.d
		putPort(&out.raw.Port, ap.Port())
		out.len = unix.SizeofSockaddrInet6
		return out, true
	}
	if !a.Unmap().Is4() {
		return out, false
	}
	v4 := out.v4()
	v4.Family = unix.AF_INET
	v4.Addr = a.Unmap().As4()
	putPort(&v4.Port, ap.Port())
	out.len = unix.SizeofSockaddrInet4
	return out, true
}

// addrPort reads an address that the kernel wrote; IPv4 in mapped form comes
// out as IPv4. Zones of link-local addresses are dropped: an answer to such a
// peer needs the interface, which SDP cannot name either.
func addrPort(raw *unix.RawSockaddrInet6) netip.AddrPort {
	switch raw.Family {
	case unix.AF_INET:
		v4 := (&Sockaddr{raw: *raw}).v4()
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), getPort(&v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr).Unmap(), getPort(&raw.Port))
	}
	return netip.AddrPort{}
}

// Ports stand in network order whatever the machine's order is.
func putPort(dst *uint16, port uint16) {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	*dst = binary.NativeEndian.Uint16(b[:])
}

func getPort(src *uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], *src)
	return binary.BigEndian.Uint16(b[:])
}
