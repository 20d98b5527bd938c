package opendht

import (
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

var _ overlay.Reporter = (*Node)(nil)

// Reports describes the node.
func (n *Node) Reports() []overlay.Report {
	node := n.Node()
	n.mu.Lock()
	n.core.Advance(time.Now())
	s := n.core.Snapshot()
	own := len(n.own)
	n.advanceLocked()
	n.mu.Unlock()
	r := overlay.Report{Overlay: node.Overlay, ID: node.ID, NodeID: jami.NodeID(n.id.ID).String(), Network: n.o.Network, Addresses: node.Addresses, Public: s.Public, Started: s.Started,
		Store:    overlay.Store{Keys: s.Keys, Values: s.Values, Bytes: s.Bytes, Quota: s.Quota, Own: own, Listeners: s.Watchers},
		Searches: s.Searches, Requests: s.Requests, Puts: s.Puts, Listens: s.Listens}
	for _, t := range s.Tables {
		x := overlay.Table{Family: "ipv4", Good: t.Good, Dubious: t.Dubious, Failed: t.Failed, Incoming: t.Incoming, Estimate: t.Estimate}
		if t.IPv6 {
			x.Family = "ipv6"
		}
		for _, b := range t.Buckets {
			x.Buckets = append(x.Buckets, overlay.Bucket(b))
		}
		r.Tables = append(r.Tables, x)
	}
	for _, b := range s.Asked {
		r.Bootstrap = append(r.Bootstrap, overlay.BootstrapNode{Addr: b.Addr.String(), Answers: b.Answers})
	}
	for _, name := range n.o.Bootstrap { // that has not been looked up yet, or can't be
		if len(s.Asked) == 0 {
			r.Bootstrap = append(r.Bootstrap, overlay.BootstrapNode{Addr: name})
		}
	}
	r.Traffic, r.Dropped, r.Events = counts(&s.Stats)
	return []overlay.Report{r}
}

// counts gives what core counted its names.
func counts(s *core.Stats) (traffic []overlay.Traffic, dropped, events []overlay.Count) {
	for k := wire.Ping; k <= wire.Fragment; k++ {
		in, out := s.In[k], s.Out[k]
		traffic = append(traffic, overlay.Traffic{Kind: k.String(), In: in.Packets, InBytes: in.Bytes, Out: out.Packets, OutBytes: out.Bytes})
	}
	dropped = []overlay.Count{
		{Name: "malformed", N: s.Malformed}, {Name: "rate", N: s.Limited}, {Name: "unasked", N: s.Forged}, {Name: "stray", N: s.Stray},
		{Name: "token", N: s.BadToken}, {Name: "network", N: s.Foreign}, {Name: "own", N: s.Own}, {Name: "address", N: s.Unusable}, {Name: "full", N: s.Crowded},
	}
	events = []overlay.Count{
		{Name: "refused", N: s.Refused}, {Name: "evicted", N: s.Evicted}, {Name: "held", N: s.Held}, {Name: "errors", N: s.Errors}, {Name: "unanswered", N: s.Unanswered},
	}
	return traffic, dropped, events
}
