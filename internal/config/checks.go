package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/parley-jami/parley/internal/proxyurl"
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
	"nats": {`a nats://, tls://, ws:// or wss:// URL, or several with commas between; "" is none`,
		func(s string) bool {
			return s == "" || !slices.ContainsFunc(strings.Split(s, ","), func(u string) bool { return !isURL(u, "nats", "tls", "ws", "wss") })
		}},
	"node or none": {`HOST:PORT; "" is none`, func(s string) bool { return s == "" || address(s, 1) && s[0] != ':' }},
	"ldap": {`an ldap:// or ldaps:// URL; "" is none`,
		func(s string) bool { return s == "" || isURL(s, "ldap", "ldaps") }},
	"host": {`a host name or an IP address without a port; "" is none`,
		func(s string) bool { return s == "" || isHost(s) }},
	"ip":           {"an IP address", func(s string) bool { _, err := netip.ParseAddr(s); return err == nil }},
	"room":         {`1 to 64 of a-z, 0-9 and -; "" is none`, func(s string) bool { return s == "" || isWord(s, 64) }},
	"word or none": {`1 to 32 of a-z, 0-9 and -; "" is none`, func(s string) bool { return s == "" || isWord(s, 32) }},
	"word":         {"1 to 32 of a-z, 0-9 and -", func(s string) bool { return isWord(s, 32) }},
	"multiaddr": {"a multiaddress, e.g. /ip4/192.0.2.1/tcp/4222/p2p/PEER",
		func(s string) bool { return strings.HasPrefix(s, "/") && strings.Count(s, "/") > 1 }},
	"node": {"HOST or HOST:PORT, e.g. bootstrap.jami.net:4222", func(s string) bool { return isHost(s) || address(s, 1) && s[0] != ':' }},
	"jami": {"a Jami Id of 40 hex digits in lower case", func(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }},
	"proxy": {"an https:// or http:// URL, without one of them https://, whose port may be a range: [80-95]",
		func(s string) bool { _, err := proxyurl.Parse(s); return err == nil }},
	"ports":  {"FIRST-LAST, ports from 1024 to 65535", func(s string) bool { _, _, ok := PortRange(s); return ok }},
	"peer":   {"PREFIX, ADDRESS or ADDRESS:PORT, e.g. 10.0.0.0/8 or 192.0.2.7:24000", isPeer},
	"prefix": {"PREFIX, e.g. 192.0.2.0/24 or 2001:db8::/32", func(s string) bool { _, err := netip.ParsePrefix(s); return err == nil }},
	"call": {"NAME, ADDRESS or PREFIX, e.g. pbx.example.org or 192.0.2.0/24", func(s string) bool {
		_, err := netip.ParsePrefix(s)
		return err == nil || isHost(s)
	}},
	"turn": {"a turn: or turns: URI, e.g. turn:turn.example.org:3478?transport=tcp", isTURN},
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

// PortRange parses FIRST-LAST.
func PortRange(s string) (first, last uint16, ok bool) {
	a, b, ok := strings.Cut(s, "-")
	f, err1 := strconv.ParseUint(a, 10, 16)
	l, err2 := strconv.ParseUint(b, 10, 16)
	return uint16(f), uint16(l), ok && err1 == nil && err2 == nil && f >= 1024 && l >= f
}

func isPeer(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	at, err := netip.ParseAddrPort(s)
	return err == nil && at.Port() > 0
}

// isTURN takes turn: and turns: URIs (RFC 7065 §3.1).
func isTURN(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme != "turn" && scheme != "turns" {
		return false
	}
	host, query, _ := strings.Cut(rest, "?")
	switch query {
	case "", "transport=udp", "transport=tcp":
	default:
		return false
	}
	return isHost(strings.Trim(host, "[]")) || address(host, 1) && host[0] != ':'
}

// together checks what a single key cannot say. It returns the key to blame.
func together(c *Config) (key, why string) {
	for _, p := range []struct{ prefix, cert, key string }{
		{"bus.", c.Bus.Cert, c.Bus.Key},
		{"http.", c.HTTP.Cert, c.HTTP.Key},
		{"names.", c.Names.Cert, c.Names.Key},
		{"jams.", c.JAMS.Cert, c.JAMS.Key},
		{"dht.proxy_", c.DHT.ProxyCert, c.DHT.ProxyKey},
		{"turn.", c.TURN.Cert, c.TURN.Key},
	} {
		switch {
		case p.cert == "" && p.key != "":
			return p.prefix + "key", "a key needs its certificate: set " + p.prefix + "cert too"
		case p.cert != "" && p.key == "":
			return p.prefix + "cert", "a certificate needs its key: set " + p.prefix + "key too"
		}
	}
	switch b := c.Bus; {
	case b.Member && b.ClusterListen == "":
		return "bus.member", "a server of a cluster needs an address for the others: set bus.cluster_listen"
	case b.ClusterListen == "" && len(b.ClusterRoutes) > 0:
		return "bus.cluster_routes", "set bus.cluster_listen too: each server of a cluster is reached by the others"
	case b.ClusterListen != "" && b.URL != "":
		return "bus.cluster_listen", "with bus.url there is no server here that could be one of a cluster"
	case b.OperatorKey != "" && b.URL == "":
		return "bus.operator_key", "it is of another NATS than the node's own: set bus.url too"
	case b.SystemCreds != "" && b.OperatorKey == "":
		return "bus.system_creds", "it is for what bus.operator_key signs: set that too"
	case b.OperatorKey != "" && b.SystemCreds == "":
		return "bus.operator_key", "its servers are told by a user of their system account: set bus.system_creds too"
	case b.CA != "" && b.Cert == "" && b.URL == "":
		return "bus.ca", "it is of who certifies bus.cert, or the servers at bus.url: set one of them too, or neither"
	}
	if c.DHT.Overlay == "proxy" && len(c.DHT.Proxy) == 0 {
		return "dht.overlay", "the overlay proxy needs one: set dht.proxy to a list of URLs"
	}
	switch j := c.JAMS; {
	case (j.CACert == "") != (j.CAKey == ""):
		return "jams.ca_cert", "an authority needs its certificate and its key: set jams.ca_cert and jams.ca_key"
	case (j.LDAPURL == "") != (j.LDAPUserDN == ""):
		return "jams.ldap_url", "a directory needs to know as whom to bind: set jams.ldap_url and jams.ldap_user_dn"
	}
	if c.TURN.TLSListen != "" && c.TURN.Cert == "" {
		return "turn.tls_listen", "TLS needs a certificate that clients trust: set turn.cert and turn.key"
	}
	_, port, _ := net.SplitHostPort(c.Media.Listen) // its syntax was checked
	if n, err := strconv.Atoi(port); err == nil && n+MediaPorts-1 > 65535 {
		return "media.listen", "the node needs this and the next " + strconv.Itoa(MediaPorts-1) + " ports; the first may be at most " + strconv.Itoa(65535-MediaPorts+1)
	}
	return "", ""
}
