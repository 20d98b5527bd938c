package sdp

import (
	"fmt"
	"net/netip"
	"slices"
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

// preferences of the types (RFC 8445 §5.1.2.2), as pjnath has them.
var preferences = map[CandidateType]uint32{Host: 126, PeerReflexive: 110, ServerReflexive: 100}

// priority is that of the index-th candidate (RFC 8445 §5.1.2.1).
func (t CandidateType) priority(index, component int) uint32 {
	return preferences[t]<<24 | uint32(65535-index)<<8 | uint32(256-component)
}

// related is what RFC 8839 §5.1 wants after a type that is not of the host. What the relay or the
// NAT sees of us is nobody's business.
func (t CandidateType) related() string {
	if t == Host {
		return ""
	}
	return " raddr 0.0.0.0 rport 9"
}

// foundation is a letter for the type and the base address (§1.2 of connect-and-calls).
func (c *Candidate) foundation() string {
	letter, base := "H", c.RTP.Addr()
	switch c.Type {
	case ServerReflexive:
		letter = "S"
	case Relay:
		letter = "R"
	}
	return fmt.Sprintf("%s%x", letter, base.Unmap().AsSlice())
}

// TypeOf is the type of the far end's candidate at an address: the one that its description
// names (RFC 8839 §5.1), else peer-reflexive, as one is whose first sign is a check
// (RFC 8445 §7.3.1.3). A browser hides its host candidates behind names, so they are too.
func TypeOf(description string, at netip.AddrPort) CandidateType {
	for line := range strings.Lines(description) {
		v, ok := strings.CutPrefix(line, "a=candidate:")
		if !ok {
			continue
		}
		c, ok := parseCandidate(v)
		if !ok || c.at.Port() != at.Port() || c.at.Addr() != at.Addr().Unmap() {
			continue
		}
		switch c.typ {
		case Host, ServerReflexive, PeerReflexive, Relay:
			return c.typ
		}
	}
	return PeerReflexive
}

// Addresses are those of the candidates of a description that may be sent to, at most
// [MaxCandidates].
func Addresses(description string) (out []netip.AddrPort) {
	for line := range strings.Lines(description) {
		v, ok := strings.CutPrefix(line, "a=candidate:")
		if !ok {
			continue
		}
		if c, ok := parseCandidate(v); ok && c.at.Addr().IsGlobalUnicast() && c.at.Port() != 0 && len(out) < MaxCandidates && !slices.Contains(out, c.at) {
			out = append(out, c.at)
		}
	}
	return out
}

// candidate is one of UDP.
type candidate struct {
	component uint64
	at        netip.AddrPort
	typ       CandidateType
}

// parseCandidate reads what follows "a=candidate:" (RFC 8839 §5.1); false: it is of another
// transport, has a name for an address, or is no candidate.
func parseCandidate(v string) (c candidate, ok bool) {
	// foundation, component, transport, priority, address, port, "typ", type
	f := strings.Fields(v)
	if len(f) < 8 || !strings.EqualFold(f[2], "UDP") || f[6] != "typ" {
		return c, false
	}
	ip, err1 := netip.ParseAddr(f[4])
	port, err2 := strconv.ParseUint(f[5], 10, 16)
	n, err3 := strconv.ParseUint(f[1], 10, 16)
	if err1 != nil || err2 != nil || err3 != nil || n == 0 || ip.Zone() != "" {
		return c, false
	}
	return candidate{n, netip.AddrPortFrom(ip.Unmap(), uint16(port)), CandidateType(f[7])}, true
}
