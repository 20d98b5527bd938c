package leg

import (
	"net/netip"
	"slices"
	"testing"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// What was learned is named beside the machine's own, and to whom it helps.
func TestLearnedAddresses(t *testing.T) {
	var a addresses
	a.learned.Store(new(addrs("203.0.113.7", "2001:db8:f::1")))
	bound := netip.MustParseAddr("10.9.8.7")
	if got := a.all(bound, false); !slices.Equal(got, addrs("10.9.8.7", "203.0.113.7")) {
		t.Errorf("bound to one: %v", got)
	}
	if got := a.all(netip.MustParseAddr("127.0.0.1"), false); !slices.Equal(got, addrs("127.0.0.1")) {
		t.Errorf("on loopback: %v", got)
	}
	if got := a.all(netip.IPv6Unspecified(), true); !slices.Contains(got, netip.MustParseAddr("203.0.113.7")) || !slices.Contains(got, netip.MustParseAddr("2001:db8:f::1")) || len(got) < 3 {
		t.Errorf("everywhere: %v", got)
	}
	if got := a.all(netip.IPv4Unspecified(), false); slices.ContainsFunc(got, netip.Addr.Is6) {
		t.Errorf("IPv4 alone: %v", got)
	}
	for far, want := range map[string]string{"198.51.100.1": "203.0.113.7", "10.9.8.1": "10.9.8.7", "127.0.0.1": "10.9.8.7"} {
		if got := a.toward(netip.MustParseAddr(far), bound); got.String() != want {
			t.Errorf("toward %s: %s, want %s", far, got, want)
		}
	}
	a.learned.Store(new(addrs("10.9.8.7")))
	if got := a.all(bound, false); len(got) != 1 {
		t.Errorf("its own address twice: %v", got)
	}
	a.public = addrs("192.0.2.1")
	if got := a.all(bound, false); !slices.Equal(got, a.public) {
		t.Errorf("beside what the operator named: %v", got)
	}
}
