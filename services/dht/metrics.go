package dht

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// collector makes metrics of the overlays' reports when it is asked: nothing is done for
// them on the way of a packet. Its labels are of closed sets.
type collector struct {
	reports func() []overlay.Report
	leases  func() int
}

var (
	descNodes     = desc("nodes", "Nodes in the routing table by state: good, dubious, failed; incoming are those of the good that asked this node last.", "family", "state")
	descDepth     = desc("table_depth", "Buckets of the routing table, less one.", "family")
	descEstimate  = desc("network_size", "Nodes of the network, estimated from the closest ones.", "family")
	descKeys      = desc("stored_keys", "Keys that hold values here.")
	descValues    = desc("stored_values", "Values that are stored here, of others and of this node.")
	descBytes     = desc("stored_bytes", "Bytes of others' values that are stored here.")
	descQuota     = desc("stored_bytes_limit", "Bytes of others' values that find room.")
	descOwn       = desc("own_values", "Values that this node puts.")
	descListeners = desc("listeners", "Other nodes that listen to keys here.")
	descListens   = desc("listens", "Keys that this node listens to, by node that it asked.")
	descSearches  = desc("searches", "Searches that something waits for.")
	descRequests  = desc("requests", "Queries without an answer yet.")
	descBootstrap = desc("bootstrap_nodes", "Nodes to start from, by whether they answer.", "answers")
	descPackets   = desc("packets_total", "Packets by direction and kind.", "direction", "kind")
	descTraffic   = desc("bytes_total", "Bytes of packets by direction and kind, without UDP's headers.", "direction", "kind")
	descDropped   = desc("packets_dropped_total", "Packets that came and were dropped, by reason; rate is the limit of queries.", "reason")
	descEvents    = desc("events_total", "Values refused or evicted, answers held for a proof of address, queries answered with an error or not at all.", "event")
	descProxies   = desc("proxies", "DHT proxies by which the network is reached, by whether they answer.", "answers")
	descProxyUsed = desc("proxy_connected", "1 while a DHT proxy is in use, 0 while none answers.")
	descLeases    = prometheus.NewDesc("parley_dht_leases", "Keys that the bus listens to.", nil, nil)
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("parley_dht_"+name, help, append([]string{"overlay"}, labels...), nil)
}

// Describe sends nothing: which metrics there are depends on the overlay.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(descLeases, prometheus.GaugeValue, float64(c.leases()))
	for _, r := range c.reports() {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, kind, v, append([]string{r.Overlay}, labels...)...)
		}
		gauge := func(d *prometheus.Desc, v int, labels ...string) {
			send(d, prometheus.GaugeValue, float64(v), labels...)
		}
		count := func(d *prometheus.Desc, v uint64, labels ...string) {
			send(d, prometheus.CounterValue, float64(v), labels...)
		}
		if len(r.Proxies) > 0 { // it keeps nothing of others and has no table
			proxies := map[bool]int{}
			for _, p := range r.Proxies {
				proxies[p.Answers]++
			}
			gauge(descProxies, proxies[true], "yes")
			gauge(descProxies, proxies[false], "no")
			gauge(descProxyUsed, len(r.Addresses))
			gauge(descOwn, r.Store.Own)
			gauge(descListens, r.Listens)
			continue
		}
		for _, t := range r.Tables {
			gauge(descNodes, t.Good, t.Family, "good")
			gauge(descNodes, t.Dubious, t.Family, "dubious")
			gauge(descNodes, t.Failed, t.Family, "failed")
			gauge(descNodes, t.Incoming, t.Family, "incoming")
			gauge(descDepth, t.Depth(), t.Family)
			send(descEstimate, prometheus.GaugeValue, t.Estimate, t.Family)
		}
		gauge(descKeys, r.Store.Keys)
		gauge(descValues, r.Store.Values)
		gauge(descBytes, r.Store.Bytes)
		gauge(descQuota, r.Store.Quota)
		gauge(descOwn, r.Store.Own)
		gauge(descListeners, r.Store.Listeners)
		gauge(descListens, r.Listens)
		gauge(descSearches, r.Searches)
		gauge(descRequests, r.Requests)
		answers := map[bool]int{}
		for _, b := range r.Bootstrap {
			answers[b.Answers]++
		}
		gauge(descBootstrap, answers[true], "yes")
		gauge(descBootstrap, answers[false], "no")
		for _, t := range r.Traffic {
			count(descPackets, t.In, "in", t.Kind)
			count(descPackets, t.Out, "out", t.Kind)
			count(descTraffic, t.InBytes, "in", t.Kind)
			count(descTraffic, t.OutBytes, "out", t.Kind)
		}
		for _, d := range r.Dropped {
			count(descDropped, d.N, d.Name)
		}
		for _, e := range r.Events {
			count(descEvents, e.N, e.Name)
		}
	}
}
