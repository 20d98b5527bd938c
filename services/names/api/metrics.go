package api

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the labels.
const (
	opLookup   = "lookup"
	opReverse  = "reverse"
	opRegister = "register"

	resultOK           = "ok"
	resultInvalid      = "invalid"
	resultBadSignature = "bad_signature"
	resultTaken        = "taken"
	resultNotFound     = "not_found"
	resultLimited      = "limited"
	resultBusy         = "busy"
	resultError        = "error"
)

// Metrics are the server's counters.
type Metrics struct {
	requests     map[[2]string]prometheus.Counter // by operation and result
	seconds      map[string]prometheus.Observer   // by operation
	Conns        prometheus.Gauge
	RefusedConns prometheus.Counter
}

// NewMetrics registers the counters, from zero; count says how many names there are.
func NewMetrics(reg prometheus.Registerer, count func() int) (*Metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_names_requests_total", Help: "Requests to the name server."}, []string{"op", "result"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "parley_names_request_seconds", Help: "How long requests to the name server took.",
		Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5}}, []string{"op"})
	m := &Metrics{
		requests:     map[[2]string]prometheus.Counter{},
		seconds:      map[string]prometheus.Observer{},
		Conns:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_names_connections", Help: "Connections to the name server."}),
		RefusedConns: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_names_connections_refused_total", Help: "Connections closed because there were too many."}),
	}
	err := errors.Join(reg.Register(requests), reg.Register(seconds), reg.Register(m.Conns), reg.Register(m.RefusedConns),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_names_registered", Help: "Names that accounts have."},
			func() float64 { return float64(count()) })))
	for _, op := range []string{opLookup, opReverse, opRegister} {
		m.seconds[op] = seconds.WithLabelValues(op)
		for _, r := range []string{resultOK, resultInvalid, resultBadSignature, resultTaken, resultNotFound, resultLimited, resultBusy, resultError} {
			m.requests[[2]string{op, r}] = requests.WithLabelValues(op, r)
		}
	}
	return m, err
}

func (m *Metrics) count(op, result string, took time.Duration) {
	m.requests[[2]string{op, result}].Inc()
	m.seconds[op].Observe(took.Seconds())
}
