package httpapi

import (
	"cmp"
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/internal/limits"
)

// Connections that are open at once, unless [Names] has others.
const (
	connsPerAddress = 64
	connsMax        = 4096
)

// Metrics count the requests and the connections of a server.
type Metrics struct {
	requests map[[2]string]prometheus.Counter // by operation and result
	seconds  map[string]prometheus.Observer   // by operation
	places   *limits.Places
	refused  prometheus.Counter
}

// Names say what is counted: parley_NAME_requests_total and so on.
type Names struct {
	Name    string // "names"
	Server  string // "the name server"
	Ops     []string
	Results []string // beside those that every API has
	Buckets []float64
	// Connections of an address, and in all; 0: as of the other servers.
	PerAddress, InAll int
}

// NewMetrics registers the counters, from zero, and gauges of what the server has.
func NewMetrics(reg prometheus.Registerer, n Names, gauges ...prometheus.Collector) (*Metrics, error) {
	name := "parley_" + n.Name + "_"
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "requests_total", Help: "Requests to " + n.Server + "."}, []string{"op", "result"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "request_seconds", Help: "How long requests to " + n.Server + " took.", Buckets: n.Buckets}, []string{"op"})
	m := &Metrics{requests: map[[2]string]prometheus.Counter{}, seconds: map[string]prometheus.Observer{}, places: limits.NewPlaces(cmp.Or(n.PerAddress, connsPerAddress), cmp.Or(n.InAll, connsMax)),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: name + "connections_refused_total", Help: "Connections closed because there were too many."})}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name + "connections", Help: "Connections to " + n.Server + "."},
		func() float64 { return float64(m.places.Taken()) })
	var err error
	for _, c := range append(gauges, requests, seconds, m.refused, open) {
		err = errors.Join(err, reg.Register(c))
	}
	for _, op := range n.Ops {
		m.seconds[op] = seconds.WithLabelValues(op)
		for _, r := range append([]string{OK, Invalid, Limited, Busy, Error}, n.Results...) {
			m.requests[[2]string{op, r}] = requests.WithLabelValues(op, r)
		}
	}
	return m, err
}

func (m *Metrics) count(op, result string, took time.Duration) {
	m.requests[[2]string{op, result}].Inc()
	m.seconds[op].Observe(took.Seconds())
}

// Listener bounds and counts the connections of l.
func (m *Metrics) Listener(l net.Listener) net.Listener {
	return limits.Listener{Listener: l, Places: m.places, Refused: m.refused}
}

// Gauge is a number that is read when it is asked for.
func Gauge(name, help string, read func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(read()) })
}
