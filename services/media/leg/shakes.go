package leg

import (
	"net/netip"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/media/mix"
)

// Bounds of the DTLS handshakes that run at once: each costs about a millisecond
// of CPU and some 100 KiB. A ClientHello beyond is dropped, and comes again after a
// second (RFC 6347 §4.2.4.1).
const (
	maxHandshakes     = 256
	maxHandshakesHost = 32 // from one host, an IPv6 /64 counting as one
)

// stalledAfter is the silence after which a handshake gives its place to a newer
// one: a round trip and a repeated flight fit in.
const stalledAfter = 2 * time.Second

// handshakes are the places of those that run.
type handshakes struct {
	mu   sync.Mutex
	runs map[*muxConn]netip.Addr
}

// take gives conn a place, when all are taken that of whoever was silent for
// longest; false when there is none.
func (s *handshakes) take(conn *muxConn, from netip.Addr, now int64) bool {
	host := limits.Subnet(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.runs) >= maxHandshakes && !s.evict(now, netip.Addr{}) {
		return false
	}
	n := 0
	for _, h := range s.runs {
		if h == host {
			n++
		}
	}
	if n >= maxHandshakesHost && !s.evict(now, host) {
		return false
	}
	s.runs[conn] = host
	return true
}

// evict ends the handshake that was silent for longest, of one host when host is
// valid; false when none was silent for long. The caller holds s.mu.
func (s *handshakes) evict(now int64, host netip.Addr) bool {
	var oldest *muxConn
	for c, h := range s.runs {
		if (!host.IsValid() || h == host) && (oldest == nil || c.heard.Load() < oldest.heard.Load()) {
			oldest = c
		}
	}
	if oldest == nil || now-oldest.heard.Load() < int64(stalledAfter) {
		return false
	}
	delete(s.runs, oldest)
	oldest.shut()
	return true
}

func (s *handshakes) give(conn *muxConn) {
	s.mu.Lock()
	delete(s.runs, conn)
	s.mu.Unlock()
}

// note marks that the far end sent something.
func (c *muxConn) note() { c.heard.Store(mix.Now()) }
