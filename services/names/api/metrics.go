package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/internal/httpapi"
)

// Values of the labels, beside the results that every API has.
const (
	opLookup   = "lookup"
	opReverse  = "reverse"
	opRegister = "register"

	resultBadSignature = "bad_signature"
	resultTaken        = "taken"
	resultNotFound     = "not_found"
)

// NewMetrics registers the counters, from zero; count says how many names there are.
func NewMetrics(reg prometheus.Registerer, count func() int) (*httpapi.Metrics, error) {
	return httpapi.NewMetrics(reg, httpapi.Names{Name: "names", Server: "the name server", Ops: []string{opLookup, opReverse, opRegister},
		Results: []string{resultBadSignature, resultTaken, resultNotFound}, Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5}},
		httpapi.Gauge("parley_names_registered", "Names that accounts have.", count))
}
