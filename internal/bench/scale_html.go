package bench

import (
	"fmt"
	"io"
	"math"
)

// HTML writes a page with the rows, their plots and the model. It needs nothing from elsewhere.
func (r *ScaleReport) HTML(w io.Writer, node string) error {
	if len(r.Rows) == 0 {
		return fmt.Errorf("%w: there is no run to show", ErrConfig)
	}
	x := make([]float64, len(r.Rows))
	of := func(fn func(ScaleRow) float64) (y []float64) {
		for i, row := range r.Rows {
			x[i] = float64(row.Workers)
			y = append(y, fn(row))
		}
		return y
	}
	// The dearest of the workers where nobody speaks.
	other := func(row ScaleRow) (most float64) {
		for _, a := range row.PerWorker {
			if !a.Speaks || row.Workers == 1 {
				most = max(most, a.Cores)
			}
		}
		return most
	}
	there := func(row ScaleRow) float64 {
		for _, a := range row.PerWorker {
			if a.Speaks {
				return a.Cores
			}
		}
		return 0
	}
	plots := []plot{
		{Title: "CPU of the mixers for each leg", Unit: "ms/s", Lines: []line{{"", of(func(r ScaleRow) float64 { return r.MsPerLeg })}}},
		{Title: "The same against one worker", Unit: "times", Lines: []line{{"", of(func(r ScaleRow) float64 { return r.Against })}}},
		{Title: "CPU of one worker", Unit: "cores", Lines: []line{{"where the speakers are", of(there)}, {"the dearest other one", of(other)}}},
		{Title: "Packets that all send on trunks", Unit: "1/s", Lines: []line{{"", of(func(r ScaleRow) float64 { return r.TrunkOut })}}},
		{Title: "Delay where the speakers are", Unit: "ms", Lines: []line{{"p50", of(func(r ScaleRow) float64 { return r.Same.or(r.Same.P50) })}, {"p99", of(func(r ScaleRow) float64 { return r.Same.or(r.Same.P99) })}}},
		{Title: "Delay elsewhere", Unit: "ms", Lines: []line{{"p50", of(func(r ScaleRow) float64 { return r.Other.or(r.Other.P50) })}, {"p99", of(func(r ScaleRow) float64 { return r.Other.or(r.Other.P99) })}}},
		{Title: "Frames that came late", Unit: "%", Lines: []line{{"", of(func(r ScaleRow) float64 { return 100 * (1 - r.OnTime) })}}},
	}
	for i := range plots {
		plots[i].X, plots[i].Of = x, "workers"
	}
	if err := scalePage.Execute(w, map[string]any{"Node": node, "R": r, "Plots": plots}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// or is v, NaN where nothing was found.
func (d Delay) or(v float64) float64 {
	if d.Found == 0 {
		return math.NaN()
	}
	return v
}

// AgainstOne is Against for people.
func (r ScaleRow) AgainstOne() string {
	if r.Against == 0 {
		return Unknown // of the part there is nothing to hold it against
	}
	return fmt.Sprintf("%.2f", r.Against)
}

// OnTimePct is OnTime in per cent.
func (r ScaleRow) OnTimePct() float64 { return 100 * r.OnTime }

// LegMs is Leg in ms/s, TrunkMs Trunk.
func (m *ScaleModel) LegMs() float64   { return 1000 * m.Leg }
func (m *ScaleModel) TrunkMs() float64 { return 1000 * m.Trunk }

var scalePage = pageOf("scale", `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Parley: one room over several workers</title>
<style>{{template "style"}}</style></head><body>
<h1>One room over several workers</h1>
<p>{{.R.Legs}} legs at each worker, {{.R.Transport}}, {{.R.Speakers}} speakers at one of them, {{.R.Seconds}} s for each run; {{.Node}}. Each worker is in a network namespace of its own. The plots are by the number of workers.</p>
<table><thead><tr><th>workers</th><th>legs</th><th>CPU, cores</th><th>ms/s a leg</th><th>against one</th><th>on time, %</th><th>trunks out, 1/s</th><th>in, 1/s</th><th>delay where they speak p50, ms</th><th>p99</th><th>elsewhere p50</th><th>p99</th><th>generator left out</th><th>load</th></tr></thead><tbody>
{{define "row"}}<tr><td>{{.Workers}}</td><td>{{.Legs}}</td><td>{{printf "%.3f" .Cores}}</td><td>{{printf "%.3f" .MsPerLeg}}</td><td>{{.AgainstOne}}</td><td>{{printf "%.3f" .OnTimePct}}</td><td>{{.TrunkOut}}</td><td>{{.TrunkIn}}</td><td>{{.Same.Median}}</td><td>{{.Same.Most}}</td><td>{{.Other.Median}}</td><td>{{.Other.Most}}</td><td>{{.Skipped}}</td><td>{{.Load}}</td></tr>
{{end}}{{template "row" .R.Part}}{{range .R.Rows}}{{template "row" .}}{{end}}</tbody></table>
{{template "plots" .Plots}}
<h2>Larger rooms, by that</h2>
{{with .R.Model}}<p>A room takes {{printf "%.3f" .Room}} cores at the worker where its speakers are and {{printf "%.3f" .Mix}} at each other one, a leg {{printf "%.3f" .LegMs}} ms/s, sending to one more worker {{printf "%.2f" .TrunkMs}} ms/s; {{.Full}} legs fill a worker.</p>
<table><thead><tr><th>legs</th><th>workers</th><th>CPU, cores</th><th>ms/s a leg</th><th>against one full worker</th><th>trunks of one, at most</th><th>that it sends on them, Mbit/s</th><th>to its legs, Mbit/s</th><th>hops</th><th>delay p50, ms</th></tr></thead><tbody>
{{range .Rooms}}<tr><td>{{.Legs}}</td><td>{{.Workers}}</td><td>{{.Cores}}</td><td>{{printf "%.3f" .MsPerLeg}}</td><td>{{printf "%.2f" .Against}}</td><td>{{.Peers}}</td><td>{{.TrunkMbit}}</td><td>{{.LegMbit}}</td><td>{{.Hops}}</td><td>{{.DelayMs}}</td></tr>
{{end}}</tbody></table>
<p>Taken for granted:</p><ul>{{range .Assumptions}}<li>{{.}}</li>{{end}}</ul>{{end}}
</body></html>
`)
