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

// Callers come in another order than that in which they looked at the clock.
func TestNoTimeIsCreditedTwice(t *testing.T) {
	l := New[string](1, 5)
	began := time.Now()
	taken := 0
	for range 100 {
		for _, now := range []time.Time{began.Add(time.Second), began} {
			if l.Take("k", now) == 0 {
				taken++
			}
		}
	}
	if taken != 5 {
		t.Errorf("%d were taken of a bucket of 5", taken)
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

func TestLimits(t *testing.T) {
	ip, home := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")
	now := time.Now()
	l := NewAddresses(1, 3)
	for i := range 5 {
		if got, want := l.Take(ip, now) == 0, i < 3; got != want {
			t.Errorf("request %d: %v, want %v", i, got, want)
		}
		if l.Take(home, now) > 0 {
			t.Error("the node's own host was slowed")
		}
	}
	if l.Take(netip.MustParseAddr("192.0.2.2"), now) > 0 || l.Take(ip, now.Add(2*time.Second)) > 0 {
		t.Error("slowed for another's requests, or for ever")
	}
	one, two := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for range 3 {
		l.Take(one, now)
	}
	if l.Take(two, now) == 0 {
		t.Error("an IPv6 host got a bucket for each of its addresses")
	}
	for i := range maxKeys + 10 {
		l.Take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if l.Len() > maxKeys {
		t.Errorf("%d addresses remembered, want at most %d", l.Len(), maxKeys)
	}
	net64 := NewPlaces(2, 10)
	if !net64.Take(one) || !net64.Take(two) || net64.Take(netip.MustParseAddr("2001:db8::3")) {
		t.Error("an IPv6 host got places for each of its addresses")
	}
	if !net64.Take(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Error("another /64 was refused")
	}
	net64.Free(one)
	if !net64.Take(two) {
		t.Error("a place given back by another address of the /64 is not free")
	}
	for range 5 {
		if !net64.Take(netip.IPv6Loopback()) {
			t.Error("the node's own host was refused")
		}
	}
	c := NewPlaces(2, 3)
	for i, want := range []bool{true, true, false} {
		if got := c.Take(ip); got != want {
			t.Errorf("place %d: %v", i, got)
		}
	}
	if !c.Take(home) || c.Take(home) {
		t.Error("the total is not kept")
	}
	c.Free(ip)
	if !c.Take(home) {
		t.Error("a place given back is not free")
	}
}
