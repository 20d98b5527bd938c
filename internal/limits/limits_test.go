package limits

import (
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

func TestLimiterForgets(t *testing.T) {
	l := NewAddresses(1, 1)
	now := time.Now()
	for i := range 2 * maxKeys {
		l.Take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if n := l.Len(); n > maxKeys {
		t.Errorf("%d addresses are remembered", n)
	}
	busy := netip.MustParseAddr("192.0.2.1")
	l.Take(busy, now)
	if w := l.Take(busy, now); w != time.Second {
		t.Errorf("wait %v", w)
	}
	if w := l.Take(busy, now.Add(time.Second)); w != 0 {
		t.Errorf("wait %v after it", w)
	}
}

func TestClientIP(t *testing.T) {
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:1", "", "192.0.2.1"},
		{"192.0.2.1:1", "198.51.100.1", "192.0.2.1"}, // a stranger is not believed
		{"127.0.0.1:1", "198.51.100.1", "198.51.100.1"},
		{"127.0.0.1:1", "203.0.113.1, 198.51.100.1", "198.51.100.1"}, // the first is what the client says
		{"127.0.0.1:1", "junk", "127.0.0.1"},
		{"[::1]:1", "2001:db8::1", "2001:db8::1"},
		{"[::ffff:192.0.2.1]:1", "", "192.0.2.1"},
		{"[fe80::1%eth0]:1", "", "fe80::1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := ClientIP(r).String(); got != tt.want {
			t.Errorf("%s, %q: %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
}
