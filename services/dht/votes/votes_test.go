package votes

import (
	"net/netip"
	"testing"
)

func TestMost(t *testing.T) {
	host := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	true1, lie := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.66")
	var v Votes
	if v.Most().IsValid() {
		t.Error("an address that nobody named")
	}
	v.Add(host(1), true1)
	v.Add(host(2), true1)
	for range 10 { // however often one says it
		v.Add(host(3), lie)
	}
	if v.Most() != true1 {
		t.Errorf("%s", v.Most())
	}
	for n := range byte(most) { // what was said last counts
		v.Add(host(n+10), lie)
	}
	if v.Most() != lie {
		t.Errorf("%s", v.Most())
	}
}
