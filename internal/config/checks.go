package config

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxData keeps DATA/run/conference.sock within the 107 bytes of a Unix
// socket's path (unix(7)).
const maxData = 107 - len("/run/conference.sock")

type check struct {
	words string
	ok    func(string) bool
}

// checks are the values of the `check` tag.
var checks = map[string]check{
	"addr": {"HOST:PORT or :PORT, e.g. 127.0.0.1:8080", func(s string) bool { return address(s, 0) }},
	"fixed": {"HOST:PORT with a port from 1 to 65535, since other processes must know it",
		func(s string) bool { return address(s, 1) }},
	"addr or off": {`HOST:PORT or :PORT, e.g. :8080; "" switches it off`,
		func(s string) bool { return s == "" || address(s, 0) }},
	"url": {`an http:// or https:// URL; "" is none`,
		func(s string) bool { return s == "" || isURL(s, "http", "https") }},
	"nats": {`a nats://, tls://, ws:// or wss:// URL; "" is none`,
		func(s string) bool { return s == "" || isURL(s, "nats", "tls", "ws", "wss") }},
	"ldap": {`an ldap:// or ldaps:// URL; "" is none`,
		func(s string) bool { return s == "" || isURL(s, "ldap", "ldaps") }},
	"host": {`a host name or an IP address without a port; "" is none`,
		func(s string) bool { return s == "" || isHost(s) }},
	"ip":   {"an IP address", func(s string) bool { _, err := netip.ParseAddr(s); return err == nil }},
	"room": {`1 to 64 of a-z, 0-9 and -; "" is none`, func(s string) bool { return s == "" || isWord(s, 64) }},
	"word": {"1 to 32 of a-z, 0-9 and -", func(s string) bool { return isWord(s, 32) }},
	"multiaddr": {"a multiaddress, e.g. /ip4/192.0.2.1/tcp/4222/p2p/PEER",
		func(s string) bool { return strings.HasPrefix(s, "/") && strings.Count(s, "/") > 1 }},
	"path": {"a path of at most " + strconv.Itoa(maxData) + " bytes, since it holds Unix sockets",
		func(s string) bool { return s != "" && len(s) <= maxData }},
}

func address(s string, minPort int) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && int(n) >= minPort && (host == "" || isHost(host))
}

// isHost takes IP addresses and names of letters, digits, dots and hyphens
// (RFC 1123 §2.1), with the underscore that container networks use.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") {
		return false
	}
	for _, c := range []byte(s) {
		if !(c == '-' || c == '.' || c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z') {
			return false
		}
	}
	return s != ""
}

func isURL(s string, schemes ...string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return false
	}
	for _, want := range schemes {
		if u.Scheme == want {
			return true
		}
	}
	return false
}

// isWord takes what can stand in a subject of the bus and in a link.
func isWord(s string, limit int) bool {
	for _, c := range []byte(s) {
		if !(c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z') {
			return false
		}
	}
	return s != "" && len(s) <= limit
}

// together checks what a single key cannot say. It returns the key to blame.
func together(c *Config) (key, why string) {
	for _, p := range []struct{ section, cert, key string }{
		{"http", c.HTTP.Cert, c.HTTP.Key},
		{"names", c.Names.Cert, c.Names.Key},
		{"jams", c.JAMS.Cert, c.JAMS.Key},
	} {
		switch {
		case p.cert == "" && p.key != "":
			return p.section + ".key", "a key needs its certificate: set " + p.section + ".cert too"
		case p.cert != "" && p.key == "":
			return p.section + ".cert", "a certificate needs its key: set " + p.section + ".key too"
		}
	}
	switch j := c.JAMS; {
	case (j.CACert == "") != (j.CAKey == ""):
		return "jams.ca_cert", "an authority needs its certificate and its key: set jams.ca_cert and jams.ca_key"
	case (j.LDAPURL == "") != (j.LDAPUserDN == ""):
		return "jams.ldap_url", "a directory needs to know as whom to bind: set jams.ldap_url and jams.ldap_user_dn"
	}
	_, port, _ := net.SplitHostPort(c.Media.Listen) // its syntax was checked
	if n, err := strconv.Atoi(port); err == nil && n+MediaPorts-1 > 65535 {
		return "media.listen", "the node needs this and the next " + strconv.Itoa(MediaPorts-1) + " ports; the first may be at most " + strconv.Itoa(65535-MediaPorts+1)
	}
	return "", ""
}
