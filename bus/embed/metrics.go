package embed

import (
	"github.com/prometheus/client_golang/prometheus"
)

// measured tells of the streams as this server of the bus sees them. reg is the process's.
func (n *nats) measured(reg prometheus.Registerer) error {
	account, err := public(n.keys.node)
	if err != nil {
		return err
	}
	for _, st := range streams {
		name := st.Name
		for metric, m := range map[string]struct {
			help string
			is   func(account, stream string) bool
		}{
			"parley_bus_leads":   {"1 where this server of the bus leads the stream.", n.srv.JetStreamIsStreamLeader},
			"parley_bus_current": {"1 where this server of the bus has all that is in the stream.", n.srv.JetStreamIsStreamCurrent},
		} {
			g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metric, Help: m.help, ConstLabels: prometheus.Labels{"stream": name}}, func() float64 {
				if n.srv.JetStreamEnabled() && m.is(account, name) {
					return 1
				}
				return 0
			})
			if err := reg.Register(g); err != nil {
				return err
			}
		}
	}
	return nil
}
