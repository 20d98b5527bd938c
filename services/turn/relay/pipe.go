package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// pipe is what all sockets of one allocation share: its bandwidth in each direction
// and what went through.
type pipe struct {
	up, down  *rate.Limiter // from the client, to it; bytes
	upBytes   atomic.Uint64
	downBytes atomic.Uint64
	dropped   atomic.Uint64 // packets above the bandwidth
	forbidden atomic.Uint64 // packets and connections to where nothing is relayed
	peers     *Peers
	m         *Metrics
	close     func() error // of the relay's own socket
}

// burst is how many bytes may come at once: a tenth of a second, and no less than the
// largest chunk that is read.
const (
	burstPart = 10
	burstMin  = 64 << 10
)

func newPipe(bytesPerSec int, peers *Peers, m *Metrics) *pipe {
	b := max(bytesPerSec/burstPart, burstMin)
	return &pipe{up: rate.NewLimiter(rate.Limit(bytesPerSec), b), down: rate.NewLimiter(rate.Limit(bytesPerSec), b), peers: peers, m: m}
}

// packetRelay is the socket of a UDP allocation. What is above the bandwidth is
// dropped, as on any line.
type packetRelay struct {
	*net.UDPConn
	*pipe
	free func() // gives the port back
	once sync.Once
}

var errPeer = errors.New("nothing is relayed to this peer")

// WriteTo sends to a peer; what is dropped for the bandwidth counts as sent.
func (r *packetRelay) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errPeer
	}
	at := u.AddrPort()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !r.peers.Port(at, true) {
		r.forbidden.Add(1)
		r.m.forbidden.Inc()
		return 0, errPeer
	}
	if !r.up.AllowN(time.Now(), len(b)) {
		r.dropped.Add(1)
		r.m.dropped.Inc()
		return len(b), nil
	}
	n, err := r.WriteToUDPAddrPort(b, at)
	r.upBytes.Add(uint64(n))
	r.m.up.Add(float64(n))
	return n, err
}

// ReadFrom takes the next packet of a peer that is within the bandwidth.
func (r *packetRelay) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := r.UDPConn.ReadFromUDPAddrPort(b)
		if err != nil {
			if passing(err) {
				continue
			}
			return 0, nil, err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if !r.peers.Port(from, true) {
			r.forbidden.Add(1)
			r.m.forbidden.Inc()
			continue
		}
		if !r.down.AllowN(time.Now(), n) {
			r.dropped.Add(1)
			r.m.dropped.Inc()
			continue
		}
		r.downBytes.Add(uint64(n))
		r.m.down.Add(float64(n))
		return n, net.UDPAddrFromAddrPort(from), nil
	}
}

// Close closes the socket; the port is free then.
func (r *packetRelay) Close() error {
	err := r.UDPConn.Close()
	r.once.Do(r.free)
	return err
}

// passing reports whether a UDP socket goes on after an error: what the network said
// about something that was sent before, or a shortage.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EMSGSIZE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// listenRelay is the listener of a TCP allocation (RFC 6062 §4).
type listenRelay struct {
	net.Listener
	*pipe
	free func()
	once sync.Once

	mu    sync.Mutex
	conns map[*streamRelay]struct{}
}

// connsMax bounds the peers of one TCP allocation; stock Jami has one for each
// connection that is being made.
const connsMax = 64

// Accept returns the next peer that may come.
func (r *listenRelay) Accept() (net.Conn, error) {
	for {
		c, err := r.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if s := r.add(c); s != nil {
			return s, nil
		}
		c.Close() // an error: it was closed already
	}
}

// add returns c as one of the allocation's connections; nil: it can't be.
func (r *listenRelay) add(c net.Conn) *streamRelay {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil || !r.peers.Address(at.Addr()) {
		r.forbidden.Add(1)
		r.m.forbidden.Inc()
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil || len(r.conns) >= connsMax {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background()) // ends with the connection
	s := &streamRelay{Conn: c, pipe: r.pipe, ctx: ctx, cancel: cancel, of: r}
	r.conns[s] = struct{}{}
	return s
}

// dial connects from the relayed address to a peer (RFC 6062 §5.2).
func (r *listenRelay) dial(d *net.Dialer, network string, to net.Addr) (net.Conn, error) {
	at, err := netip.ParseAddrPort(to.String())
	if err != nil || !r.peers.Port(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), false) {
		r.forbidden.Add(1)
		r.m.forbidden.Inc()
		return nil, fmt.Errorf("%w: %s", errPeer, to)
	}
	c, err := d.Dial(network, to.String())
	if err != nil {
		return nil, err
	}
	if s := r.add(c); s != nil {
		return s, nil
	}
	return nil, errors.Join(errors.New("too many connections of this allocation"), c.Close())
}

// Close ends the allocation's connections too.
func (r *listenRelay) Close() error {
	err := r.Listener.Close()
	r.mu.Lock()
	conns := r.conns
	r.conns = nil
	r.mu.Unlock()
	for s := range conns {
		s.Close() // an error: its peer was faster
	}
	r.once.Do(r.free)
	return err
}

// streamRelay is a connection with a peer. What is above the bandwidth waits.
type streamRelay struct {
	net.Conn
	*pipe
	ctx    context.Context // a connection has no other owner; ends with it
	cancel context.CancelFunc
	of     *listenRelay
}

// chunk is the most that is passed on at once; a limiter cannot take more than its burst.
const chunk = 32 << 10

func (s *streamRelay) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b[:min(len(b), chunk)])
	s.downBytes.Add(uint64(n))
	s.m.down.Add(float64(n))
	if werr := s.down.WaitN(s.ctx, n); err == nil {
		err = werr
	}
	return n, err
}

func (s *streamRelay) Write(b []byte) (int, error) {
	done := 0
	for len(b) > 0 {
		part := b[:min(len(b), chunk)]
		if err := s.up.WaitN(s.ctx, len(part)); err != nil {
			return done, err
		}
		if err := s.Conn.SetWriteDeadline(time.Now().Add(stuckFor)); err != nil {
			return done, err
		}
		n, err := s.Conn.Write(part)
		done += n
		s.upBytes.Add(uint64(n))
		s.m.up.Add(float64(n))
		if err != nil {
			return done, err
		}
		b = b[n:]
	}
	return done, nil
}

func (s *streamRelay) Close() error {
	s.cancel()
	s.of.mu.Lock()
	delete(s.of.conns, s)
	s.of.mu.Unlock()
	return s.Conn.Close()
}
