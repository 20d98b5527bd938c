package sdp

import (
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
