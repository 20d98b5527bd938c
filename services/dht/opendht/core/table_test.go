package core

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

func randomID(r *rand.Rand) (id jami.ID) {
	for i := 0; i < len(id); i += 4 {
		binary.BigEndian.PutUint32(id[i:], r.Uint32())
	}
	return id
}

func randomTable(r *rand.Rand, n int, now time.Time) *table {
	t := new(table)
	t.init(randomID(r))
	for i := range n {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(i >> 16), byte(i >> 8), byte(i)}), 4222)
		t.insert(&peer{peerKey: peerKey{randomID(r), a}, heard: now, replied: now}, now)
	}
	return t
}

// TestClosest: the short way finds what looking at all peers does.
func TestClosest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	now := time.Unix(1e9, 0)
	for _, size := range []int{0, 1, 5, 20, 500} {
		tb := randomTable(r, size, now)
		var all []*peer
		for _, b := range tb.buckets {
			if len(b.peers) > bucketSize {
				t.Errorf("a bucket of %d", len(b.peers))
			}
			all = append(all, b.peers...)
		}
		for i := range 200 {
			target := randomID(r)
			if i%3 == 0 { // near the own id
				target = tb.self
				target[r.IntN(len(target))] ^= byte(r.IntN(256))
			}
			odd := func(p *peer) bool { return i%2 == 0 || p.id[19]&1 == 1 }
			want := slices.DeleteFunc(slices.Clone(all), func(p *peer) bool { return !odd(p) })
			slices.SortFunc(want, func(a, b *peer) int {
				if closer(&target, &a.id, &b.id) {
					return -1
				}
				return 1
			})
			want = want[:min(len(want), searchNodes)]
			if got := tb.closest(nil, &target, searchNodes, odd); !slices.Equal(got, want) {
				t.Fatalf("%d peers: other ones are closest", size)
			}
		}
	}
}

// TestTableOfOneHost: a stranger's host has a few places only, one near us any number.
func TestTableOfOneHost(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	now := time.Unix(1e9, 0)
	for addr, most := range map[string]int{"198.51.100.7": siteMost, "2001:db8::7": siteMost, "192.168.0.7": 1000} {
		var tb table
		tb.init(randomID(r))
		in := 0
		for i := range 200 {
			p := &peer{peerKey: peerKey{randomID(r), netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(1000+i))}, heard: now, replied: now}
			if ok, _ := tb.insert(p, now); ok {
				in++
			}
		}
		if in > most || in < min(most, 20) {
			t.Errorf("%s: %d nodes", addr, in)
		}
	}
}

func TestNamedAddresses(t *testing.T) {
	for _, x := range []struct {
		addr, teller, want string
	}{
		{"198.51.100.1:4222", "203.0.113.1", "198.51.100.1:4222"},
		{"127.0.0.1:4222", "203.0.113.1", "203.0.113.1:4222"},
		{"127.0.0.1:4222", "127.0.0.1", "127.0.0.1:4222"},
		{"[::1]:4222", "2001:db8::1", "[2001:db8::1]:4222"},
		{"10.0.0.1:4222", "203.0.113.1", ""},
		{"10.0.0.1:4222", "10.0.0.2", "10.0.0.1:4222"},
		{"224.0.0.1:4222", "203.0.113.1", ""},
		{"0.1.2.3:4222", "203.0.113.1", ""},
		{"198.51.100.1:0", "203.0.113.1", ""},
		{"[fe80::1]:4222", "fe80::2", ""},
		{"[ff02::1]:4222", "2001:db8::1", ""},
		{"[::ffff:10.0.0.1]:4222", "2001:db8::1", ""},
		{"[::]:4222", "2001:db8::1", ""},
	} {
		got, ok := named(netip.MustParseAddrPort(x.addr), netip.MustParseAddr(x.teller))
		if ok != (x.want != "") || ok && got.String() != x.want {
			t.Errorf("%s by %s: %s, %v", x.addr, x.teller, got, ok)
		}
	}
}
