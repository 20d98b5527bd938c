package relay

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the labels.
const (
	refusedUser       = "user_quota"
	refusedAddress    = "quota" // of the address, or in all
	refusedPorts      = "ports"
	refusedStop       = "stop"
	refusedCredential = "credential"

	ignoredMalformed = "malformed"
	ignoredUnknown   = "no_allocation"
	ignoredFlood     = "flood"
)

// Metrics are the counters of a server.
type Metrics struct {
	up, down, forbidden, dropped prometheus.Counter

	refusedBy, ignoredBy, begunBy map[string]prometheus.Counter
	lasted                        prometheus.Histogram
	running                       map[string]prometheus.Gauge
}

// NewMetrics registers the counters, from zero.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{refusedBy: map[string]prometheus.Counter{}, ignoredBy: map[string]prometheus.Counter{}, begunBy: map[string]prometheus.Counter{}, running: map[string]prometheus.Gauge{}}
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_turn_relayed_bytes_total", Help: "Bytes relayed, from clients to peers and to clients."}, []string{"direction"})
	m.up, m.down = bytes.WithLabelValues("from_client"), bytes.WithLabelValues("to_client")
	m.forbidden = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_turn_forbidden_total", Help: "Permissions, packets and connections for peers to which nothing is relayed."})
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_turn_dropped_packets_total", Help: "Packets above the bandwidth of their allocation."})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_turn_refused_total", Help: "Requests refused: credentials and allocations."}, []string{"reason"})
	for _, r := range []string{refusedUser, refusedAddress, refusedPorts, refusedStop, refusedCredential} {
		m.refusedBy[r] = refused.WithLabelValues(r)
	}
	ignored := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_turn_ignored_datagrams_total", Help: "Datagrams without an answer."}, []string{"reason"})
	for _, r := range []string{ignoredMalformed, ignoredUnknown, ignoredFlood} {
		m.ignoredBy[r] = ignored.WithLabelValues(r)
	}
	begun := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_turn_allocations_total", Help: "Allocations made."}, []string{"transport", "relay"})
	running := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_turn_allocations", Help: "Allocations that run."}, []string{"transport", "relay"})
	for _, way := range [][2]string{{"udp", "udp"}, {"tcp", "udp"}, {"tcp", "tcp"}} {
		m.begunBy[way[0]+way[1]] = begun.WithLabelValues(way[0], way[1])
		m.running[way[0]+way[1]] = running.WithLabelValues(way[0], way[1])
	}
	m.lasted = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_turn_allocation_seconds", Help: "How long allocations lasted.", Buckets: []float64{10, 60, 600, 3600, 4 * 3600, 24 * 3600}})
	for _, c := range []prometheus.Collector{bytes, m.forbidden, m.dropped, refused, ignored, begun, running, m.lasted} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) refused(why string) { m.refusedBy[why].Inc() }
func (m *Metrics) ignored(why string) { m.ignoredBy[why].Inc() }

func (m *Metrics) begun(transport, relay string) {
	m.begunBy[transport+relay].Inc()
	m.running[transport+relay].Inc()
}

func (m *Metrics) ended(transport, relay string, took time.Duration) {
	m.running[transport+relay].Dec()
	m.lasted.Observe(took.Seconds())
}
