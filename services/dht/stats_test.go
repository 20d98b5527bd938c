package dht

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/dht/overlay"
)

func TestWarnings(t *testing.T) {
	now := time.Now()
	table := func(good int) []overlay.Table { return []overlay.Table{{Good: good}, {}} }
	asks := func(answers ...bool) (out []overlay.BootstrapNode) {
		for _, a := range answers {
			out = append(out, overlay.BootstrapNode{Addr: "boot.example:4222", Answers: a})
		}
		return out
	}
	for name, tt := range map[string]struct {
		r    overlay.Report
		want string // empty: none
	}{
		"all is well":             {r: overlay.Report{Overlay: "opendht", Tables: table(3), Bootstrap: asks(true, false)}},
		"by itself":               {r: overlay.Report{Overlay: "libp2p", Tables: table(0)}},
		"just started":            {r: overlay.Report{Overlay: "opendht", Tables: table(0), Started: now}},
		"alone, nobody to ask":    {overlay.Report{Overlay: "opendht", Tables: table(0)}, "name one in dht.opendht_bootstrap"},
		"alone, nobody answers":   {overlay.Report{Overlay: "opendht", Tables: table(0), Bootstrap: asks(false)}, "boot.example:4222 does not answer. Look whether this machine's firewall"},
		"libp2p's own setting":    {overlay.Report{Overlay: "libp2p", Tables: table(0), Bootstrap: asks(false)}, "the address in dht.bootstrap"},
		"no bootstrap node there": {overlay.Report{Overlay: "opendht", Tables: table(3), Bootstrap: asks(false, false)}, "a new start may not find the network"},
		"proxy answers":           {r: overlay.Report{Overlay: "proxy", Proxies: []overlay.Proxy{{URL: "http://p"}}, Addresses: []string{"http://p"}}},
		"no proxy answers":        {overlay.Report{Overlay: "proxy", Proxies: []overlay.Proxy{{URL: "http://p"}}}, "no DHT proxy answers (http://p)"},
		"full":                    {overlay.Report{Overlay: "opendht", Tables: table(3), Store: overlay.Store{Bytes: 99, Quota: 100}}, "is full"},
	} {
		got := warnings(&tt.r, now)
		if (tt.want == "") != (len(got) == 0) || tt.want != "" && !strings.Contains(strings.Join(got, "\n"), tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestMetricsAreInForm(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(&collector{func() []overlay.Report {
		r := overlay.Report{Overlay: "opendht", Tables: []overlay.Table{{Family: "ipv4", Good: 3, Estimate: 9.5}, {Family: "ipv6"}}, Bootstrap: []overlay.BootstrapNode{{Answers: true}},
			Traffic: []overlay.Traffic{{Kind: "ping", In: 1, InBytes: 2, Out: 3, OutBytes: 4}}, Dropped: []overlay.Count{{Name: "rate", N: 5}}, Events: []overlay.Count{{Name: "evicted", N: 6}}}
		other := r
		other.Overlay = "libp2p"
		return []overlay.Report{r, other}
	}, func() int { return 7 }})
	all, err := reg.Gather() // a pedantic one refuses what does not fit together
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range all {
		counter := strings.HasSuffix(f.GetName(), "_total")
		if !strings.HasPrefix(f.GetName(), "parley_dht_") || f.GetHelp() == "" || counter != (f.GetType() == dto.MetricType_COUNTER) {
			t.Errorf("%s", f)
		}
		if f.GetName() == "parley_dht_packets_dropped_total" {
			found = len(f.Metric)
			for _, m := range f.Metric {
				if m.GetCounter().GetValue() != 5 || len(m.Label) != 2 {
					t.Errorf("%s", m)
				}
			}
		}
	}
	if found != 2 || len(all) != 18 {
		t.Errorf("%d metrics, %d of what was dropped", len(all), found)
	}
}

func TestStatsOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	me := people()[0]
	identityIn(t, srv, me, func() string { return "ready" })
	c, _, _ := node(t, srv, me)
	describe(t, c)
	put(t, c, contract.DHTValue{Key: me.id.String(), Data: []byte("x")})
	st, err := bus.Call(t.Context(), c, contract.DHTStatsGet, &contract.None{})
	if err != nil || len(st.Overlays) != 1 || st.Overlays[0].Store.Own < 1 || len(st.Overlays[0].Tables) != 1 || len(st.Warnings) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	// It is in no network whose nodes can be asked one by one.
	if _, err := bus.Call(t.Context(), c, contract.DHTPingCmd, &contract.DHTPing{Addr: "127.0.0.1"}); !errors.Is(err, contract.ErrBadRequest) {
		t.Error(err)
	}
	if _, err := bus.Call(t.Context(), c, contract.DHTScanCmd, &contract.DHTScan{Seconds: 1, Nodes: 1, Rate: 1}); !errors.Is(err, contract.ErrBadRequest) {
		t.Error(err)
	}
}
