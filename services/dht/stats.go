package dht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// aloneFor is how long a node may be without others before its operator is warned.
const aloneFor = 10 * time.Second

// reports asks an overlay for its state; none where it tells of none.
func reports(o overlay.Overlay) []overlay.Report {
	if r, ok := o.(overlay.Reporter); ok {
		return r.Reports()
	}
	return nil
}

func (s *Service) stats(context.Context, *bus.Request[contract.None]) (*contract.DHTStats, error) {
	now := time.Now()
	out := &contract.DHTStats{Overlays: []contract.DHTOverlay{}}
	for _, r := range reports(s.node.Overlay) {
		out.Overlays = append(out.Overlays, statsView(&r))
		out.Warnings = append(out.Warnings, warnings(&r, now)...)
	}
	out.Leases = s.leaseCount()
	return out, nil
}

func (s *Service) leaseCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.leases)
}

func statsView(r *overlay.Report) contract.DHTOverlay {
	o := contract.DHTOverlay{Overlay: r.Overlay, ID: r.ID, NodeID: r.NodeID, Network: r.Network, Addresses: append([]string{}, r.Addresses...), Public: []string{}, Started: r.Started.UTC(),
		Bootstrap: []contract.DHTBootstrap{}, Tables: []contract.DHTTable{}, Store: contract.DHTStore(r.Store), Searches: r.Searches, Requests: r.Requests,
		Puts: r.Puts, Listens: r.Listens, Traffic: []contract.DHTTraffic{}, Dropped: countsView(r.Dropped), Events: countsView(r.Events)}
	for _, a := range r.Public {
		o.Public = append(o.Public, a.String())
	}
	for _, b := range r.Bootstrap {
		o.Bootstrap = append(o.Bootstrap, contract.DHTBootstrap(b))
	}
	for _, t := range r.Tables {
		x := contract.DHTTable{Family: t.Family, Good: t.Good, Dubious: t.Dubious, Failed: t.Failed, Incoming: t.Incoming, Depth: t.Depth(), Estimate: t.Estimate,
			Buckets: make([]contract.DHTBucket, len(t.Buckets))}
		for i, b := range t.Buckets {
			x.Buckets[i] = contract.DHTBucket(b)
		}
		o.Tables = append(o.Tables, x)
	}
	for _, t := range r.Traffic {
		o.Traffic = append(o.Traffic, contract.DHTTraffic(t))
	}
	if len(r.Proxies) > 0 {
		o.Via = &contract.DHTVia{Proxies: make([]contract.DHTProxy, len(r.Proxies)), Since: r.Since.UTC(), Peers: r.Peers}
		for i, p := range r.Proxies {
			o.Via.Proxies[i] = contract.DHTProxy(p)
		}
	}
	return o
}

func countsView(cs []overlay.Count) []contract.DHTCount {
	out := make([]contract.DHTCount, len(cs))
	for i, c := range cs {
		out[i] = contract.DHTCount(c)
	}
	return out
}

// warnings say what an operator should do about an overlay.
func warnings(r *overlay.Report, now time.Time) []string {
	if len(r.Proxies) > 0 {
		return proxyWarnings(r, now)
	}
	good := 0
	for _, t := range r.Tables {
		good += t.Good
	}
	setting := "dht.bootstrap"
	if r.Overlay == "opendht" {
		setting = "dht.opendht_bootstrap"
	}
	var silent []string
	for _, b := range r.Bootstrap {
		if !b.Answers {
			silent = append(silent, b.Addr)
		}
	}
	names := strings.Join(silent[:min(len(silent), 4)], ", ")
	var out []string
	switch {
	case now.Sub(r.Started) < aloneFor:
	case good == 0 && len(r.Bootstrap) == 0 && r.Overlay != "opendht": // a network of one node is one, too
	case good == 0 && len(r.Bootstrap) == 0:
		out = append(out, fmt.Sprintf("%s knows no other node and has none to start from: name one in %s, or nobody outside finds this node's values", r.Overlay, setting))
	case good == 0:
		out = append(out, fmt.Sprintf("%s knows no other node: %s does not answer. Look whether this machine's firewall lets UDP out and answers in, whether the address in %s is right, and whether that node runs; it is asked again by itself",
			r.Overlay, names, setting))
	case len(silent) > 0 && len(silent) == len(r.Bootstrap):
		out = append(out, fmt.Sprintf("no bootstrap node of %s answers (%s): the node works with those that it knows, and a new start may not find the network; put one that answers into %s", r.Overlay, names, setting))
	}
	if q := r.Store.Quota; q > 0 && r.Store.Bytes > q-q/20 {
		out = append(out, fmt.Sprintf("the store of %s is full (%d of %d MiB): the oldest values of whoever stores most give way", r.Overlay, r.Store.Bytes>>20, q>>20))
	}
	return out
}

// proxyWarnings say what an operator should do about the proxies.
func proxyWarnings(r *overlay.Report, now time.Time) []string {
	if len(r.Addresses) > 0 || now.Sub(r.Started) < aloneFor {
		return nil
	}
	var names []string
	for _, p := range r.Proxies[:min(len(r.Proxies), 4)] {
		names = append(names, p.URL)
	}
	return []string{fmt.Sprintf("no DHT proxy answers (%s): nobody finds this node's values, and it finds nobody's. Look whether this machine's firewall lets TCP out, whether the address in dht.proxy is right, and whether that proxy runs; it is asked again by itself",
		strings.Join(names, ", "))}
}

// prober is the overlay that can ask single nodes.
func (s *Service) prober() (overlay.Prober, error) {
	if p, ok := s.node.Overlay.(overlay.Prober); ok {
		return p, nil
	}
	if s.env.Config.DHT.Overlay == "proxy" {
		return nil, contract.ErrBadRequest.With("this node reaches OpenDHT's network by a proxy (dht.overlay: proxy) and can ask no node itself; that takes UDP, and dht.overlay set to opendht or both")
	}
	return nil, noProber
}

var noProber = contract.ErrBadRequest.With("this node is not in OpenDHT's network: set dht.overlay to opendht or both")

func (s *Service) ping(ctx context.Context, r *bus.Request[contract.DHTPing]) (*contract.DHTPong, error) {
	p, err := s.prober()
	if err != nil {
		return nil, err
	}
	if r.Body.Addr == "" || len(r.Body.Addr) > 300 {
		return nil, contract.ErrBadRequest.With("a node is HOST:PORT; without a port, 4222")
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	pong, err := p.Ping(ctx, r.Body.Addr)
	switch {
	case errors.Is(err, overlay.ErrSilent), errors.Is(err, context.DeadlineExceeded):
		return nil, contract.ErrTimeout.With("%s does not answer", r.Body.Addr)
	case errors.Is(err, errors.ErrUnsupported):
		return nil, noProber
	case errors.Is(err, overlay.ErrClosed):
		return nil, contract.ErrUnavailable
	case err != nil:
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	return &contract.DHTPong{Addr: pong.Addr.String(), ID: pong.ID, Agent: pong.Agent, Seen: addrText(pong.Seen), TimeMs: ms(pong.Time), Sendings: pong.Sendings}, nil
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Bounds of a scan that the bus asked for.
const (
	scanSeconds = 120
	scanNodes   = 50_000
	scanRate    = 1000
	scanList    = 5000
)

func (s *Service) scan(ctx context.Context, r *bus.Request[contract.DHTScan]) (*contract.DHTScanned, error) {
	p, err := s.prober()
	if err != nil {
		return nil, err
	}
	q := r.Body
	if q.Seconds < 1 || q.Seconds > scanSeconds || q.Nodes < 1 || q.Nodes > scanNodes || q.Rate < 1 || q.Rate > scanRate {
		return nil, contract.ErrBadRequest.With("a scan takes 1 to %d seconds, %d nodes and %d packets a second", scanSeconds, scanNodes, scanRate)
	}
	if !s.scanning.TryLock() {
		return nil, contract.ErrBusy.With("a scan runs already; wait until it has ended")
	}
	defer s.scanning.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(q.Seconds)*time.Second)
	defer cancel()
	w, err := p.Scan(ctx, overlay.Walk{Nodes: q.Nodes, Rate: q.Rate})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, noProber
	case errors.Is(err, overlay.ErrClosed):
		return nil, contract.ErrUnavailable
	case err != nil:
		return nil, err
	}
	return scannedView(&w, q.List), nil
}

func scannedView(w *overlay.Walked, list bool) *contract.DHTScanned {
	out := &contract.DHTScanned{Found: len(w.Nodes), Silent: w.Silent, Asked: w.Asked, Whole: w.Whole, TookMs: w.Took.Milliseconds(), Estimate: w.Estimate}
	families, agents := map[string]uint64{}, map[string]uint64{}
	for _, n := range w.Nodes {
		f := "ipv4"
		if n.Addr.Addr().Is6() {
			f = "ipv6"
		}
		families[f]++
		agents[n.Agent]++
		if list && len(out.Nodes) < scanList {
			out.Nodes = append(out.Nodes, contract.DHTScannedNode{ID: n.ID, Addr: n.Addr.String(), Agent: n.Agent, TimeMs: ms(n.Time)})
		}
	}
	out.Families, out.Agents = most(families), most(agents)
	return out
}

// mostNames bounds the names that strangers chose.
const mostNames = 32

// most lists counters, the largest first.
func most(m map[string]uint64) []contract.DHTCount {
	out := []contract.DHTCount{}
	for name, n := range m {
		out = append(out, contract.DHTCount{Name: strings.ToValidUTF8(name, "\uFFFD"), N: n})
	}
	slices.SortFunc(out, func(a, b contract.DHTCount) int {
		return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), mostNames)]
}
