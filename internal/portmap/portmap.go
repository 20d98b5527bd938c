// Package portmap asks the router of a home or office network to let in what comes to
// ports of this machine: by UPnP (IGD 1 and 2) or NAT-PMP (RFC 6886). The protocols are
// goupnp's and go-nat-pmp's; what is here keeps the mappings while the process runs and
// removes them at its end.
//
// Anything in the local network can answer as a router; whoever switches this on trusts
// that network.
package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Kinds of [Config.Kind]; with Off nobody makes a [Keeper].
const (
	Off    = "off"
	UPnP   = "upnp"
	NATPMP = "natpmp"
	Any    = "any"
)

// Times. A lease is renewed at its half; a router that was started again has forgotten
// it, so it is not long.
const (
	lease      = 20 * time.Minute
	retryFirst = 15 * time.Second
	retryMost  = 10 * time.Minute
	askWithin  = 10 * time.Second // for one question
	findWithin = 20 * time.Second // for a router: UPnP waits some seconds for each kind
	leaveFor   = 2 * time.Second  // for the removal of all mappings at the end
)

// ErrNone says that no router answered.
var ErrNone = errors.New("no router of this network maps ports")

// Port is one to map. It is mapped to the same port outside, since that is what peers
// are told.
type Port struct {
	Network string // "udp" or "tcp"
	Port    uint16
	What    string // for the log and the router's page
}

// gateway is a router.
type gateway interface {
	String() string
	external(context.Context) (netip.Addr, error)
	// add maps a port and returns the one outside, and for how long; 0: for good.
	add(ctx context.Context, p Port, d time.Duration) (uint16, time.Duration, error)
	remove(context.Context, Port) error
}

// Config is what a [Keeper] keeps.
type Config struct {
	Kind  string // UPnP, NATPMP or Any
	Ports []Port
	Log   *zap.Logger
	Tell  func(netip.Addr) // the router's public address when it changes; may be nil

	find func(context.Context, string) (gateway, error) // nil: discover
	wait time.Duration                                  // 0: retryFirst
}

// Keeper keeps mappings.
type Keeper struct {
	cfg    Config
	told   netip.Addr
	mapped map[Port]bool // as the log knows it
	lost   bool          // the log knows that there is no router
}

// New returns a keeper; nothing is asked before Run.
func New(cfg Config) *Keeper {
	if cfg.find == nil {
		cfg.find = discover
	}
	if cfg.wait == 0 {
		cfg.wait = retryFirst
	}
	return &Keeper{cfg: cfg, mapped: map[Port]bool{}}
}

// Run maps, renews and, when ctx ends, removes.
func (k *Keeper) Run(ctx context.Context) {
	wait := k.cfg.wait
	var g gateway
	for {
		if g == nil {
			g = k.seek(ctx)
		}
		next := wait
		if g != nil {
			life, err := k.renew(ctx, g)
			if err != nil && ctx.Err() == nil {
				k.cfg.Log.Warn("the router does not answer any more", zap.Stringer("router", g), zap.Error(err))
				g = nil // look for another
			} else {
				next, wait = life/2, k.cfg.wait
			}
		}
		if g == nil {
			wait = min(2*wait, retryMost)
		}
		select {
		case <-ctx.Done():
			if g != nil {
				k.leave(context.WithoutCancel(ctx), g)
			}
			return
		case <-time.After(next):
		}
	}
}

func (k *Keeper) seek(ctx context.Context) gateway {
	g, err := k.cfg.find(ctx, k.cfg.Kind)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		if !k.lost {
			k.cfg.Log.Warn("ports are not mapped: no router answers (media.port_mapping); map them by hand, or switch it off", zap.String("by", k.cfg.Kind), zap.Error(err))
		}
		k.lost = true
		return nil
	}
	k.lost = false
	k.cfg.Log.Info("router found", zap.Stringer("router", g))
	return g
}

// renew maps all ports anew. It returns for how long, and an error when the router
// answered nothing at all.
func (k *Keeper) renew(ctx context.Context, g gateway) (time.Duration, error) {
	life := lease
	var errs error
	answered := false
	for _, p := range k.cfg.Ports {
		got, d, err := k.add(ctx, g, p)
		if err == nil && got != p.Port {
			err = fmt.Errorf("the router offers port %d instead, which nobody would be told", got)
			errs = errors.Join(errs, k.ask(ctx, func(ctx context.Context) error { return g.remove(ctx, p) }))
		}
		answered = answered || err == nil
		if ctx.Err() != nil {
			return life, ctx.Err()
		}
		k.note(g, p, err)
		errs = errors.Join(errs, err)
		if err == nil && d > 0 {
			life = min(life, d)
		}
	}
	var addr netip.Addr
	err := k.ask(ctx, func(ctx context.Context) (err error) {
		addr, err = g.external(ctx)
		return err
	})
	if err != nil {
		errs = errors.Join(errs, err)
	} else {
		answered = true
		k.tell(g, addr)
	}
	if !answered {
		return life, errs
	}
	return max(life, time.Minute), nil
}

func (k *Keeper) add(ctx context.Context, g gateway, p Port) (got uint16, d time.Duration, err error) {
	err = k.ask(ctx, func(ctx context.Context) (err error) {
		got, d, err = g.add(ctx, p, lease)
		return err
	})
	return got, d, err
}

func (k *Keeper) ask(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return f(ctx)
}

// note logs a port when it begins or ceases to be mapped.
func (k *Keeper) note(g gateway, p Port, err error) {
	was, known := k.mapped[p]
	k.mapped[p] = err == nil
	fields := []zap.Field{zap.String("network", p.Network), zap.Uint16("port", p.Port), zap.String("for", p.What), zap.Stringer("router", g)}
	switch {
	case err == nil && !was:
		k.cfg.Log.Info("port mapped", fields...)
	case err != nil && (was || !known):
		k.cfg.Log.Warn("port not mapped", append(fields, zap.Error(err))...)
	}
}

func (k *Keeper) tell(g gateway, addr netip.Addr) {
	if addr == k.told {
		return
	}
	k.told = addr
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || shared.Contains(addr) {
		k.cfg.Log.Warn("the router is behind another one: what it lets in does not come from the Internet", zap.Stringer("router", g), zap.Stringer("address", addr))
		return
	}
	k.cfg.Log.Info("public address learned", zap.Stringer("router", g), zap.Stringer("address", addr))
	if k.cfg.Tell != nil {
		k.cfg.Tell(addr)
	}
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // carriers' NAT (RFC 6598)

// leave removes what is mapped, all at once: the process is about to end.
func (k *Keeper) leave(ctx context.Context, g gateway) {
	ctx, cancel := context.WithTimeout(ctx, leaveFor)
	defer cancel()
	var wg sync.WaitGroup
	for p, is := range k.mapped {
		if !is {
			continue
		}
		wg.Go(func() {
			if err := g.remove(ctx, p); err != nil {
				k.cfg.Log.Warn("a mapping stays until its lease is over", zap.Uint16("port", p.Port), zap.Error(err))
			}
		})
	}
	wg.Wait()
}
