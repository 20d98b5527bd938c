package sip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

// Bounds on what strangers can make the server hold.
const (
	maxBody       = 64 << 10 // bytes of SDP
	maxDialogs    = 20_000
	maxRinging    = 1_000 // calls being set up at once
	maxConns      = 2_000 // TCP and TLS connections
	maxSources    = 16_384
	invitesPerSec = 100 // of one address, with as large a burst
	wrongPerMin   = 6   // failed digests of one address before it has to wait
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

// readFilter drops datagrams that are not SIP. Streams are cut into messages
// by the parser, so there a chunk may start anywhere.
func readFilter(dropped *atomic.Uint64, log *zap.Logger) sip.TransportReadFilter {
	return func(p sip.TransportReadProps, data []byte) ([]byte, error) {
		if p.Transport != "UDP" || looksLikeSIP(data) {
			return data, nil
		}
		if n := dropped.Add(1); n&(n-1) == 0 {
			log.Warn("datagrams that are not SIP dropped", zap.Uint64("total", n), zap.Stringer("last_from", p.RemoteAddr))
		}
		return nil, nil
	}
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

// take uses n tokens of ip, or reports that there are none. With n = 0 it only asks.
func (b *buckets) take(ip netip.Addr, n float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	k := b.m[ip]
	if k == nil {
		if len(b.m) >= maxSources {
			for a, o := range b.m {
				if o.left+now.Sub(o.at).Seconds()*b.rate >= b.burst {
					delete(b.m, a)
				}
			}
			if len(b.m) >= maxSources {
				return false
			}
		}
		k = &bucket{left: b.burst, at: now}
		b.m[ip] = k
	}
	k.left = min(b.burst, k.left+now.Sub(k.at).Seconds()*b.rate)
	k.at = now
	if k.left < max(n, 1) {
		return false
	}
	k.left -= n
	return true
}

func sourceIP(hostport string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// limitListener bounds the connections that are open at once; more are closed
// at once, so that the accept queue never fills with strangers.
type limitListener struct {
	net.Listener
	open atomic.Int64
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= maxConns {
			return &limitConn{Conn: c, l: l}, nil
		}
		l.open.Add(-1)
		c.Close()
	}
}

type limitConn struct {
	net.Conn
	l    *limitListener
	once sync.Once
}

func (c *limitConn) Close() error {
	c.once.Do(func() { c.l.open.Add(-1) })
	return c.Conn.Close()
}

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
