package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What one address may ask. A person registers one name in a lifetime; behind one
// address there may be a school.
const (
	lookupsPerSec       = 50
	lookupsBurst        = 500
	registrationsPerSec = 0.1
	registrationsBurst  = 30

	limiterMax    = 32 << 10 // addresses remembered
	limiterForget = 10 * time.Minute
)

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

// take returns 0 when the address may go on, else for how long it has to wait. The
// server's own host has no limit.
func (l *limiter) take(ip netip.Addr, now time.Time) time.Duration {
	if ip.IsLoopback() {
		return 0
	}
	ip = subnet(ip)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.by[ip]
	if b == nil {
		if len(l.by) >= limiterMax {
			l.pruneLocked(now)
		}
		b = &bucket{Limiter: *rate.NewLimiter(l.rate, l.burst)}
		l.by[ip] = b
	}
	b.used = now
	if b.AllowN(now, 1) {
		return 0
	}
	return time.Duration((1 - b.TokensAt(now)) / float64(l.rate) * float64(time.Second))
}

// pruneLocked forgets the idle; should all be busy, all: forgetting is better than
// refusing strangers because of other strangers.
func (l *limiter) pruneLocked(now time.Time) {
	for ip, b := range l.by {
		if now.Sub(b.used) > limiterForget {
			delete(l.by, ip)
		}
	}
	if len(l.by) >= limiterMax {
		clear(l.by)
	}
}

// subnet is the address, for IPv6 its /64: one host has all of that.
func subnet(ip netip.Addr) netip.Addr {
	if ip.Is6() && !ip.Is4In6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}
