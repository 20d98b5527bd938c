package turnclient

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what a process has and had of relays. Nil counts nothing.
type Metrics struct {
	running  *prometheus.GaugeVec
	failures *prometheus.CounterVec
	losses   *prometheus.CounterVec
}

// NewMetrics makes and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	label := []string{"relay"}
	m := &Metrics{
		running:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_turn_client_allocations", Help: "Relays that this process has on TURN servers."}, label),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_turn_client_failures_total", Help: "Tries of a TURN server that gave no relay."}, label),
		losses:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_turn_client_lost_total", Help: "Relays that ended at the server."}, label),
	}
	for _, l := range []bool{false, true} {
		m.running.WithLabelValues(kind(l))
		m.failures.WithLabelValues(kind(l))
		m.losses.WithLabelValues(kind(l))
	}
	reg.MustRegister(m.running, m.failures, m.losses)
	return m
}

func kind(tcp bool) string {
	if tcp {
		return "tcp"
	}
	return "udp"
}

func (m *Metrics) opened(tcp bool) {
	if m != nil {
		m.running.WithLabelValues(kind(tcp)).Inc()
	}
}

func (m *Metrics) closed(tcp bool) {
	if m != nil {
		m.running.WithLabelValues(kind(tcp)).Dec()
	}
}

func (m *Metrics) failed(tcp bool) {
	if m != nil {
		m.failures.WithLabelValues(kind(tcp)).Inc()
	}
}

func (m *Metrics) lost(tcp bool) {
	if m != nil {
		m.losses.WithLabelValues(kind(tcp)).Inc()
	}
}
