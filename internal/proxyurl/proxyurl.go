// Package proxyurl reads the addresses of DHT proxies (dht-and-identity §5.1).
package proxyurl

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// URL is where one proxy is: a host and a range of ports, any of which will do.
type URL struct {
	scheme, host, path string
	first, last        uint16
}

// Parse reads an http:// or https:// URL. Without a scheme it is https: nothing travels
// in clear that was not meant to. The port may be a range, as in Jami's
// "http://dhtproxy.jami.net:[80-95]"; without one it is the scheme's. A path is what a
// proxy that shares its host has in front of its own paths.
func Parse(s string) (URL, error) {
	if len(s) > 1024 {
		return URL{}, fmt.Errorf("%.40q…: too long for the URL of a DHT proxy", s)
	}
	text := s
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	var ports string
	if i := strings.Index(text, ":["); i >= 0 && !strings.HasSuffix(text[:i], "/") {
		if j := strings.IndexByte(text[i:], ']'); j > 0 && strings.Contains(text[i:i+j], "-") {
			ports, text = text[i+2:i+j], text[:i]+text[i+j+1:]
		}
	}
	p, err := url.Parse(text)
	if err != nil {
		return URL{}, fmt.Errorf("%q is no URL of a DHT proxy", s)
	}
	if ports == "" {
		ports = p.Port()
	} else if p.Port() != "" {
		return URL{}, fmt.Errorf("%q: one port or a range of them, not both", s)
	}
	u := URL{scheme: p.Scheme, host: p.Hostname(), path: strings.TrimRight(p.EscapedPath(), "/")}
	switch {
	case p.Scheme != "http" && p.Scheme != "https":
		return URL{}, fmt.Errorf("%q: a DHT proxy is reached by http:// or https://", s)
	case u.host == "" || p.User != nil || p.RawQuery != "" || p.Fragment != "":
		return URL{}, fmt.Errorf("%q: the URL of a DHT proxy has a host, maybe a port and a path, and nothing else", s)
	}
	if ports == "" {
		ports = map[string]string{"http": "80", "https": "443"}[p.Scheme]
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	if u.first, err = port(first); err == nil {
		u.last, err = port(last)
	}
	if err != nil || u.first > u.last {
		return URL{}, fmt.Errorf("%q: a port is 1 to 65535, a range of them [FIRST-LAST]", s)
	}
	return u, nil
}

func port(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q", s)
	}
	return uint16(n), nil
}

// Pick returns the URL with one port, chosen at random, and without a slash at its end.
func (u URL) Pick() string {
	p := u.first + uint16(rand.IntN(int(u.last-u.first)+1))
	return u.scheme + "://" + net.JoinHostPort(u.host, strconv.Itoa(int(p))) + u.path
}

// PickOther returns the URL with another port than was picked last, chosen at random; the same where there is but one.
func (u URL) PickOther(last string) string {
	if u.first == u.last {
		return u.Pick()
	}
	for {
		if p := u.Pick(); p != last {
			return p
		}
	}
}
