package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/internal/httpapi"
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

// Results, which are the codes of refusals too, beside those that every API has.
const (
	resultCredentials = "bad_credentials"
	resultForbidden   = "forbidden"
	resultNotFound    = "not_found"
	resultRevoked     = "revoked"
)

// NewMetrics registers the counters, from zero; counts says how many accounts and
// devices there are.
func NewMetrics(reg prometheus.Registerer, counts func() (accounts, devices int)) (*httpapi.Metrics, error) {
	return httpapi.NewMetrics(reg, httpapi.Names{Name: "jams", Server: "the account server", Ops: []string{opEnrol, opLogin, opContacts, opDevices, opSearch, opRevoke, opCRL},
		Results: []string{resultCredentials, resultForbidden, resultNotFound, resultRevoked}, Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10}},
		httpapi.Gauge("parley_jams_accounts", "Accounts that are not revoked.", func() int { n, _ := counts(); return n }),
		httpapi.Gauge("parley_jams_devices", "Devices that are not revoked.", func() int { _, n := counts(); return n }))
}
