package push

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// ErrEndpoint says that an endpoint is none to push to.
var ErrEndpoint = errors.New("endpoint refused")

// Times of one push.
const (
	dialTime = 5 * time.Second
	sendTime = 15 * time.Second
)

// notPublic are ranges that [netip.Addr]'s own predicates leave out (IANA's registries
// of special-purpose addresses).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carriers' NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // these three hold IPv4 addresses
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("fec0::/10"),
}

// public reports whether an address is of the public Internet.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// endpoint reads an address to push to.
func endpoint(text string, allowPrivate bool) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return nil, fmt.Errorf("%w: not a URL", ErrEndpoint)
	}
	switch {
	case u.Scheme == "https" || u.Scheme == "http" && allowPrivate:
	default:
		return nil, fmt.Errorf("%w: only https is taken", ErrEndpoint)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%w: a URL with a user is not taken", ErrEndpoint)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !allowPrivate && !public(ip) {
		return nil, fmt.Errorf("%w: %s is no public address", ErrEndpoint, ip)
	}
	return u, nil
}

// newClient returns a client that connects to public addresses, unless private ones are
// allowed, follows no redirect and knows no proxy.
func newClient(allowPrivate bool) *http.Client {
	d := net.Dialer{Timeout: dialTime}
	if !allowPrivate {
		d.Control = func(_, address string, _ syscall.RawConn) error { // after the name was resolved
			at, err := netip.ParseAddrPort(address)
			if err != nil || !public(at.Addr()) {
				return fmt.Errorf("%w: %s is no public address", ErrEndpoint, address)
			}
			return nil
		}
	}
	return &http.Client{
		Timeout:       sendTime,
		Transport:     &http.Transport{DialContext: d.DialContext, ForceAttemptHTTP2: true, MaxIdleConns: 64, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: dialTime, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
