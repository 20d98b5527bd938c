package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/internal/limits"
)

// Bounds for strangers. A company or a school comes from one address, so they
// are wide; what they keep out is the address that wants it all.
const (
	socketsPerIP  = 1024
	socketsInAll  = 16 << 10
	connsPerIP    = 2048
	connsInAll    = 18 << 10 // leaves room for the rest below the usual 20,000 descriptors
	joinsPerSec   = 20
	joinsBurst    = 200
	asksPerSec    = 50 // unauthenticated requests that cost a command
	asksBurst     = 200
	authPerSec    = 2 // wrong operator tokens
	authBurst     = 20
	msgsPerSec    = 40 // messages of one socket
	msgsBurst     = 120
	limiterMax    = 32 << 10 // addresses remembered
	limiterForget = 10 * time.Minute
)

// counter bounds how many of something an address has open, and all together.
type counter struct {
	perIP, inAll int

	mu  sync.Mutex
	by  map[netip.Addr]int
	all int
}

func newCounter(perIP, inAll int) *counter {
	return &counter{perIP: perIP, inAll: inAll, by: map[netip.Addr]int{}}
}

// take reserves a place, to be given back with free. The node's own host is
// bounded only by the total: a reverse proxy or a load test comes from there.
func (c *counter) take(ip netip.Addr) bool {
	key := limits.Subnet(ip)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.inAll || c.by[key] >= c.perIP && !ip.IsLoopback() {
		return false
	}
	c.all++
	c.by[key]++
	return true
}

func (c *counter) free(ip netip.Addr) {
	key := limits.Subnet(ip)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.by[key]--; c.by[key] <= 0 {
		delete(c.by, key)
	}
}

// limiter is a token bucket for each address.
type limiter struct {
	rate  rate.Limit
	burst int

	mu sync.Mutex
	by map[netip.Addr]*bucket
}

type bucket struct {
	rate.Limiter
	used time.Time
}

func newLimiter(perSec float64, burst int) *limiter {
	return &limiter{rate: rate.Limit(perSec), burst: burst, by: map[netip.Addr]*bucket{}}
}

func (l *limiter) allow(ip netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(ip, now)
	return b == nil || b.AllowN(now, 1)
}

// spent reports whether nothing is left, without taking anything.
func (l *limiter) spent(ip netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.by[limits.Subnet(ip)]
	return b != nil && b.TokensAt(now) < 1
}

// bucket returns the address's bucket, nil for the node's own host. When too many are
// remembered the idle go; should all be busy, all go: forgetting is better than
// refusing strangers because of other strangers. The caller holds l.mu.
func (l *limiter) bucket(ip netip.Addr, now time.Time) *bucket {
	if ip.IsLoopback() {
		return nil
	}
	ip = limits.Subnet(ip)
	b := l.by[ip]
	if b == nil {
		if len(l.by) >= limiterMax {
			l.prune(now)
		}
		b = &bucket{Limiter: *rate.NewLimiter(l.rate, l.burst)}
		l.by[ip] = b
	}
	b.used = now
	return b
}

func (l *limiter) prune(now time.Time) {
	for ip, b := range l.by {
		if now.Sub(b.used) > limiterForget {
			delete(l.by, ip)
		}
	}
	if len(l.by) >= limiterMax {
		clear(l.by)
	}
}

// clientIP returns where a request comes from. Only a proxy on the node's own
// host is believed about X-Forwarded-For, and of that only the last entry, which
// the proxy itself added.
func clientIP(r *http.Request) netip.Addr {
	ip := addrOf(r.RemoteAddr)
	if !ip.IsLoopback() {
		return ip
	}
	fwd := r.Header.Values("X-Forwarded-For")
	if len(fwd) == 0 {
		return ip
	}
	list := strings.Split(fwd[len(fwd)-1], ",")
	if a, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1])); err == nil {
		return a.Unmap().WithZone("")
	}
	return ip
}

func addrOf(hostport string) netip.Addr {
	if ap, err := netip.ParseAddrPort(hostport); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	return netip.IPv6Unspecified()
}

// listener closes at once what is above the bounds; what waits behind a
// half-open connection is one goroutine and 4 KiB until the header deadline.
type listener struct {
	net.Listener
	conns *counter
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := addrOf(c.RemoteAddr().String())
		if !l.conns.take(ip) {
			c.Close()
			continue
		}
		return &counted{Conn: c, free: sync.OnceFunc(func() { l.conns.free(ip) })}, nil
	}
}

type counted struct {
	net.Conn
	free func()
}

func (c *counted) Close() error {
	c.free()
	return c.Conn.Close()
}
