package sdp

import (
	"fmt"
	"net/netip"
	"testing"
)

const candidates = "v=0\r\na=candidate:1 1 udp 2130706431 4f3c.local 50000 typ host generation 0\r\n" +
	"a=candidate:1 1 tcp 2130706431 192.0.2.1 50000 typ host tcptype passive\r\n" +
	"a=candidate:2 1 UDP 1694498815 192.0.2.1 50000 typ srflx raddr 10.0.0.1 rport 50000\r\n" +
	"a=candidate:3 1 udp 16777215 198.51.100.7 49160 typ relay raddr 192.0.2.1 rport 50000\n" +
	"a=candidate:4 2 UDP 2130706430 2001:db8::7 50001 typ host\r\na=candidate:5 1 udp 1 192.0.2.9 9 typ odd\r\n"

func TestTypeOf(t *testing.T) {
	for at, want := range map[string]CandidateType{
		"192.0.2.1:50000":          ServerReflexive,
		"[::ffff:192.0.2.1]:50000": ServerReflexive,
		"198.51.100.7:49160":       Relay,
		"[2001:db8::7]:50001":      Host,
		"192.0.2.1:50001":          PeerReflexive,
		"192.0.2.9:9":              PeerReflexive,
	} {
		if got := TypeOf(candidates, netip.MustParseAddrPort(at)); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

// FuzzTypeOf: whatever a far end describes, the answer is one of the four.
func FuzzTypeOf(f *testing.F) {
	f.Add(candidates, "192.0.2.1:50000")
	f.Add("a=candidate:1 1 UDP 1 :: 1 typ host\na=candidate:", "[::]:1")
	f.Fuzz(func(t *testing.T, text, at string) {
		a, err := netip.ParseAddrPort(at)
		if err != nil {
			return
		}
		switch got := TypeOf(text, a); got {
		case Host, ServerReflexive, PeerReflexive, Relay:
		default:
			t.Errorf("%q", got)
		}
	})
}

func TestAddresses(t *testing.T) {
	text := "v=0\r\na=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\na=candidate:1 1 udp 1 192.0.2.1 5000 typ srflx\r\na=candidate:2 1 udp 1 x.local 5000 typ host\r\n" +
		"a=candidate:3 1 tcp 1 192.0.2.2 9 typ host tcptype active\r\na=candidate:4 1 udp 1 127.0.0.1 5000 typ host\r\na=candidate:5 1 udp 1 2001:db8::1 5001 typ host\r\n"
	got := Addresses(text)
	if len(got) != 2 || got[0] != netip.MustParseAddrPort("192.0.2.1:5000") || got[1] != netip.MustParseAddrPort("[2001:db8::1]:5001") {
		t.Errorf("%v", got)
	}
	for i := range 20 {
		text += fmt.Sprintf("a=candidate:1 1 udp 1 192.0.2.9 %d typ host\r\n", 6000+i)
	}
	if got := Addresses(text); len(got) != MaxCandidates {
		t.Errorf("%d", len(got))
	}
}
