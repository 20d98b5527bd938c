// Package limits bounds what strangers ask of an HTTP server: how often, from one
// address or about one user, and how many connections they hold.
package limits

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxKeys     = 32 << 10 // remembered by one Limiter
	forgetAfter = 10 * time.Minute
)

// Limiter is a token bucket for each key. It is safe for concurrent use.
type Limiter[K comparable] struct {
	rate  rate.Limit
	burst int

	mu sync.Mutex
	by map[K]*bucket
}

type bucket struct {
	rate.Limiter
	used time.Time
}

// New returns a limiter of burst at once, then perSec a second.
func New[K comparable](perSec float64, burst int) *Limiter[K] {
	return &Limiter[K]{rate: rate.Limit(perSec), burst: burst, by: map[K]*bucket{}}
}

// Take returns 0 when k may go on, else for how long it has to wait.
func (l *Limiter[K]) Take(k K, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketLocked(k, now)
	if now.Before(b.used) { // asked before another who was faster: its time would be credited twice
		now = b.used
	}
	b.used = now
	if b.AllowN(now, 1) {
		return 0
	}
	return l.waitOf(b, now)
}

// Wait is what [Limiter.Take] would return; nothing is taken.
func (l *Limiter[K]) Wait(k K, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.by[k]
	if b == nil || b.TokensAt(now) >= 1 {
		return 0
	}
	return l.waitOf(b, now)
}

// Len is how many keys are remembered.
func (l *Limiter[K]) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.by)
}

func (l *Limiter[K]) waitOf(b *bucket, now time.Time) time.Duration {
	return time.Duration((1 - b.TokensAt(now)) / float64(l.rate) * float64(time.Second))
}

func (l *Limiter[K]) bucketLocked(k K, now time.Time) *bucket {
	b := l.by[k]
	if b == nil {
		if len(l.by) >= maxKeys {
			l.pruneLocked(now)
		}
		b = &bucket{Limiter: *rate.NewLimiter(l.rate, l.burst)}
		l.by[k] = b
	}
	return b
}

// pruneLocked forgets the idle; should all be busy, all: forgetting is better than
// refusing strangers because of other strangers.
func (l *Limiter[K]) pruneLocked(now time.Time) {
	for k, b := range l.by {
		if now.Sub(b.used) > forgetAfter {
			delete(l.by, k)
		}
	}
	if len(l.by) >= maxKeys {
		clear(l.by)
	}
}

// Addresses is a [Limiter] for addresses. The server's own host has no limit.
type Addresses struct{ *Limiter[netip.Addr] }

// NewAddresses returns a limiter of burst at once, then perSec a second.
func NewAddresses(perSec float64, burst int) Addresses {
	return Addresses{New[netip.Addr](perSec, burst)}
}

// Take returns 0 when the address may go on, else for how long it has to wait.
func (l Addresses) Take(ip netip.Addr, now time.Time) time.Duration {
	if ip.IsLoopback() {
		return 0
	}
	return l.Limiter.Take(Subnet(ip), now)
}

// Wait is what [Addresses.Take] would return; nothing is taken.
func (l Addresses) Wait(ip netip.Addr, now time.Time) time.Duration {
	if ip.IsLoopback() {
		return 0
	}
	return l.Limiter.Wait(Subnet(ip), now)
}

// Subnet is the address, for IPv6 its /64: one host has all of that.
func Subnet(ip netip.Addr) netip.Addr {
	if ip.Is6() && !ip.Is4In6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// ClientIP returns where a request comes from. Only a proxy on the server's own
// host is believed about X-Forwarded-For, and of that only the last entry, which
// the proxy itself added.
func ClientIP(r *http.Request) netip.Addr {
	ip := addrOf(r.RemoteAddr)
	fwd := r.Header.Values("X-Forwarded-For")
	if !ip.IsLoopback() || len(fwd) == 0 {
		return ip
	}
	list := strings.Split(fwd[len(fwd)-1], ",")
	if a, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1])); err == nil {
		return a.Unmap().WithZone("")
	}
	return ip
}

// addrOf returns the address of host:port; without one it is the zero address.
func addrOf(hostport string) netip.Addr {
	at, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}
