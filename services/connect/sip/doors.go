package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"
)

// doors are the hosts to which a connection may be opened. The SIP library opens
// one, to whatever a stranger's Via names, when a request's own is gone before the
// answer; only this side's requests inside a call may.
type doors struct {
	mu sync.Mutex
	m  map[netip.Addr]time.Time // until when
}

const doorOpen = time.Minute

func newDoors() *doors { return &doors{m: map[netip.Addr]time.Time{}} }

func (d *doors) open(ip netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if len(d.m) >= 1024 {
		for a, until := range d.m {
			if now.After(until) {
				delete(d.m, a)
			}
		}
	}
	d.m[ip] = now.Add(doorOpen)
}

var errClosedDoor = errors.New("no call has to do with this host")

// check is a [net.Dialer.Control].
func (d *doors) check(_, address string, _ syscall.RawConn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Now().After(d.m[sourceIP(address)]) {
		return errClosedDoor
	}
	return nil
}

// noNames keeps the SIP library from looking up names that strangers send.
var noNames = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	return nil, errClosedDoor
}}

// dialer is the transport of the connections that this side opens: to a phone
// whose own is gone.
func (s *Server) dialer() *sip.TransportTCP {
	return &sip.TransportTCP{ReadTimeout: 10 * time.Minute, WriteTimeout: writeTime, DialerCreate: func(net.Addr) net.Dialer {
		return net.Dialer{Timeout: 5 * time.Second, Control: s.doors.check}
	}}
}

// firstHop returns where the route of a dialog begins (RFC 3263, without SRV),
// "" without a route.
func (s *Server) firstHop(ctx context.Context, d *dialog) (string, error) {
	if len(d.Routes) == 0 {
		return "", nil
	}
	var hop sip.Uri
	if _, err := sip.ParseAddressValue(d.Routes[0], &hop, nil); err != nil {
		return "", fmt.Errorf("route %q: %w", d.Routes[0], err)
	}
	port := hop.Port
	if port == 0 {
		port = sip.DefaultPort(d.Transport)
	}
	host := strings.Trim(hop.Host, "[]")
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("route %q: %w", d.Routes[0], err)
	}
	return net.JoinHostPort(ips[0].Unmap().String(), strconv.Itoa(port)), nil
}
