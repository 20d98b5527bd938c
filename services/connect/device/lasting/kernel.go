package lasting

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// established is the state of a TCP connection of which neither end has closed (include/net/tcp_states.h).
const established = 1

// errEnded says that the peer has closed the connection.
var errEnded = errors.New("the device has ended the connection")

// positions are how many bytes the process has read from a TCP connection, and written to it, as the
// kernel counts; each from a beginning of its own.
func positions(c syscall.Conn) (read, written uint64, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var kerr error
	err = rc.Control(func(p uintptr) { read, written, kerr = counted(int(p)) })
	return read, written, errors.Join(err, kerr)
}

// counted asks until nothing arrives in between.
func counted(fd int) (read, written uint64, err error) {
	for range 1000 {
		before, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, 0, fmt.Errorf("state of a connection: %w", err)
		}
		if before.State != established {
			return 0, 0, errEnded
		}
		unread, err1 := unix.IoctlGetInt(fd, unix.SIOCINQ)
		unacked, err2 := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		after, err3 := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err := errors.Join(err1, err2, err3); err != nil {
			return 0, 0, fmt.Errorf("state of a connection: %w", err)
		}
		if before.Bytes_received == after.Bytes_received && before.Bytes_acked == after.Bytes_acked && after.State == established {
			return after.Bytes_received - uint64(unread), after.Bytes_acked + uint64(unacked), nil
		}
	}
	return 0, 0, errors.New("state of a connection: it does not rest")
}
