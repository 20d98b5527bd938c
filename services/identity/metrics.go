package identity

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	inbox    *prometheus.CounterVec // verdict
	requests prometheus.Counter
	sent     *prometheus.CounterVec // what, result
	tooLarge prometheus.Counter
}

// What is sent, and what becomes of that, as the metric has it.
const (
	sentRequest = "request"
	sentConfirm = "confirm"
	sentSync    = "sync"
	sentMessage = "message"
	sentAnswer  = "answer"

	resultOK    = "ok"
	resultError = "error"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		inbox: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_identity_inbox_values_total",
			Help: "Values at the inboxes of the node's accounts, by what became of them."}, []string{"verdict"}),
		requests: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_identity_requests_total",
			Help: "Trust requests that were received and wait, or waited, for an answer."}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_identity_sent_total",
			Help: "Messages to devices of contacts and of the account, by kind and result."}, []string{"kind", "result"}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_identity_sync_too_large_total",
			Help: "Times that the account's state did not fit into a value and was not sent to its other devices."}),
	}
	reg.MustRegister(m.inbox, m.requests, m.sent, m.tooLarge)
	for _, v := range verdicts {
		m.inbox.WithLabelValues(string(v))
	}
	for _, kind := range []string{sentRequest, sentConfirm, sentSync, sentMessage, sentAnswer} {
		for _, result := range []string{resultOK, resultError} {
			m.sent.WithLabelValues(kind, result)
		}
	}
	return m
}

func (m *metrics) send(kind string, err error) {
	result := resultOK
	if err != nil {
		result = resultError
	}
	m.sent.WithLabelValues(kind, result).Inc()
}
