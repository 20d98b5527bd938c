package libp2p

import (
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/parley-jami/parley/services/dht/overlay"
)

var _ overlay.Reporter = (*Node)(nil)

// maxPrefix bounds the parts of the routing table that are looked at: it fills one of
// twenty more than the binary logarithm of the network.
const maxPrefix = 48

// Reports describes the node. libp2p tells neither families of addresses nor packets: a
// peer in the table counts as good while it is connected.
func (n *Node) Reports() []overlay.Report {
	node := n.Node()
	r := overlay.Report{Overlay: node.Overlay, ID: node.ID, Addresses: node.Addresses, Started: n.started}
	t := overlay.Table{Family: "all"}
	rt := n.kad.RoutingTable()
	for _, p := range rt.ListPeers() {
		if n.host.Network().Connectedness(p) == network.Connected {
			t.Good++
		} else {
			t.Dubious++
		}
	}
	last := 0
	for i := range maxPrefix {
		b := overlay.Bucket{Good: rt.NPeersForCpl(uint(i))}
		if t.Buckets = append(t.Buckets, b); b.Good > 0 {
			last = i + 1
		}
	}
	t.Buckets = t.Buckets[:max(last, 1)]
	if size, err := n.kad.NetworkSize(); err == nil { // it needs some searches first
		t.Estimate = float64(size)
	} else {
		t.Estimate = float64(rt.Size() + 1)
	}
	r.Tables = []overlay.Table{t}
	for _, p := range n.boot {
		r.Bootstrap = append(r.Bootstrap, overlay.BootstrapNode{Addr: p.ID.String(), Answers: n.host.Network().Connectedness(p.ID) == network.Connected})
	}
	n.store.mu.Lock()
	r.Store = overlay.Store{Values: len(n.store.entries), Keys: len(n.store.entries), Bytes: n.store.size, Quota: n.store.max}
	n.store.mu.Unlock()
	n.mu.Lock()
	r.Store.Own, r.Puts, r.Listens = n.count, n.count, len(n.watch)
	n.mu.Unlock()
	sum := n.traffic.GetBandwidthTotals()
	r.Traffic = []overlay.Traffic{{Kind: "stream", InBytes: uint64(sum.TotalIn), OutBytes: uint64(sum.TotalOut)}}
	return []overlay.Report{r}
}
