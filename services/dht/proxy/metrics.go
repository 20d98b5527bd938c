package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/internal/httpapi"
)

// Operations and results of requests.
const (
	opNode      = "node"
	opGet       = "get"
	opListen    = "listen"
	opPut       = "put"
	opSubscribe = "subscribe"
	opPing      = "ping"

	resultJSON     = "json"
	resultForged   = "forged"
	resultFull     = "full"
	resultFailed   = "failed"
	resultRefused  = "refused"
	resultPush     = "push_unsupported"
	resultSlow     = "slow_reader"
	resultEnded    = "ended" // by the client or by our end
	resultOverlay  = "overlay"
	connsOfAddress = 1024 // each listener has one
	connsInAll     = 8192
)

// Counts are what a proxy has.
type Counts struct{ Listens, Subscriptions, Puts, Keys int }

// Counts counts.
func (p *Proxy) Counts() Counts {
	keys := p.feeds.len()
	p.mu.Lock()
	defer p.mu.Unlock()
	return Counts{Listens: p.listens.Taken(), Subscriptions: len(p.subs), Puts: len(p.puts), Keys: keys}
}

// NewMetrics registers the counters, from zero; count may only be called later.
func NewMetrics(reg prometheus.Registerer, count func() Counts) (*httpapi.Metrics, error) {
	return httpapi.NewMetrics(reg, httpapi.Names{Name: "dht_proxy", Server: "the DHT proxy",
		Ops:     []string{opNode, opGet, opListen, opPut, opSubscribe, opPing},
		Results: []string{resultJSON, resultForged, resultFull, resultFailed, resultRefused, resultPush, resultSlow, resultEnded, resultOverlay},
		Buckets: []float64{.001, .01, .1, .5, 1, 2, 5, 10, 30, 60, 600, 3600}, PerAddress: connsOfAddress, InAll: connsInAll},
		httpapi.Gauge("parley_dht_proxy_listens", "Listeners by HTTP.", func() int { return count().Listens }),
		httpapi.Gauge("parley_dht_proxy_subscriptions", "Subscriptions that are told by a push service.", func() int { return count().Subscriptions }),
		httpapi.Gauge("parley_dht_proxy_values", "Values put for clients.", func() int { return count().Puts }),
		httpapi.Gauge("parley_dht_proxy_keys", "Keys that are watched for clients.", func() int { return count().Keys }))
}
