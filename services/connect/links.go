package connect

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/config"
)

// links makes what people are given from what the node listens on. token may
// be empty: then the operator's link is without it.
func links(c *config.Config, listeners map[string]string, account, token string) contract.Links {
	base := pageBase(c, listeners)
	var l contract.Links
	if base != "" {
		l.Join, l.Operator = base+"/", base+"/operator"
		if c.Rooms.Default != "" {
			l.Join = base + "/r/" + c.Rooms.Default
		}
		if token != "" {
			// A fragment stays in the browser: no server and no log sees it.
			l.Operator += "#" + token
		}
		if u, err := url.Parse(base); err == nil && u.Hostname() == "localhost" && listeners["https"] != "" {
			l.Others = "https://" + joinDefault(hostFor("", listeners["https"]), portOf(listeners["https"]), "443") + strings.TrimPrefix(l.Join, base)
		}
	}
	if addr := firstOf(listeners, "sip/udp", "sip/tcp"); addr != "" {
		l.SIP = "sip:" + joinDefault(hostFor(c.SIP.Host, addr), portOf(addr), "5060")
		if c.Rooms.Default != "" {
			l.SIP = "sip:" + c.Rooms.Default + "@" + strings.TrimPrefix(l.SIP, "sip:")
		}
	}
	if account != "" {
		l.Jami = "jami:" + account
	}
	return l
}

// pageBase is the page's address without a path: what the operator says, else
// localhost over plain HTTP, where browsers give a microphone, else HTTPS.
func pageBase(c *config.Config, listeners map[string]string) string {
	if c.HTTP.URL != "" {
		return strings.TrimRight(c.HTTP.URL, "/")
	}
	if addr := listeners["http"]; addr != "" {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsUnspecified() && !ip.IsLoopback() {
			return "http://" + joinDefault(host, portOf(addr), "80")
		}
		return "http://" + joinDefault("localhost", portOf(addr), "80")
	}
	if addr := listeners["https"]; addr != "" {
		return "https://" + joinDefault(hostFor("", addr), portOf(addr), "443")
	}
	return ""
}

// hostFor returns the host that others reach: the given one, the address
// listened on, or this machine's first address.
func hostFor(given, addr string) string {
	if given != "" {
		return given
	}
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsUnspecified() {
		return host
	}
	for _, h := range certs.LocalHosts() {
		if ip := net.ParseIP(h); ip != nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			return h
		}
	}
	return "127.0.0.1"
}

// joinDefault leaves the port out where it is the scheme's own.
func joinDefault(host, port, def string) string {
	if port == def || port == "" {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, port)
}

func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	if _, err := strconv.Atoi(port); err != nil {
		return ""
	}
	return port
}

func firstOf(m map[string]string, keys ...string) string {
	for _, k := range keys {
		if m[k] != "" {
			return m[k]
		}
	}
	return ""
}

// publicHost is the host name of http.url, for the node's own certificate.
func publicHost(c *config.Config) string {
	u, err := url.Parse(c.HTTP.URL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
