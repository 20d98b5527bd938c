package media

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/parley-jami/parley/internal/portmap"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/media/reach"
)

// mappedPairs is how many pairs of ports for phones a router is asked for. Phones share
// the first pairs; routers of homes have room for a few dozen ports.
const mappedPairs = 4

// reachable learns by which addresses others reach this machine, and keeps the router's
// ports open, until ctx ends. Neither is waited for: sound of those who are in comes first.
func (s *Service) reachable(ctx context.Context) {
	c := s.env.Config.Media
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	from := map[string][]netip.Addr{}
	tell := func(source string, list []netip.Addr) {
		mu.Lock()
		defer mu.Unlock()
		from[source] = list
		var all []netip.Addr
		for _, a := range slices.Concat(from["stun"], from["router"]) {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
		s.host.Reached(all)
	}
	if len(c.STUN) > 0 && len(s.public) == 0 {
		w := reach.Watcher{Servers: c.STUN, Log: s.log.Named("stun"), Tell: func(list []netip.Addr) { tell("stun", list) }}
		if at, err := netip.ParseAddrPort(c.Listen); err == nil { // else it listens everywhere
			w.Bound = at.Addr()
		}
		wg.Go(func() { w.Run(ctx) })
	}
	if c.PortMapping == "" || c.PortMapping == portmap.Off {
		return
	}
	specs, err := sockets.MediaSpecs(s.env.Config)
	if err != nil {
		return // open told
	}
	ports := portmap.Of(specs[:1+2*mappedPairs])
	if len(ports) == 0 {
		return
	}
	k := portmap.New(portmap.Config{Kind: c.PortMapping, Ports: ports, Log: s.log.Named("portmap"),
		Tell: func(a netip.Addr) { tell("router", []netip.Addr{a}) }})
	wg.Go(func() { k.Run(ctx) })
}
