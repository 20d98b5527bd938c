package limits

import (
	"net"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections that are open at once.
const (
	connsMax        = 4096
	connsPerAddress = 64
)

// Listener closes the connections that are too many, so that a few addresses can't
// hold them all.
type Listener struct {
	net.Listener
	open    prometheus.Gauge
	refused prometheus.Counter

	mu  sync.Mutex
	all int
	by  map[netip.Addr]int
}

// NewListener bounds l and counts the connections that are open and those refused.
func NewListener(l net.Listener, open prometheus.Gauge, refused prometheus.Counter) *Listener {
	return &Listener{Listener: l, open: open, refused: refused, by: map[netip.Addr]int{}}
}

// Accept returns the next connection that is not too many.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := remote(c)
		if l.enter(ip) {
			return &conn{Conn: c, leave: func() { l.leave(ip) }}, nil
		}
		l.refused.Inc()
		c.Close() // an error: the other side was faster
	}
}

func remote(c net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return Subnet(at.Addr().Unmap().WithZone(""))
}

func (l *Listener) enter(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= connsMax || l.by[ip] >= connsPerAddress && !ip.IsLoopback() {
		return false
	}
	l.all++
	l.by[ip]++
	l.open.Set(float64(l.all))
	return true
}

func (l *Listener) leave(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.by[ip]--; l.by[ip] <= 0 {
		delete(l.by, ip)
	}
	l.open.Set(float64(l.all))
}

type conn struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close closes the connection; its place is free then.
func (c *conn) Close() error {
	defer c.once.Do(c.leave)
	return c.Conn.Close()
}
