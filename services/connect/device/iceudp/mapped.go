package iceudp

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/pion/stun"
	"go.uber.org/zap"
)

// Times of asking STUN servers. Asking keeps the way in open too: a NAT forgets after 30 s at the
// soonest (RFC 4787 §4.3 wants two minutes).
const (
	mapEvery    = 25 * time.Second
	mapFirst    = 250 * time.Millisecond // for an answer, when a connection is asked for
	mapAgain    = 100 * time.Millisecond // an unanswered question is asked again
	resolveTime = 5 * time.Second
	namesLast   = 10 * time.Minute
	defaultPort = 3478
)

// servers are the STUN servers and where their names lead.
type servers struct {
	names []string

	mu    sync.Mutex
	addrs []netip.AddrPort
	until time.Time
}

// resolve looks the servers' names up; of each it takes an address of IPv4 and one of IPv6.
func (s *servers) resolve(ctx context.Context, log *zap.Logger) []netip.AddrPort {
	if len(s.names) == 0 {
		return nil
	}
	s.mu.Lock()
	if time.Now().Before(s.until) {
		defer s.mu.Unlock()
		return s.addrs
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var out []netip.AddrPort
	for _, name := range s.names {
		host, port := name, uint64(defaultPort)
		if h, p, err := net.SplitHostPort(name); err == nil {
			if port, err = strconv.ParseUint(p, 10, 16); err != nil {
				continue
			}
			host = h
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			log.Debug("STUN server not found", zap.String("server", name), zap.Error(err))
			continue
		}
		var had [2]bool
		for _, ip := range ips {
			ip = ip.Unmap()
			i := 0
			if ip.Is6() {
				i = 1
			}
			if !had[i] {
				had[i] = true
				out = append(out, netip.AddrPortFrom(ip, uint16(port)))
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = out
	if len(out) > 0 {
		s.until = time.Now().Add(namesLast)
	}
	return out
}

// question is what a STUN server was asked.
type question struct {
	p      *Port
	server netip.AddrPort
}

// heard takes the server's answer.
func (q question) heard(m *stun.Message, from netip.AddrPort) error {
	var x stun.XORMappedAddress
	if from != q.server || m.Type != stun.BindingSuccess || x.GetFrom(m) != nil {
		return errSTUN
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	if !ok || x.Port <= 0 || x.Port > 0xffff {
		return errSTUN
	}
	q.p.mu.Lock()
	defer q.p.mu.Unlock()
	delete(q.p.asked, m.TransactionID)
	q.p.mapped[q.server] = netip.AddrPortFrom(ip.Unmap(), uint16(x.Port))
	return nil
}

// ask asks servers once. The transactions are to be forgotten.
func (p *Port) ask(all []netip.AddrPort) (ids []transaction) {
	for _, server := range all {
		m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.Fingerprint)
		if err != nil {
			continue
		}
		ids = append(ids, m.TransactionID)
		p.begin(m, question{p, server}, server)
	}
	return ids
}

// keepMapped asks the servers again and again, until ctx ends.
func (p *Port) keepMapped(ctx context.Context) {
	if len(p.o.STUN) == 0 {
		return
	}
	tick := time.NewTicker(mapEvery)
	defer tick.Stop()
	for {
		ids := p.ask(p.stuns.resolve(ctx, p.o.Log))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.forget(ids...)
		}
	}
}

// askNow asks servers, and waits a little for an answer of each.
func (p *Port) askNow(ctx context.Context, all []netip.AddrPort) {
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mapFirst)
	defer cancel()
	var ids []transaction
	defer func() { p.forget(ids...) }()
	tick := time.NewTicker(mapAgain / 10)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%10 == 0 {
			ids = append(ids, p.ask(all)...)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		enough := len(p.mapped) == len(all)
		p.mu.Unlock()
		if enough {
			return
		}
	}
}
