package request

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of a description. Stock trims what it gets to 31 candidates, of these 8 hosts and
// 4 relays (§1.2).
const (
	maxCandidates = 31
	maxHosts      = 16 // active and passive of each of stock's 8 addresses
	maxRelays     = 4
	maxLines      = 256

	maxCredential = 256 // characters of ufrag and pwd (RFC 8839 §5.4)
	minUfrag      = 4
	minPwd        = 22
)

// Type is where a candidate comes from.
type Type string

// The types of candidates.
const (
	Host            Type = "host"
	ServerReflexive Type = "srflx"
	PeerReflexive   Type = "prflx"
	Relay           Type = "relay"
)

// TCPType says who opens the connection (RFC 6544 §4.5).
type TCPType string

// The TCP types.
const (
	Active           TCPType = "active"
	Passive          TCPType = "passive"
	SimultaneousOpen TCPType = "so"
)

// ActivePort is the port of an active candidate: it has none (RFC 6544 §4.5).
const ActivePort = 9

// Candidate is an address at which a device may be reached.
type Candidate struct {
	Foundation string
	Priority   uint32
	Addr       netip.AddrPort
	Type       Type
	TCPType    TCPType // empty: by UDP
}

// Description is what a device tells of its side of a connection.
type Description struct {
	Ufrag, Pwd string
	Candidates []Candidate
}

// Text returns ice_msg.
func (d *Description) Text() (string, error) {
	if err := d.check(); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", d.Ufrag, d.Pwd)
	for _, c := range d.Candidates {
		if c.TCPType == "" {
			fmt.Fprintf(&b, "%s 1 UDP %d %s %d typ %s\n", c.Foundation, c.Priority, c.Addr.Addr(), c.Addr.Port(), c.Type)
			continue
		}
		fmt.Fprintf(&b, "%s 1 TCP %d %s %d typ %s tcptype %s\n", c.Foundation, c.Priority, c.Addr.Addr(), c.Addr.Port(), c.Type, c.TCPType)
	}
	return b.String(), nil
}

// ParseDescription reads ice_msg, and passes over candidates of UDP.
func ParseDescription(text string) (Description, error) { return parseText(text, false) }

// ParseUDP reads udp, and passes over candidates of TCP.
func ParseUDP(text string) (Description, error) { return parseText(text, true) }

func parseText(text string, udp bool) (Description, error) {
	if len(text) > maxText {
		return Description{}, fmt.Errorf("%w: an ice_msg of %d bytes", ErrTooLarge, len(text))
	}
	var d Description
	rest, lines, hosts, relays := text, 0, 0, 0
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimSuffix(line, "\r")
		if lines++; lines > maxLines {
			return Description{}, fmt.Errorf("%w: more than %d lines", ErrTooLarge, maxLines)
		}
		switch {
		case line == "":
		case d.Ufrag == "":
			d.Ufrag = line
		case d.Pwd == "":
			d.Pwd = line
		default:
			c, ok := parseCandidate(line, udp)
			if !ok || len(d.Candidates) == maxCandidates {
				continue
			}
			switch c.Type {
			case Host:
				if hosts++; hosts > maxHosts {
					continue
				}
			case Relay:
				if relays++; relays > maxRelays {
					continue
				}
			}
			d.Candidates = append(d.Candidates, c)
		}
	}
	return d, d.check()
}

func (d *Description) check() error {
	if !credential(d.Ufrag, minUfrag) || !credential(d.Pwd, minPwd) {
		return fmt.Errorf("%w: its ICE credentials", ErrMalformed)
	}
	if len(d.Candidates) > maxCandidates {
		return fmt.Errorf("%w: %d candidates", ErrTooLarge, len(d.Candidates))
	}
	return nil
}

// credential reports whether s has ice-chars alone (RFC 8839 §5.4).
func credential(s string, least int) bool {
	return len(s) >= least && len(s) <= maxCredential && iceChars(s)
}

func iceChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// parseCandidate reads one line; false: it is none that can be used.
func parseCandidate(line string, udp bool) (c Candidate, ok bool) {
	f := strings.Fields(line)
	switch {
	case len(f) < 8 || f[1] != "1" || f[6] != "typ":
		return c, false
	case udp && (len(f) != 8 || f[2] != "UDP"):
		return c, false
	case !udp && (len(f) != 10 || f[2] != "TCP" || f[8] != "tcptype"):
		return c, false
	}
	if len(f[0]) > 32 || !iceChars(f[0]) {
		return c, false
	}
	prio, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return c, false
	}
	ip, err := netip.ParseAddr(f[4])
	if err != nil || ip.Zone() != "" {
		return c, false
	}
	port, err := strconv.ParseUint(f[5], 10, 16)
	if err != nil || port == 0 {
		return c, false
	}
	c = Candidate{Foundation: f[0], Priority: uint32(prio), Addr: netip.AddrPortFrom(ip.Unmap(), uint16(port)), Type: Type(f[7])}
	switch c.Type {
	case Host, ServerReflexive, PeerReflexive, Relay:
	default:
		return c, false
	}
	if udp {
		return c, true
	}
	c.TCPType = TCPType(f[9])
	return c, c.TCPType == Active || c.TCPType == Passive || c.TCPType == SimultaneousOpen
}
