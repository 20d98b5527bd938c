package limits

import (
	"net"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Places bounds how many of something an address has at once, and all together. The
// server's own host is bounded by the total alone: a reverse proxy or a load test
// comes from there. It is safe for concurrent use.
type Places struct {
	perAddress, inAll int

	mu  sync.Mutex
	by  map[netip.Addr]int
	all int
}

// NewPlaces returns places for so many.
func NewPlaces(perAddress, inAll int) *Places {
	return &Places{perAddress: perAddress, inAll: inAll, by: map[netip.Addr]int{}}
}

// Take reserves a place, to be given back with [Places.Free].
func (p *Places) Take(ip netip.Addr) bool {
	key := Subnet(ip)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.inAll || p.by[key] >= p.perAddress && !ip.IsLoopback() {
		return false
	}
	p.all++
	p.by[key]++
	return true
}

// Free gives a place back.
func (p *Places) Free(ip netip.Addr) {
	key := Subnet(ip)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.by[key]--; p.by[key] <= 0 {
		delete(p.by, key)
	}
}

// Taken is how many places are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// Listener closes the connections for which there is no place, so that a few addresses
// can't hold them all.
type Listener struct {
	net.Listener
	Places  *Places
	Refused prometheus.Counter // nil: those closed are not counted
}

// Accept returns the next connection that has a place.
func (l Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := addrOf(c.RemoteAddr().String())
		if l.Places.Take(ip) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.Places.Free(ip) })}, nil
		}
		if l.Refused != nil {
			l.Refused.Inc()
		}
		c.Close() // an error: the other side was faster
	}
}

type conn struct {
	net.Conn
	leave func()
}

// Close closes the connection; its place is free then.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
