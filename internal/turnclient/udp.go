package turnclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
	"go.uber.org/zap"
)

// MaxPacket is the longest datagram that is relayed, in bytes.
const MaxPacket = 1600

// maxQueue bounds the datagrams that wait to be sent, maxPermits the permissions that are asked
// for at once.
const (
	maxQueue   = 256
	maxPermits = 32
)

// UDP is a relay of datagrams. Its methods are safe for concurrent use.
type UDP struct {
	*allocation
	addr netip.AddrPort
	conn net.PacketConn
	log  *zap.Logger

	queue chan packet
	free  sync.Pool // *[MaxPacket]byte

	pmu     sync.Mutex
	permits map[netip.Addr]*permission
	asking  int
	closed  bool
}

// permission is that of an address.
type permission struct {
	granted, refused bool     // neither: it is asked for
	then             []func() // to call when it is granted
}

type packet struct {
	b  *[MaxPacket]byte
	n  int
	to netip.AddrPort
}

// UDP allocates a relay of datagrams, of IPv4. The caller closes it.
func (c *Client) UDP(ctx context.Context) (*UDP, error) {
	u := &UDP{log: c.cfg.Log, queue: make(chan packet, maxQueue), permits: map[netip.Addr]*permission{}}
	u.free.New = func() any { return new([MaxPacket]byte) }
	var err error
	u.allocation, err = c.open(ctx, false, func(ctx context.Context, cl *turn.Client, _ server) error {
		conn, err := cl.AllocateWithContext(ctx)
		if err != nil {
			return err
		}
		u.conn, u.addr = conn, addrPortOf(conn.LocalAddr())
		if !u.addr.Addr().Is4() {
			return errors.Join(errV4, conn.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	u.wg.Go(u.write)
	return u, nil
}

// Addr is where the relay is reached.
func (u *UDP) Addr() netip.AddrPort { return u.addr }

// Close ends the relay and waits for what runs.
func (u *UDP) Close() {
	u.pmu.Lock()
	u.closed = true
	u.pmu.Unlock()
	u.end(u.conn.Close)
}

// ReadFrom waits for a datagram. An error means that the relay was closed.
func (u *UDP) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	n, from, err := u.conn.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, addrPortOf(from), nil
}

// Send sends a datagram to an address that was let in. It copies b and never waits: what the way
// to the server does not take is dropped, which false says.
func (u *UDP) Send(b []byte, to netip.AddrPort) bool {
	u.pmu.Lock()
	p := u.permits[to.Addr().Unmap()]
	ok := p != nil && p.granted
	u.pmu.Unlock()
	if !ok || len(b) > MaxPacket {
		return false
	}
	buf, _ := u.free.Get().(*[MaxPacket]byte)
	select {
	case u.queue <- packet{buf, copy(buf[:], b), to}:
		return true
	default:
		u.free.Put(buf)
		return false
	}
}

func (u *UDP) write() {
	for {
		select {
		case <-u.lost:
			return
		case <-u.stop:
			return
		case p := <-u.queue:
			if _, err := u.conn.WriteTo(p.b[:p.n], net.UDPAddrFromAddrPort(p.to)); err != nil {
				u.log.Debug("not relayed", zap.Stringer("to", p.to), zap.Error(err))
			}
			u.free.Put(p.b)
		}
	}
}

// Permit lets datagrams of an address in, and those to it out, and calls done, from another
// goroutine, once that is so. A server may refuse: done is not called then, nor when more are
// asked for at once than a server has to bear.
func (u *UDP) Permit(to netip.AddrPort, done func()) {
	ip := to.Addr().Unmap()
	u.pmu.Lock()
	defer u.pmu.Unlock()
	p := u.permits[ip]
	switch {
	case !ip.Is4(), u.closed, p != nil && p.refused:
	case p == nil && u.asking < maxPermits:
		u.permits[ip] = &permission{then: []func(){done}}
		u.asking++
		u.wg.Go(func() { u.ask(to) })
	case p == nil:
	case p.granted:
		u.wg.Go(done)
	case len(p.then) < maxPermits:
		p.then = append(p.then, done)
	}
}

// ask sends something that has no effect: pion asks for the permission before, and goes on
// asking as long as the relay is there.
func (u *UDP) ask(to netip.AddrPort) {
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.Fingerprint)
	if err == nil {
		_, err = u.conn.WriteTo(m.Raw, net.UDPAddrFromAddrPort(to))
	}
	ip := to.Addr().Unmap()
	u.pmu.Lock()
	u.asking--
	p := u.permits[ip]
	then := p.then
	p.then = nil
	var refused *stun.TurnError
	switch {
	case err == nil:
		p.granted = true
	case errors.As(err, &refused):
		p.refused = true
	default:
		delete(u.permits, ip) // no answer: it may be asked for again
	}
	u.pmu.Unlock()
	if err != nil {
		u.log.Debug("an address is not let in by the relay", zap.Stringer("address", ip), zap.Error(err))
		return
	}
	for _, done := range then {
		done()
	}
}
