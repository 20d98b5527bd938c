package supervise

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/zap"
)

// maxMetrics bounds one child's metrics in bytes.
const maxMetrics = 8 << 20

const processLabel = "process"

// Gatherer collects the metrics of the supervisor and of every child, each with
// the label process. A child that does not answer is left out and counted.
func (s *Supervisor) Gatherer() prometheus.Gatherer {
	errs := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_scrape_errors_total",
		Help: "Times that a process did not give its metrics, or some of them did not fit."}, []string{processLabel})
	for _, c := range s.children {
		errs.WithLabelValues(c.Name)
	}
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), errs, processCollector{s})
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families := make([]map[string]*dto.MetricFamily, len(s.children))
		var wg sync.WaitGroup
		for i, c := range s.children {
			if pid, _ := c.current(); pid == 0 {
				continue
			}
			wg.Go(func() {
				var err error
				if families[i], err = c.scrape(context.Background()); err != nil {
					errs.WithLabelValues(c.Name).Inc()
					c.log.Debug("no metrics", zap.Error(err))
				}
			})
		}
		wg.Wait()
		merged := map[string]*dto.MetricFamily{}
		for i, c := range s.children {
			if n := merge(merged, families[i], c.Name); n > 0 {
				errs.WithLabelValues(c.Name).Add(float64(n))
			}
		}
		mine, err := own.Gather()
		if err != nil {
			return nil, fmt.Errorf("own metrics: %w", err)
		}
		byName := map[string]*dto.MetricFamily{}
		for _, f := range mine {
			byName[f.GetName()] = f
		}
		merge(merged, byName, "up")
		out := make([]*dto.MetricFamily, 0, len(merged))
		for _, name := range slices.Sorted(maps.Keys(merged)) {
			out = append(out, merged[name])
		}
		return out, nil
	})
}

// scrape asks the child for its metrics in the text format.
func (c *child) scrape(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://process/metrics", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: %s", resp.Status)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	return p.TextToMetricFamilies(io.LimitReader(resp.Body, maxMetrics))
}

// merge adds from to into and labels each metric that has no process label yet.
// It returns how many families did not fit since their type differs.
func merge(into, from map[string]*dto.MetricFamily, process string) (refused int) {
	for name, f := range from {
		for _, m := range f.Metric {
			label(m, process)
		}
		have, ok := into[name]
		switch {
		case !ok:
			into[name] = f
		case have.GetType() != f.GetType():
			refused++
		default:
			have.Metric = append(have.Metric, f.Metric...)
		}
	}
	return refused
}

func label(m *dto.Metric, process string) {
	for _, l := range m.Label {
		if l.GetName() == processLabel {
			return
		}
	}
	name := processLabel
	m.Label = append(m.Label, &dto.LabelPair{Name: &name, Value: &process})
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
}

var (
	descUp       = prometheus.NewDesc("parley_process_up", "1 while the process runs.", []string{processLabel}, nil)
	descReady    = prometheus.NewDesc("parley_process_ready", "1 while the process says that it is ready.", []string{processLabel}, nil)
	descRestarts = prometheus.NewDesc("parley_process_restarts_total", "Times that the process was started again.", []string{processLabel}, nil)
	descJoinable = prometheus.NewDesc("parley_joinable", "1 while every process that a participant needs is ready.", nil, nil)
)

// processCollector reads the state when asked.
type processCollector struct{ s *Supervisor }

func (p processCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUp, descReady, descRestarts, descJoinable} {
		ch <- d
	}
}

func (p processCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, on bool, labels ...string) {
		v := 0.0
		if on {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, c := range p.s.children {
		pid, _ := c.current()
		gauge(descUp, pid != 0, c.Name)
		gauge(descReady, c.ready.Load(), c.Name)
		ch <- prometheus.MustNewConstMetric(descRestarts, prometheus.CounterValue, float64(c.restarts.Load()), c.Name)
	}
	gauge(descJoinable, p.s.Joinable())
}
