package proxy

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// nodeInfo says what the node knows of the network. A client is connected when some
// family of addresses has good nodes; ours are all given as IPv4's. The id is the one in
// the network (§2), or for another overlay one like it.
func (p *Proxy) nodeInfo() proxyjson.NodeInfo {
	n := p.o.Overlay.Node()
	good := n.Peers
	if p.o.Alone { // it keeps what its clients put
		good = max(good, 1)
	}
	return proxyjson.NodeInfo{NodeID: jami.HashKey("node:" + n.ID).String(), IPv4: proxyjson.Table{Good: good}, Ops: p.feeds.len(), VAPID: p.o.VAPID}
}

func (p *Proxy) info(r *http.Request) httpapi.Answer {
	n := p.nodeInfo()
	if ip := limits.ClientIP(r); ip.IsValid() {
		n.PublicIP = netip.AddrFrom16(ip.As16()).String() // IPv4 mapped, as OpenDHT has it
	}
	return line(httpapi.Success(n))
}

func (p *Proxy) stats(*http.Request) httpapi.Answer {
	c := p.Counts()
	permanent := 0
	p.mu.Lock()
	for _, k := range p.puts {
		if k.permanent {
			permanent++
		}
	}
	rate := p.rate.update(p.asked.Load(), p.o.Now())
	p.mu.Unlock()
	return line(httpapi.Success(proxyjson.NodeStats{Listens: c.Listens, Puts: c.Puts, Permanent: permanent, PushListens: c.Subscriptions, RequestRate: rate, Node: p.nodeInfo()}))
}

func line(x httpapi.Answer) httpapi.Answer {
	x.Body = append(x.Body, '\n')
	return x
}

// rate is requests per second between two looks.
type rate struct {
	asked int64
	at    time.Time
	last  float64
}

func (r *rate) update(asked int64, now time.Time) float64 {
	if since := now.Sub(r.at); r.at.IsZero() || since >= time.Second {
		if !r.at.IsZero() {
			r.last = float64(asked-r.asked) / since.Seconds()
		}
		r.asked, r.at = asked, now
	}
	return r.last
}
