package api

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label op.
const (
	opEnrol    = "enrol"
	opLogin    = "login"
	opContacts = "contacts"
	opDevices  = "devices"
	opSearch   = "search"
	opRevoke   = "revoke"
	opCRL      = "crl"
)

// Values of the label result, which are the codes of refusals too.
const (
	resultOK          = "ok"
	resultInvalid     = "invalid"
	resultCredentials = "bad_credentials"
	resultForbidden   = "forbidden"
	resultNotFound    = "not_found"
	resultLimited     = "limited"
	resultBusy        = "busy"
	resultError       = "error"
)

// Metrics are the server's counters.
type Metrics struct {
	requests     map[[2]string]prometheus.Counter // by operation and result
	seconds      map[string]prometheus.Observer   // by operation
	Conns        prometheus.Gauge
	RefusedConns prometheus.Counter
}

// NewMetrics registers the counters, from zero; counts says how many accounts and
// devices there are.
func NewMetrics(reg prometheus.Registerer, counts func() (accounts, devices int)) (*Metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_jams_requests_total", Help: "Requests to the account server."}, []string{"op", "result"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "parley_jams_request_seconds", Help: "How long requests to the account server took.",
		Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10}}, []string{"op"})
	m := &Metrics{
		requests:     map[[2]string]prometheus.Counter{},
		seconds:      map[string]prometheus.Observer{},
		Conns:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_jams_connections", Help: "Connections to the account server."}),
		RefusedConns: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_jams_connections_refused_total", Help: "Connections closed because there were too many."}),
	}
	err := errors.Join(reg.Register(requests), reg.Register(seconds), reg.Register(m.Conns), reg.Register(m.RefusedConns),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_jams_accounts", Help: "Accounts that are not revoked."},
			func() float64 { n, _ := counts(); return float64(n) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_jams_devices", Help: "Devices that are not revoked."},
			func() float64 { _, n := counts(); return float64(n) })))
	for _, op := range []string{opEnrol, opLogin, opContacts, opDevices, opSearch, opRevoke, opCRL} {
		m.seconds[op] = seconds.WithLabelValues(op)
		for _, r := range []string{resultOK, resultInvalid, resultCredentials, resultForbidden, resultNotFound, resultLimited, resultBusy, resultError} {
			m.requests[[2]string{op, r}] = requests.WithLabelValues(op, r)
		}
	}
	return m, err
}

func (m *Metrics) count(op, result string, took time.Duration) {
	m.requests[[2]string{op, result}].Inc()
	m.seconds[op].Observe(took.Seconds())
}
