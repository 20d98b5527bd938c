package turnclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/turn/v5"
	"go.uber.org/zap"

	credentials "github.com/parley-jami/parley/internal/turn"
)

// acceptors is how many connections of peers are taken at the same time, which needs a
// connection to the server for each.
const acceptors = 8

// TCP is a relay of connections (RFC 6062). Its methods are safe for concurrent use.
type TCP struct {
	*allocation
	addr     netip.AddrPort
	c        *Client
	at       credentials.Endpoint
	accept   func(net.Conn) (net.Conn, error) // waits for a peer, and has the connection be its
	deadline func(time.Time) error
	closing  func() error
}

// TCP allocates a relay of connections, of IPv4. The caller closes it.
func (c *Client) TCP(ctx context.Context) (*TCP, error) {
	t := &TCP{c: c}
	var err error
	t.allocation, err = c.open(ctx, true, func(ctx context.Context, cl *turn.Client, s server) error {
		a, err := cl.AllocateTCPWithContext(ctx)
		if err != nil {
			return err
		}
		t.at, t.addr, t.deadline, t.closing = s.at, addrPortOf(a.Addr()), a.SetDeadline, a.Close
		t.accept = func(conn net.Conn) (net.Conn, error) {
			p, err := a.AcceptTCPWithConn(conn)
			if err != nil {
				return nil, err // p is no nil of the interface
			}
			return p, nil
		}
		if !t.addr.Addr().Is4() {
			return errors.Join(errV4, a.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Addr is where the relay is reached.
func (t *TCP) Addr() netip.AddrPort { return t.addr }

// Close ends the relay, and with it all connections that go through it.
func (t *TCP) Close() {
	done, over := make(chan struct{}), make(chan struct{})
	go func() { // pion stops reading where nobody takes what peers want
		defer close(over)
		for l := (&late{t: t, shut: true}); ; {
			select {
			case <-done:
				return
			default:
				_, _ = t.accept(l) // empties the queue until done: what comes or fails now is wanted by nobody
			}
		}
	}()
	t.end(t.closing)
	close(done)
	for waits := true; waits; {
		_ = t.deadline(time.Now()) // only ever nil
		select {
		case <-over:
			waits = false
		case <-time.After(time.Millisecond): // another took it
		}
	}
}

// Permit lets connections of addresses in for some minutes: those that are there stay. Each is
// asked for by itself, all at once: a server may refuse some.
func (t *TCP) Permit(ips []netip.Addr) (refused error) {
	errs := make([]error, len(ips))
	var wg sync.WaitGroup
	for i, ip := range ips {
		if ip = ip.Unmap(); !ip.Is4() {
			continue
		}
		wg.Go(func() {
			if err := t.permit(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 9))); err != nil {
				errs[i] = fmt.Errorf("%s: %w", ip, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Serve gives each connection of a peer to take until the relay is lost or closed. What take
// gets has the peer's address for its far end.
func (t *TCP) Serve(take func(net.Conn)) {
	left := make(chan struct{})
	for range acceptors {
		go func() {
			for !t.gone() {
				if conn, err := t.next(); err == nil {
					take(conn)
				} else if !t.gone() {
					t.c.cfg.Log.Debug("a connection to the relay did not come through", zap.Error(err))
				}
			}
			left <- struct{}{}
		}()
	}
	select {
	case <-t.lost:
	case <-t.stop:
	}
	for range acceptors {
		_ = t.deadline(time.Now()) // wakes one who waits; the error is only ever nil
		<-left
	}
}

// next waits for a peer.
func (t *TCP) next() (net.Conn, error) {
	l := &late{t: t}
	conn, err := t.accept(l)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return conn, nil
}

// bindWithin bounds the way from a peer's attempt to its connection.
const bindWithin = 10 * time.Second

// late is a connection to the server that is opened when something is to be sent: pion wants
// it before a peer has come, but the server would not keep one that says nothing.
type late struct {
	t    *TCP
	once sync.Once
	mu   sync.Mutex
	conn net.Conn // nil: not opened
	err  error
	shut bool
}

func (l *late) get() (net.Conn, error) {
	l.once.Do(func() {
		l.mu.Lock()
		shut := l.shut
		l.mu.Unlock()
		if shut {
			l.err = net.ErrClosed
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), bindWithin)
		defer cancel()
		conn, err := l.t.c.stream(ctx, l.t.at)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err == nil && l.shut {
			err = errors.Join(net.ErrClosed, conn.Close())
		}
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(bindWithin))
		}
		l.conn, l.err = conn, err
	})
	return l.conn, l.err
}

// opened is the connection, or nil.
func (l *late) opened() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil
	}
	return l.conn
}

// Read implements net.Conn.
func (l *late) Read(b []byte) (int, error) {
	c, err := l.get()
	if err != nil {
		return 0, err
	}
	return c.Read(b)
}

// Write implements net.Conn.
func (l *late) Write(b []byte) (int, error) {
	c, err := l.get()
	if err != nil {
		return 0, err
	}
	return c.Write(b)
}

// ReadFrom implements io.ReaderFrom.
func (l *late) ReadFrom(r io.Reader) (int64, error) {
	c, err := l.get()
	if err != nil {
		return 0, err
	}
	return io.Copy(c, r)
}

// Close implements net.Conn.
func (l *late) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	if l.conn == nil {
		return nil
	}
	return l.conn.Close()
}

func (l *late) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(l.t.addr) }
func (l *late) RemoteAddr() net.Addr { return l.t.base.far }

// SetDeadline implements net.Conn.
func (l *late) SetDeadline(at time.Time) error {
	return l.with(func(c net.Conn) error { return c.SetDeadline(at) })
}

// SetReadDeadline implements net.Conn.
func (l *late) SetReadDeadline(at time.Time) error {
	return l.with(func(c net.Conn) error { return c.SetReadDeadline(at) })
}

// SetWriteDeadline implements net.Conn.
func (l *late) SetWriteDeadline(at time.Time) error {
	return l.with(func(c net.Conn) error { return c.SetWriteDeadline(at) })
}

func (l *late) with(f func(net.Conn) error) error {
	if c := l.opened(); c != nil {
		return f(c)
	}
	return net.ErrClosed
}

// What follows is of TCP connections, for which pion takes it.

func (l *late) CloseRead() error { return l.Close() }

func (l *late) CloseWrite() error {
	return l.with(func(c net.Conn) error {
		if h, ok := c.(interface{ CloseWrite() error }); ok { // TCP and TLS have it
			return h.CloseWrite()
		}
		return c.Close()
	})
}

func (l *late) SetLinger(int) error                    { return nil }
func (l *late) SetKeepAlive(bool) error                { return nil }
func (l *late) SetKeepAlivePeriod(time.Duration) error { return nil }
func (l *late) SetNoDelay(bool) error                  { return nil }
func (l *late) SetReadBuffer(int) error                { return nil }
func (l *late) SetWriteBuffer(int) error               { return nil }

var _ transport.TCPConn = (*late)(nil)
