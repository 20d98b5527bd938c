// Package reach learns the address at which others reach this machine, by asking STUN
// servers (RFC 8489).
package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/stun/v4"
	"go.uber.org/zap"
)

const (
	defaultPort = "3478"
	askWithin   = 5 * time.Second
	// First retransmission (RFC 8489 §6.2.1); pion doubles it seven times, which askWithin
	// ends before.
	firstRTO = 500 * time.Millisecond
)

// How often the address is asked for: it changes where lines are dialled anew at night.
const (
	every      = 5 * time.Minute
	retryFirst = 5 * time.Second
)

// ErrNone says that no server answered with an address of use.
var ErrNone = errors.New("no STUN server answered")

// Ask asks all servers (HOST or HOST:PORT) at once and returns the first answer.
// network is "udp4" or "udp6"; bound, when it is not the zero address, is where the
// question leaves from. The error names what each server did.
func Ask(ctx context.Context, network string, bound netip.Addr, servers []string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	type answer struct {
		addr netip.Addr
		err  error
	}
	answers := make(chan answer, len(servers))
	for _, s := range servers {
		go func() {
			a, err := ask(ctx, network, bound, s)
			if err != nil {
				err = fmt.Errorf("%s: %w", s, err)
			}
			answers <- answer{a, err}
		}()
	}
	err := ErrNone
	var found netip.Addr
	for range servers { // all are waited for: cancel ends those that are late
		a := <-answers
		switch {
		case found.IsValid():
		case a.err == nil:
			found = a.addr
			cancel()
		default:
			err = fmt.Errorf("%w; %w", err, a.err)
		}
	}
	if found.IsValid() {
		return found, nil
	}
	return netip.Addr{}, err
}

var (
	errSilent  = errors.New("no answer")
	errPrivate = errors.New("the address that it sees is not a public one")
)

func ask(ctx context.Context, network string, bound netip.Addr, server string) (netip.Addr, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), defaultPort)
	}
	d := net.Dialer{}
	if bound.IsValid() && !bound.IsUnspecified() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(bound, 0))
	}
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		return netip.Addr{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // ends Do below
	defer stop()
	c, err := stun.NewClient(conn, stun.WithRTO(firstRTO))
	if err != nil {
		return netip.Addr{}, errors.Join(err, conn.Close())
	}
	defer c.Close() // closes conn too; an error: it was closed already
	var got netip.Addr
	var failed error
	err = c.Do(stun.MustBuild(stun.TransactionID, stun.BindingRequest), func(e stun.Event) { got, failed = mapped(e) })
	if err == nil {
		err = failed
	}
	if err != nil && ctx.Err() != nil {
		err = errSilent
	}
	return got, err
}

// mapped returns the address in an answer.
func mapped(e stun.Event) (netip.Addr, error) {
	if e.Error != nil {
		return netip.Addr{}, e.Error
	}
	if e.Message.Type != stun.BindingSuccess {
		return netip.Addr{}, fmt.Errorf("it answers %s", e.Message.Type)
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(e.Message); err != nil {
		var m stun.MappedAddress // of servers before RFC 5389
		if m.GetFrom(e.Message) != nil {
			return netip.Addr{}, err
		}
		x.IP = m.IP
	}
	a, ok := netip.AddrFromSlice(x.IP)
	a = a.Unmap()
	if !ok || !Public(a) {
		return netip.Addr{}, errPrivate
	}
	return a, nil
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // carriers' NAT (RFC 6598)

// Public reports whether others on the Internet may reach an address.
func Public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a)
}

// Watcher asks again and again.
type Watcher struct {
	Bound   netip.Addr // where the questions leave from; zero: anywhere
	Servers []string
	Log     *zap.Logger
	Tell    func([]netip.Addr) // the addresses, one of each family at most, when they change

	retry time.Duration // 0: retryFirst
}

// Run asks until ctx ends. What was learned stays while no server answers. A machine
// need not have both families.
func (w *Watcher) Run(ctx context.Context) {
	first := w.retry
	if first == 0 {
		first = retryFirst
	}
	known := map[string]netip.Addr{}
	silent, wait := false, first
	for {
		changed, answered, err := w.round(ctx, known)
		if ctx.Err() != nil {
			return
		}
		if changed {
			list := make([]netip.Addr, 0, len(families))
			for _, network := range families {
				if a := known[network]; a.IsValid() {
					list = append(list, a)
				}
			}
			w.Log.Info("public address learned", zap.Stringers("addresses", list))
			w.Tell(list)
		}
		switch {
		case answered:
			if silent {
				w.Log.Info("STUN servers answer again")
			}
			silent, wait = false, every
		case !silent:
			w.Log.Warn("the public address is not known, since no STUN server answers (media.stun): browsers and phones elsewhere may get no audio; "+
				"let UDP out to these servers, or name the address in media.public", zap.Error(err))
			silent, wait = true, first
		default:
			wait = min(2*wait, every)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

var families = []string{"udp4", "udp6"}

func (w *Watcher) round(ctx context.Context, known map[string]netip.Addr) (changed, answered bool, errs error) {
	for _, network := range families {
		if w.Bound.IsValid() && !w.Bound.IsUnspecified() && w.Bound.Unmap().Is4() != (network == "udp4") {
			continue
		}
		a, err := Ask(ctx, network, w.Bound, w.Servers)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", network, err))
			continue
		}
		answered = true
		changed = changed || known[network] != a
		known[network] = a
	}
	return changed, answered, errs
}
