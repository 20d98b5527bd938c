package jami

import (
	"net/netip"
	"slices"
	"testing"
)

func TestAddresses(t *testing.T) {
	in := &Addresses{ID: 1 << 52, Answer: true, List: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	b, err := in.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, err := ParseAddresses(b)
	if err != nil || out.ID != in.ID || !out.Answer || !slices.Equal(out.List, in.List) {
		t.Errorf("%+v, %v", out, err)
	}
	for _, no := range []string{"0.0.0.0", "224.0.0.1", "::", "fe80::1%eth0", "::ffff:192.0.2.1"} {
		if b, err := (&Addresses{List: []netip.Addr{netip.MustParseAddr(no)}}).Pack(); err == nil {
			t.Errorf("%s is packed as %x", no, b)
		}
	}
	if _, err := (&Addresses{List: make([]netip.Addr, MaxAddresses+1)}).Pack(); err == nil {
		t.Error("too many are packed")
	}
	for _, no := range []string{"\x81\xa5addrs\x91\xc4\x04\xe0\x00\x00\x01", "\x81\xa5addrs\x91\xc4\x03\x01\x02\x03", "\x81\xa5addrs\x99" + "", "\x80 "} {
		if a, err := ParseAddresses([]byte(no)); err == nil {
			t.Errorf("%x is %+v", no, a)
		}
	}
}
