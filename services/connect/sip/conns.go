package sip

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// How long a connection may be open without a use.
const (
	firstMessage = 10 * time.Second // from accept to the first whole request, the TLS handshake included
	idleConn     = 2 * time.Minute  // after the last request, when no call uses it
	writeTime    = 10 * time.Second
)

// conns are the TCP and TLS connections that were accepted.
type conns struct {
	used        func(remote string) bool  // a call is on it
	gone        func(*guest, *streamConn) // a connection of a device was closed; the device may be nil
	first, idle time.Duration

	mu sync.Mutex
	by map[string]*streamConn // by remote address
}

func newConns(used func(string) bool, gone func(*guest, *streamConn)) *conns {
	return &conns{used: used, gone: gone, first: firstMessage, idle: idleConn, by: map[string]*streamConn{}}
}

// heard notes that a whole request came from remote.
func (c *conns) heard(remote string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.by[remote]; s != nil {
		s.spoke, s.last = true, time.Now()
	}
}

// guest returns whose the connection from remote is; nil: a stranger's, or there is none.
func (c *conns) guest(remote string) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.by[remote]; s != nil {
		return s.guest
	}
	return nil
}

// signalled describes what a request from remote came over.
func (c *conns) signalled(transport, remote string) Signalled {
	out := Signalled{Over: strings.ToLower(transport), Remote: remote}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.by[remote]
	if s == nil || out.Over == "udp" {
		return out
	}
	out.Local = s.LocalAddr().String()
	if s.version != 0 {
		out.TLS, out.Suite = tls.VersionName(s.version), tls.CipherSuiteName(s.suite)
	}
	return out
}

// shook notes the TLS session that a connection has.
func (c *streamConn) shook(st *tls.ConnectionState) {
	c.l.conns.mu.Lock()
	defer c.l.conns.mu.Unlock()
	c.version, c.suite = st.Version, st.CipherSuite
}

// streamListener closes at once what is above the bounds, so that the accept
// queue never fills with strangers.
type streamListener struct {
	net.Listener
	conns *conns
	bound *counter
}

func (l *streamListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := c.RemoteAddr().String()
		ip := sourceKey(remote)
		if !l.bound.take(ip) {
			c.Close()
			continue
		}
		s := &streamConn{Conn: c, l: l, ip: ip, remote: remote, last: time.Now()}
		l.conns.mu.Lock()
		l.conns.by[remote] = s
		l.conns.mu.Unlock()
		return s, nil
	}
}

// streamConn is a connection that ends by itself when nobody uses it. It lies
// below TLS, and its deadlines are its own.
type streamConn struct {
	net.Conn
	l      *streamListener
	ip     netip.Addr
	remote string
	once   sync.Once

	// guarded by conns.mu
	spoke bool
	last  time.Time // accepted, or the last request
	guest *guest    // whose it is; nil: a stranger's
	// Of the TLS session: 0: none, or before its handshake.
	version, suite uint16
	closed         bool
}

// is notes whose the connection is, unless it is closed.
func (c *streamConn) is(x *guest) bool {
	c.l.conns.mu.Lock()
	defer c.l.conns.mu.Unlock()
	if !c.closed {
		c.guest = x
	}
	return !c.closed
}

func (c *streamConn) Read(b []byte) (int, error) {
	for {
		left := c.left()
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		if err := c.Conn.SetReadDeadline(time.Now().Add(left)); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(b)
		if n > 0 || !os.IsTimeout(err) {
			return n, err
		}
	}
}

// left returns how long the connection may stay open as things are now.
func (c *streamConn) left() time.Duration {
	c.l.conns.mu.Lock()
	limit := c.l.conns.first
	if c.spoke {
		limit = c.l.conns.idle
	}
	left := limit - time.Since(c.last)
	c.l.conns.mu.Unlock()
	if left <= 0 && c.l.conns.used(c.remote) {
		return c.l.conns.idle
	}
	return left
}

func (c *streamConn) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

func (c *streamConn) Close() error {
	c.once.Do(func() {
		c.l.bound.free(c.ip)
		c.l.conns.mu.Lock()
		if c.l.conns.by[c.remote] == c {
			delete(c.l.conns.by, c.remote)
		}
		c.closed = true
		x := c.guest
		c.l.conns.mu.Unlock()
		c.l.conns.gone(x, c)
	})
	return c.Conn.Close()
}
