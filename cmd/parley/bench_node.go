package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/bench"
	"github.com/parley-jami/parley/internal/supervise"
)

// benchNode is the node as the load generator sees it.
type benchNode struct {
	s    *session
	room string
	home string            // the node's own worker
	away map[string]string // health sockets of other workers on this machine, by name
	up   *http.Client      // of the supervisor
}

// bench opens the node of a command line for the load generator; close gives it back.
func (a *app) bench(cmd *cobra.Command, room string) (n *benchNode, done func(), err error) {
	if err := word("room", room); err != nil {
		return nil, nil, err
	}
	cfg, err := a.load(cmd)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.open(cmd)
	if err != nil {
		return nil, nil, err
	}
	if r, err := getRoom(cmd.Context(), s, room); err == nil && r.HasPIN { // that there is none the joins say
		s.Close()
		return nil, nil, usagef("--room %s: it has a PIN, which generated legs do not give: name a room without one, as `parley room create NAME` makes it", room)
	}
	up, closeUp := unixClient(supervise.UpSocket(cfg.Data))
	n = &benchNode{s: s, room: room, home: cfg.Media.Worker, up: up}
	return n, func() { closeUp(); s.Close() }, nil
}

// metricsWait bounds a look at the metrics of processes that are under load.
const metricsWait = 15 * time.Second

// unixClient asks who listens on a Unix socket; done lets go of the connections.
func unixClient(socket string) (c *http.Client, done func()) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	return &http.Client{Transport: tr, Timeout: metricsWait}, tr.CloseIdleConnections
}

func (n *benchNode) Join(ctx context.Context, w bench.Wish) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, benchJoinWait)
	defer cancel()
	q := &contract.Join{Name: w.ID, Kind: contract.KindSIP, Source: w.Addr, Transport: contract.TransportRTP, Offer: w.Offer, Muted: w.Muted}
	if w.Browser {
		q.Kind, q.Transport = contract.KindBrowser, contract.TransportWebRTC
	}
	j, err := bus.Call(ctx, n.s.Conn, contract.RoomJoin, q, n.room, w.ID)
	if err != nil {
		return "", err
	}
	return j.SDP, nil
}

func (n *benchNode) Leave(ctx context.Context, id string) error {
	_, err := bus.Call(ctx, n.s.Conn, contract.RoomLeave, &contract.Leave{Reason: contract.ReasonLeft}, n.room, id)
	return err
}

func (n *benchNode) Processes(ctx context.Context) ([]bench.Process, error) {
	st, err := bus.Call(ctx, n.s.Conn, contract.NodeStatus, &contract.None{})
	if err != nil {
		return nil, err
	}
	told, err := metrics(ctx, n.up)
	if err != nil {
		return nil, err
	}
	var out []bench.Process
	for _, p := range st.Processes {
		if p.Name != "media" {
			out = append(out, told.add(bench.Process{Name: p.Name, CPU: p.CPUS, RSS: p.RSSBytes}, p.Name))
		}
	}
	workers, err := bus.Call(ctx, n.s.Conn, contract.WorkerList, &contract.None{})
	if err != nil {
		return nil, err
	}
	for _, w := range workers.Workers {
		if !w.Alive {
			continue
		}
		p := bench.Process{Name: "media", Worker: w.Worker, CPU: w.CPUS, RSS: w.RSS, At: w.At}
		p.Host, _, _ = net.SplitHostPort(w.TrunkAddress) // empty where it has none
		switch socket := n.away[w.Worker]; {
		case w.Worker == n.home:
			p = told.add(p, "media")
		case socket != "":
			own, done := unixClient(socket)
			m, err := metrics(ctx, own)
			done()
			if err != nil {
				return nil, fmt.Errorf("worker %s: %w", w.Worker, err)
			}
			p = m.add(p, "")
		}
		out = append(out, p)
	}
	return out, nil
}

// measures are the metrics of the node's processes.
type measures map[string]*dto.MetricFamily

// metrics asks for those of a process, or the supervisor for those of all.
func metrics(ctx context.Context, c *http.Client) (measures, error) {
	return metricsAt(ctx, c, "http://process/metrics")
}

func metricsAt(ctx context.Context, c *http.Client, url string) (measures, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: %s", resp.Status)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	m, err := p.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return m, nil
}

// value is a metric of a process, 0 when it has none. want are pairs of label and value.
func (m measures) value(name, process string, want ...string) float64 {
	f := m[name]
	if f == nil {
		return 0
	}
metric:
	for _, x := range f.Metric {
		labels := map[string]string{}
		for _, l := range x.Label {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["process"] != process {
			continue
		}
		for i := 0; i+1 < len(want); i += 2 {
			if labels[want[i]] != want[i+1] {
				continue metric
			}
		}
		return x.GetCounter().GetValue() + x.GetGauge().GetValue()
	}
	return 0
}

// add completes a process by the metrics with its label.
func (m measures) add(p bench.Process, label string) bench.Process {
	p.Told = true
	p.Goroutines = int(m.value("go_goroutines", label))
	p.Heap = int64(m.value("go_memstats_heap_inuse_bytes", label))
	if p.Worker != "" {
		p.Ticks = bench.Ticks{
			Done:     m.value("parley_media_ticks_total", label, "result", "mixed"),
			Missed:   m.value("parley_media_ticks_total", label, "result", "missed"),
			Spent:    m.value("parley_media_tick_seconds_total", label),
			Refused:  m.value("parley_media_dropped_total", label, "reason", "send"),
			Shedding: m.value("parley_media_shedding_rooms", label),
			TrunkOut: m.value("parley_media_trunk_packets", label, "direction", "out"),
			TrunkIn:  m.value("parley_media_trunk_packets", label, "direction", "in"),
		}
	}
	return p
}
