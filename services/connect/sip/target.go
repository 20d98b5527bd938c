package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// maxURI bounds the URI of a phone in bytes.
const maxURI = 256

// Target is whom a sip: or sips: URI names (RFC 3261 §19.1).
type Target struct {
	URI       string // as it is sent
	User      string
	Host      string // in lower case; an IPv6 address without brackets
	Port      uint16
	Transport string // UDP, TCP or TLS
}

// ErrTarget says that a URI names no phone that can be called.
var ErrTarget = errors.New("not the URI of a phone")

// ParseTarget reads the URI of a phone: a user, a host, a port and a transport, nothing else.
// The port and the transport have the defaults of RFC 3263 §4.1 and §4.2 without DNS records.
func ParseTarget(s string) (*Target, error) {
	bad := func(why string) (*Target, error) {
		return nil, fmt.Errorf("%w: %s; it is sip:USER@HOST[:PORT][;transport=udp|tcp|tls] or sips:…", ErrTarget, why)
	}
	if len(s) > maxURI {
		return bad("it is too long")
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`<>"\,?`, c) >= 0 {
			return bad("it has a character that does not belong there")
		}
	}
	var u sip.Uri
	if err := sip.ParseUri(s, &u); err != nil {
		return bad(err.Error())
	}
	scheme := strings.ToLower(u.Scheme)
	t := &Target{User: u.User, Host: strings.ToLower(strings.Trim(u.Host, "[]")), Transport: "UDP"}
	switch {
	case scheme != "sip" && scheme != "sips":
		return bad("it is of another scheme")
	case u.Password != "":
		return bad("it has a password")
	case u.Port < 0 || u.Port > 65535:
		return bad("its port is none")
	case !isHostname(t.Host):
		return bad("its host is none")
	case strings.ContainsAny(t.User, "@:;/ "):
		return bad("its user is none")
	}
	tr := ""
	for _, p := range u.UriParams {
		if strings.ToLower(p.K) != "transport" || tr != "" {
			return bad("of parameters only the transport is known")
		}
		tr = strings.ToUpper(p.V)
	}
	secure := scheme == "sips"
	switch {
	case tr == "" && secure, tr == "TLS", tr == "TCP" && secure:
		t.Transport = "TLS"
	case tr == "TCP":
		t.Transport = "TCP"
	case tr != "" && tr != "UDP" || secure:
		return bad("its transport is none")
	}
	port := u.Port
	if port == 0 {
		port = sip.DefaultPort(t.Transport)
	}
	t.Port = uint16(port)
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	t.URI = scheme + ":"
	if t.User != "" {
		t.URI += t.User + "@"
	}
	t.URI += host
	if u.Port != 0 {
		t.URI += fmt.Sprintf(":%d", u.Port)
	}
	if tr != "" {
		t.URI += ";transport=" + strings.ToLower(tr)
	}
	return t, nil
}

// isHostname takes IP addresses without a zone, and names (RFC 1123 §2.1).
func isHostname(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast()
	}
	if s == "" || len(s) > 253 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c == '-' || c == '.' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z') {
			return false
		}
	}
	return true
}

// Speaks reports whether phones can be called over a transport.
func (s *Server) Speaks(transport string) bool { return s.localPort(transport) != 0 }
