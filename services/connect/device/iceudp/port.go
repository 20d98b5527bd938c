package iceudp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/stun"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/connect/device/ice"
)

// Bounds of datagrams.
const (
	maxDatagram = 8 << 10 // bytes; DTLS stays below 1,280
	maxSTUN     = 1280    // bytes; a check has some 130
	maxEarly    = 16      // datagrams of a path before this side knows that it is one
)

// strayEvery is how often the log tells of datagrams that belong to nothing.
const strayEvery = time.Second

// Options of a port.
type Options struct {
	// Public are addresses under which the port is reached from outside, beside the machine's.
	Public []netip.Addr
	// STUN are servers (HOST or HOST:PORT) that are asked under which address the port is seen.
	STUN []string
	// Loopback allows addresses of the machine itself, for tests.
	Loopback bool
	Log      *zap.Logger
	// Stray is told of each datagram that was refused; it may be nil.
	Stray func()
}

// Why a datagram is refused.
var (
	errUnknown = errors.New("a check for no connection that is awaited")
	errData    = errors.New("data of no connection")
	errSTUN    = errors.New("a STUN message that is none")
)

// owner is what a STUN message is for.
type owner interface {
	// heard takes a message that the port read. It does not wait.
	heard(m *stun.Message, from netip.AddrPort) error
}

// transaction is the id of a check.
type transaction = [stun.TransactionIDSize]byte

// Port is a UDP socket. It is safe for concurrent use.
type Port struct {
	conn  *net.UDPConn
	o     Options
	stuns *servers // the same of all ports that come of one
	done  chan struct{}
	wg    sync.WaitGroup // readers of others

	mu     sync.Mutex
	names  map[string]owner // by our ufrag
	asked  map[transaction]owner
	conns  map[netip.AddrPort]*Conn    // by the peer's address
	early  map[netip.AddrPort][][]byte // data from where a path was nominated, of which the answer is not treated yet
	others map[*Port]struct{}          // the sockets of connections that this side asks for
	mapped map[netip.AddrPort]netip.AddrPort
	closed bool
	stray  strays
}

// strays are the datagrams that the log has not told of.
type strays struct {
	n    int
	last time.Time
}

// NewPort serves a socket in Serve, and closes it.
func NewPort(conn *net.UDPConn, o Options) *Port {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return newPort(conn, o, &servers{names: o.STUN})
}

func newPort(conn *net.UDPConn, o Options, s *servers) *Port {
	return &Port{conn: conn, o: o, stuns: s, done: make(chan struct{}), names: map[string]owner{}, asked: map[transaction]owner{},
		conns: map[netip.AddrPort]*Conn{}, early: map[netip.AddrPort][][]byte{}, others: map[*Port]struct{}{}, mapped: map[netip.AddrPort]netip.AddrPort{}}
}

// Serve reads datagrams until ctx ends or the socket fails, and keeps asking the STUN servers.
func (p *Port) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		p.keepMapped(ctx)
	}()
	err := p.read()
	cancel()
	<-asking
	p.close()
	p.wg.Wait()
	return err
}

// read reads datagrams until the socket is closed.
func (p *Port) read() error {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			if err := p.take(buf[:n], from); err != nil {
				p.refuse(from, err)
			}
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("device connections: %w", err)
		default: // of one datagram: an error that the network told, or one that is too long
			p.o.Log.Debug("no datagram read", zap.Error(err))
		}
	}
}

// take gives a datagram to whom it is for.
func (p *Port) take(b []byte, from netip.AddrPort) error {
	m, err := message(b)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if m == nil {
		c := p.conns[from]
		if e, nominated := p.early[from]; c == nil && nominated && len(e) < maxEarly {
			p.early[from] = append(e, append([]byte(nil), b...))
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		if c == nil {
			return errData
		}
		c.put(b)
		return nil
	}
	var o owner
	switch m.Type {
	case stun.BindingRequest:
		local, _, err := ice.Username(m)
		if err != nil {
			p.mu.Unlock()
			return err
		}
		o = p.names[local]
	case stun.BindingSuccess, stun.BindingError:
		o = p.asked[m.TransactionID]
	default: // an indication, which asks for nothing
		p.mu.Unlock()
		return nil
	}
	p.mu.Unlock()
	switch {
	case o != nil:
		return o.heard(m, from)
	case m.Type == stun.BindingRequest:
		return errUnknown
	}
	return ice.ErrAnswer
}

// message reads a STUN message; nil: it is data. It keeps nothing of b.
func message(b []byte) (*stun.Message, error) {
	if len(b) < 20 || b[0]>>6 != 0 || !stun.IsMessage(b) {
		return nil, nil
	}
	if len(b) > maxSTUN {
		return nil, fmt.Errorf("%w: %d bytes", errSTUN, len(b))
	}
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if err := m.Decode(); err != nil {
		return nil, fmt.Errorf("%w: %w", errSTUN, err)
	}
	return m, nil
}

// refuse counts a datagram that belongs to nothing. The log tells of the first, and once in
// a while of those after it: there may be very many.
func (p *Port) refuse(from netip.AddrPort, why error) {
	if p.o.Stray != nil {
		p.o.Stray()
	}
	p.mu.Lock()
	p.stray.n++
	n := p.stray.n
	now := time.Now()
	if now.Sub(p.stray.last) < strayEvery {
		p.mu.Unlock()
		return
	}
	p.stray = strays{last: now}
	p.mu.Unlock()
	p.o.Log.Debug("datagram refused", zap.Stringer("from", from), zap.Int("datagrams", n), zap.Error(why))
}

// sibling is a port of its own with the same options, on a socket that the kernel chooses. Who
// uses it closes it; this one does at the latest.
func (p *Port) sibling() (*Port, error) {
	bound, _ := p.conn.LocalAddr().(*net.UDPAddr)
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: bound.IP, Zone: bound.Zone})
	if err != nil {
		return nil, fmt.Errorf("a socket for a device connection: %w", err)
	}
	o := p.o
	o.Public = nil // these lead to the port that is known
	s := newPort(c, o, p.stuns)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	p.others[s] = struct{}{}
	p.wg.Go(func() {
		_ = s.read() // it ends when the socket is closed, by whom is told elsewhere
		s.close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.others, s)
	})
	return s, nil
}

// close closes the socket and ends what uses it.
func (p *Port) close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	all, others := p.conns, slices.Collect(maps.Keys(p.others))
	p.conns = map[netip.AddrPort]*Conn{}
	p.mu.Unlock()
	close(p.done)
	p.conn.Close()
	for _, c := range all {
		c.end(net.ErrClosed)
	}
	for _, o := range others {
		o.close()
	}
}

// addr is where the socket is bound.
func (p *Port) addr() netip.AddrPort {
	u, ok := p.conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	a := u.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// send sends a datagram. One that the network does not take is lost, as any may be.
func (p *Port) send(b []byte, to netip.AddrPort) {
	_, _ = p.conn.WriteToUDPAddrPort(b, to) // see above
}

// expect keeps data from an address, or no more.
func (p *Port) expect(from netip.AddrPort, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.early[from] = nil
	} else {
		delete(p.early, from)
	}
}

// begin sends a check whose answer is o's.
func (p *Port) begin(m *stun.Message, o owner, to netip.AddrPort) {
	p.mu.Lock()
	p.asked[m.TransactionID] = o
	p.mu.Unlock()
	p.send(m.Raw, to)
}

// forget takes transactions out.
func (p *Port) forget(ids ...transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		delete(p.asked, id)
	}
}
