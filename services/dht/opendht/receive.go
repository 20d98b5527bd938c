package opendht

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// staleAfter is how long a packet may wait in the socket before it is dropped: its sender
// has sent it again, or given up, and answering it all the same keeps a node that fell
// behind from catching up (§1.6).
const staleAfter = 650 * time.Millisecond

// absurd is an age that only a clock which was set can make.
const absurd = time.Minute

// oobSize is room for the time of arrival.
const oobSize = 64

// stampArrivals has the kernel say when each packet came.
func stampArrivals(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }); err != nil {
		return err
	}
	if serr != nil {
		return fmt.Errorf("time of arrival: %w", serr)
	}
	return nil
}

// arrival reads it; zero when it is not there.
func arrival(oob []byte) time.Time {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return time.Time{}
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS {
			switch len(data) {
			case 16:
				return time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
			case 8: // of a 32-bit system
				return time.Unix(int64(binary.NativeEndian.Uint32(data)), int64(binary.NativeEndian.Uint32(data[4:])))
			}
		}
		oob = rest
	}
	return time.Time{}
}

// stale reports whether a packet waited too long. Without a time of arrival, or with one
// that cannot be, it did not.
func stale(came, now time.Time) bool {
	age := now.Sub(came)
	return !came.IsZero() && age > staleAfter && age < absurd
}

// read hands packets to the core until its socket is closed. One system call takes one
// packet: recvmmsg(2) through golang.org/x/net costs as much for each, for it makes an
// address of every one (BenchmarkReceive).
func (n *Node) read(conn *net.UDPConn) {
	b, oob := make([]byte, wire.MaxPacket), make([]byte, oobSize)
	for {
		size, nOOB, _, from, err := conn.ReadMsgUDPAddrPort(b, oob)
		if err != nil {
			if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			n.log.Debug("packet not read", zap.Error(err)) // such as an ICMP error that came for an earlier packet
			continue
		}
		n.receive(arrival(oob[:nOOB]), from, b[:size])
	}
}

// receive takes one packet that came at a time.
func (n *Node) receive(came time.Time, from netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now() // the wait for mu counts
	if stale(came, now) {
		n.core.Stale()
		return
	}
	n.core.Handle(now, from, b)
	n.advanceLocked()
}
