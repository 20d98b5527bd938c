package turn

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Transport is how a client reaches a server.
type Transport string

// The transports (RFC 8656 §2.1).
const (
	UDP Transport = "udp"
	TCP Transport = "tcp"
	TLS Transport = "tls"
)

// Endpoint is where a TURN server is reached.
type Endpoint struct {
	Host      string // a name or an IP address
	Port      uint16
	Transport Transport
}

// Addr is HOST:PORT.
func (e Endpoint) Addr() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// ParseURL reads a turn: or turns: URI (RFC 7065 §3.1). One of DTLS, and one of STUN alone, is
// an error.
func ParseURL(s string) (Endpoint, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	rest, query, asked := strings.Cut(rest, "?")
	e := Endpoint{Host: rest, Port: 3478, Transport: UDP}
	switch scheme {
	case "turn":
	case "turns":
		e.Port, e.Transport = 5349, TLS
	default:
		return Endpoint{}, fmt.Errorf("%q is no turn: or turns: URI", s)
	}
	if asked {
		switch t, ok := strings.CutPrefix(query, "transport="); {
		case ok && t == "tcp":
			if e.Transport == UDP {
				e.Transport = TCP
			}
		case ok && t == "udp" && scheme == "turn":
		default:
			return Endpoint{}, fmt.Errorf("%q has a transport that is not spoken", s)
		}
	}
	if inner, ok := strings.CutPrefix(rest, "["); ok && strings.HasSuffix(inner, "]") {
		e.Host = strings.TrimSuffix(inner, "]")
	} else if host, port, err := net.SplitHostPort(rest); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Endpoint{}, fmt.Errorf("%q has a port that is none", s)
		}
		e.Host, e.Port = host, uint16(n)
	} else if strings.Contains(rest, ":") {
		return Endpoint{}, fmt.Errorf("%q has no HOST or HOST:PORT", s)
	}
	if e.Host == "" || strings.ContainsAny(e.Host, "[]/@ ") {
		return Endpoint{}, fmt.Errorf("%q has no host", s)
	}
	return e, nil
}
