package device

import "github.com/prometheus/client_golang/prometheus"

// Metrics of connections. nil counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec // outcome
	open     prometheus.Gauge
	sessions *prometheus.CounterVec // transport
	stray    prometheus.Counter
	barred   prometheus.Counter
	seconds  prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_connect_device_requests_total",
			Help: "Messages of devices that ask for a connection or answer, by what became of them."}, []string{"outcome"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_connect_device_connections",
			Help: "Connections to devices that are open."}),
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_connect_device_sessions_total",
			Help: "Connections to devices that came about, by what they run over."}, []string{"transport"}),
		stray: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_connect_device_datagrams_refused_total",
			Help: "Datagrams at the port for devices that belong to no connection."}),
		barred: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_connect_device_barred_total",
			Help: "Connections that were closed since the device was revoked or its account banned."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_connect_device_setup_seconds",
			Help: "From a device's request to the end of the handshake.", Buckets: []float64{.1, .25, .5, 1, 2, 4, 8, 16}}),
	}
	reg.MustRegister(m.requests, m.open, m.sessions, m.stray, m.barred, m.seconds)
	for _, o := range outcomes {
		m.requests.WithLabelValues(string(o))
	}
	for _, over := range []string{"tcp", "udp"} {
		m.sessions.WithLabelValues(over)
	}
	return m
}

func (m *Metrics) request(o Observation) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(string(o.Outcome)).Inc()
	if o.Outcome == Connected {
		m.seconds.Observe(o.Session.Seconds())
	}
}

func (m *Metrics) session(over string) {
	if m != nil {
		m.sessions.WithLabelValues(over).Inc()
	}
}

// Stray counts a datagram at the port that belongs to no connection.
func (m *Metrics) Stray() {
	if m != nil {
		m.stray.Inc()
	}
}

func (m *Metrics) links(n int) {
	if m != nil {
		m.open.Set(float64(n))
	}
}

func (m *Metrics) closed() {
	if m != nil {
		m.barred.Inc()
	}
}
