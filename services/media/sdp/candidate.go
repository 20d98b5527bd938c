package sdp

import (
	"net/netip"
	"strconv"
	"strings"
)

// CandidateType is where a candidate comes from (RFC 8445 §5.1.1).
type CandidateType string

// The types of candidates.
const (
	Host            CandidateType = "host"
	ServerReflexive CandidateType = "srflx"
	PeerReflexive   CandidateType = "prflx"
	Relay           CandidateType = "relay"
)

// TypeOf is the type of the far end's candidate at an address: the one that its description
// names (RFC 8839 §5.1), else peer-reflexive, as one is whose first sign is a check
// (RFC 8445 §7.3.1.3). A browser hides its host candidates behind names, so they are too.
func TypeOf(description string, at netip.AddrPort) CandidateType {
	for line := range strings.Lines(description) {
		v, ok := strings.CutPrefix(line, "a=candidate:")
		if !ok {
			continue
		}
		// foundation, component, transport, priority, address, port, "typ", type
		f := strings.Fields(v)
		if len(f) < 8 || !strings.EqualFold(f[2], "UDP") || f[6] != "typ" {
			continue
		}
		ip, err1 := netip.ParseAddr(f[4])
		port, err2 := strconv.ParseUint(f[5], 10, 16)
		if err1 != nil || err2 != nil || uint16(port) != at.Port() || ip.Unmap() != at.Addr().Unmap() {
			continue
		}
		switch t := CandidateType(f[7]); t {
		case Host, ServerReflexive, PeerReflexive, Relay:
			return t
		}
	}
	return PeerReflexive
}
