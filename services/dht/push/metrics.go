package push

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

var platforms = []string{"android", "ios", "unifiedpush", "webpush", "webhook"}

// Metrics count pushes.
type Metrics struct {
	sent, failed, retried map[string]prometheus.Counter // by platform
	dropped               prometheus.Counter
	all                   []prometheus.Collector
}

func newMetrics() *Metrics {
	m := &Metrics{dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_dht_pushes_dropped_total", Help: "Pushes never tried because too many waited."})}
	vec := func(what, help string) map[string]prometheus.Counter {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_dht_pushes_" + what + "_total", Help: help}, []string{"platform"})
		m.all = append(m.all, v)
		out := map[string]prometheus.Counter{}
		for _, p := range platforms {
			out[p] = v.WithLabelValues(p)
		}
		return out
	}
	m.sent = vec("sent", "Pushes that a push service took.")
	m.failed = vec("failed", "Pushes that were given up or refused.")
	m.retried = vec("retried", "Attempts that failed and are made again.")
	m.all = append(m.all, m.dropped)
	return m
}

// NewMetrics registers the counters, from zero.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := newMetrics()
	var err error
	for _, c := range m.all {
		err = errors.Join(err, reg.Register(c))
	}
	return m, err
}
