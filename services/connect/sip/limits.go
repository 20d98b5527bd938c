package sip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
)

// Bounds on what strangers can make the server hold.
const (
	maxBody        = 32 << 10 // bytes of SDP
	maxDialogs     = 20_000
	maxRinging     = 1_000 // calls being set up at once
	maxUnconfirmed = 4_000 // calls being set up or without the ACK
	unconfirmedIP  = 128   // of one address
	maxConns       = 2_000 // TCP connections, and as many of TLS
	connsIP        = 256   // of one address
	maxSources     = 16_384
	invitesPerSec  = 100 // of one address, with as large a burst
	wrongPerMin    = 6   // failed digests of one address before it has to wait

	maxDatagram     = 16 << 10
	messagesPerSec  = 500 // of one address
	messagesBurst   = 2_000
	strangersPerSec = 2_000 // datagrams of all addresses without a call
	strangersBurst  = 4_000
)

// looksLikeSIP is a cheap test before anything is parsed or remembered: the
// first line of a request ends in SIP/2.0, that of a response starts with it
// (RFC 3261 §7). CRLF keep-alives (RFC 5626 §3.5.1) pass.
func looksLikeSIP(b []byte) bool {
	if len(b) <= 4 {
		return len(bytes.Trim(b, "\r\n")) == 0
	}
	line := b[:min(len(b), 512)]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	} else if len(b) > 512 {
		return false
	}
	return bytes.HasPrefix(line, []byte("SIP/2.0 ")) || bytes.HasSuffix(bytes.TrimRight(line, "\r"), []byte(" SIP/2.0"))
}

// buckets limits events by source address. It holds at most maxSources and
// forgets those that are full again.
type buckets struct {
	rate, burst float64 // per second, size
	now         func() time.Time
	mu          sync.Mutex
	m           map[netip.Addr]*bucket
}

type bucket struct {
	left float64
	at   time.Time
}

func newBuckets(rate, burst float64, now func() time.Time) *buckets {
	return &buckets{rate: rate, burst: burst, now: now, m: map[netip.Addr]*bucket{}}
}

// take uses n tokens of ip, or reports that there are none.
func (b *buckets) take(ip netip.Addr, n float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	k := b.m[ip]
	if k == nil {
		if len(b.m) >= maxSources {
			b.prune(now)
		}
		k = &bucket{left: b.burst, at: now}
		b.m[ip] = k
	}
	k.left = min(b.burst, k.left+now.Sub(k.at).Seconds()*b.rate)
	k.at = now
	if k.left < n {
		return false
	}
	k.left -= n
	return true
}

// give returns n tokens that were taken for nothing.
func (b *buckets) give(ip netip.Addr, n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.m[ip]; k != nil {
		k.left = min(b.burst, k.left+n)
	}
}

// prune forgets who has all tokens again and, when that is not a quarter, any
// others: forgetting is better than refusing strangers because of other strangers.
func (b *buckets) prune(now time.Time) {
	for a, o := range b.m {
		if o.left+now.Sub(o.at).Seconds()*b.rate >= b.burst {
			delete(b.m, a)
		}
	}
	for a := range b.m {
		if len(b.m) <= maxSources*3/4 {
			return
		}
		delete(b.m, a)
	}
}

// counter bounds how many of something an address has, and all together.
type counter struct {
	perIP, inAll int
	mu           sync.Mutex
	by           map[netip.Addr]int
	all          int
}

func newCounter(perIP, inAll int) *counter {
	return &counter{perIP: perIP, inAll: inAll, by: map[netip.Addr]int{}}
}

// take reserves a place, to be given back with free.
func (c *counter) take(ip netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.inAll || c.by[ip] >= c.perIP {
		return false
	}
	c.all++
	c.by[ip]++
	return true
}

func (c *counter) free(ip netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.by[ip]--; c.by[ip] <= 0 {
		delete(c.by, ip)
	}
}

func sourceIP(hostport string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// sourceKey is what the limits count by: the address, of IPv6 the /64, all of
// which one host has.
func sourceKey(hostport string) netip.Addr { return limits.Subnet(sourceIP(hostport)) }

// quiet passes the SIP library's log on: what strangers can cause is debug, the
// text of messages (which may hold credentials) is left out.
type quiet struct{ log *zap.Logger }

func (q quiet) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelError && q.log.Core().Enabled(zap.DebugLevel)
}

func (q quiet) Handle(_ context.Context, r slog.Record) error {
	fields := make([]zap.Field, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			fields = append(fields, zap.String("error", fmt.Sprint(a.Value.Any())))
		}
		return true
	})
	q.log.Debug(r.Message, fields...)
	return nil
}

func (q quiet) WithAttrs([]slog.Attr) slog.Handler { return q }
func (q quiet) WithGroup(string) slog.Handler      { return q }
