package proxyclient

import (
	"time"

	"github.com/parley-jami/parley/services/dht/overlay"
)

var _ overlay.Reporter = (*Node)(nil)

// Reports describes the node: which proxy is in use and since when it answers, and what
// this node puts and listens to there.
func (n *Node) Reports() []overlay.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.purgeLocked(time.Now())
	r := overlay.Report{Overlay: "proxy", ID: n.id.ID.String(), Started: n.started, Since: n.since, Listens: len(n.watch), Puts: n.own.count,
		Store: overlay.Store{Own: n.own.count}}
	if n.up {
		r.Peers, r.Addresses = n.peers, []string{n.servers[n.cur].url}
	}
	for i, s := range n.servers {
		r.Proxies = append(r.Proxies, overlay.Proxy{URL: s.url, InUse: n.up && i == n.cur, Answers: s.up})
	}
	return []overlay.Report{r}
}
