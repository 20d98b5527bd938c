package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// HTML writes a page with the plots of the run. It needs nothing from elsewhere.
func (r *SoakReport) HTML(w io.Writer, node string) error {
	if len(r.Samples) == 0 {
		return fmt.Errorf("%w: there is no sample to show", ErrConfig)
	}
	x := make([]float64, len(r.Samples))
	names := map[string]bool{}
	for i, s := range r.Samples {
		x[i] = s.At / 60
		for k := range s.RSS {
			names[k] = true
		}
	}
	one := func(of func(Sample) float64) []line {
		var y []float64
		for _, s := range r.Samples {
			y = append(y, of(s))
		}
		return []line{{"", y}}
	}
	each := func(of func(Sample, string) float64) (out []line) {
		for _, k := range slices.Sorted(maps.Keys(names)) {
			l := one(func(s Sample) float64 { return of(s, k) })[0]
			l.Name = k
			out = append(out, l)
		}
		return out
	}
	plots := []plot{
		{Title: "Legs in the room", Unit: "legs", Lines: one(func(s Sample) float64 { return float64(s.Legs) })},
		{Title: "Frames late or lost", Unit: "%", Lines: one(Sample.LatePct)},
		{Title: "Memory (RSS)", Unit: "MiB", Lines: each(func(s Sample, k string) float64 { return float64(s.RSS[k]) / (1 << 20) })},
		{Title: "Goroutines", Unit: "goroutines", Lines: each(func(s Sample, k string) float64 { return float64(s.Goroutines[k]) })},
		{Title: "Heap in use", Unit: "MiB", Lines: each(func(s Sample, k string) float64 { return float64(s.Heap[k]) / (1 << 20) })},
		{Title: "CPU", Unit: "cores", Lines: each(func(s Sample, k string) float64 { return s.CPUPerS[k] })},
		{Title: "Ticks of the mixer that were missed", Unit: "ticks", Lines: one(func(s Sample) float64 { return s.Missed })},
		{Title: "Load of the machine", Unit: "processes", Lines: one(func(s Sample) float64 { return s.Load })},
		{Title: "A tick's work", Unit: "ms", Lines: one(func(s Sample) float64 { return s.TickMs })},
	}
	for i := range plots {
		plots[i].X, plots[i].Of = x, "min"
	}
	if err := soakPage.Execute(w, map[string]any{"Node": node, "R": r, "Plots": plots}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// MiB is a size for people.
func (Held) MiB(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }

// GrowthMiB is RSSGrowth in MiB for people, GrowthGoroutines GoroutinesGrowth.
func (h Held) GrowthMiB() string        { return grown(h.RSSGrowth, 1<<20) }
func (h Held) GrowthGoroutines() string { return grown(h.GoroutinesGrowth, 1) }

func grown(v *float64, unit float64) string {
	if v == nil {
		return Unknown
	}
	return fmt.Sprintf("%+.1f", *v/unit)
}

var soakPage = pageOf("soak", `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Parley: legs that come and go</title>
<style>{{template "style"}}</style></head><body>
<h1>Legs that come and go</h1>
<p>{{.R.Legs}} legs of {{range $i, $t := .R.Transports}}{{if $i}} and {{end}}{{$t}}{{end}} in the room for {{.R.StayS}} s each on average, {{.R.Talk}} % of whom speak, beside {{.R.Speakers}} who always do; {{.R.Seconds}} s; {{.Node}}. The plots are over minutes.</p>
<table><tbody>
<tr><td>came, left</td><td>{{.R.Joined}}, {{.R.Left}}</td></tr>
<tr><td>refused or not answered</td><td>{{.R.Failed}} {{.R.Failure}}</td></tr>
<tr><td>heard nothing</td><td>{{.R.Unheard}}</td></tr>
<tr><td>frames late or lost</td><td>{{printf "%.4f" .R.LatePct}} % of {{.R.Frames}}; {{printf "%.4f" .R.WorstPct}} % in the worst {{.R.EveryS}} s</td></tr>
<tr><td>join, p50 / p99 / most</td><td>{{range $i, $v := .R.JoinMs.Figures}}{{if $i}} / {{end}}{{$v}}{{end}} ms</td></tr>
<tr><td>answer to first sound, p50 / p99 / most</td><td>{{range $i, $v := .R.SoundMs.Figures}}{{if $i}} / {{end}}{{$v}}{{end}} ms</td></tr>
</tbody></table>
<table><thead><tr><th>process</th><th>memory before, MiB</th><th>at the end</th><th>when all have left</th><th>growth, MiB/h</th><th>goroutines before</th><th>at the end</th><th>when all have left</th><th>growth, 1/h</th></tr></thead><tbody>
{{range .R.Processes}}<tr><td>{{.Name}}</td><td>{{.MiB .RSSBefore}}</td><td>{{.MiB .RSSEnd}}</td><td>{{.MiB .RSSAfter}}</td><td>{{.GrowthMiB}}</td><td>{{.GoroutinesBefore}}</td><td>{{.GoroutinesEnd}}</td><td>{{.GoroutinesAfter}}</td><td>{{.GrowthGoroutines}}</td></tr>
{{end}}</tbody></table>
{{template "plots" .Plots}}</body></html>
`)
