package bench

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

// HTML writes a page that shows runs of the same transport, by the number of their listeners or,
// where that is one and the same, of their speakers: a table, and a plot of each figure. It needs
// nothing from elsewhere.
func HTML(w io.Writer, node string, runs []*Report) error {
	if len(runs) == 0 {
		return fmt.Errorf("%w: there is no run to show", ErrConfig)
	}
	x, by := make([]float64, len(runs)), "listeners"
	if len(runs) > 1 && runs[0].Listeners == runs[1].Listeners {
		by = "speakers"
	}
	of := func(fn func(*Report) float64) (y []float64) {
		for i, r := range runs {
			x[i] = float64(r.Listeners)
			if by == "speakers" {
				x[i] = float64(r.Speakers)
			}
			y = append(y, fn(r))
		}
		return y
	}
	plots := []plot{
		{Title: "CPU of the mixer for each leg", Unit: "ms/s", Lines: []line{{"", of(func(r *Report) float64 { return r.MsPerSecondPerLeg })}}},
		{Title: "CPU of the mixer", Unit: "cores", Lines: []line{{"", of(func(r *Report) float64 { return r.CPUPerS["media"] })}}},
		{Title: "Frames that came late", Unit: "%", Lines: []line{{"", of(func(r *Report) float64 { return 100 * (1 - r.OnTime) })}}},
		{Title: "Delay", Unit: "ms", Lines: []line{{"p50", of(func(r *Report) float64 { return r.DelayMs.P50 })}, {"p99", of(func(r *Report) float64 { return r.DelayMs.P99 })}}},
		{Title: "A tick of the mixer", Unit: "ms", Lines: []line{{"", of(func(r *Report) float64 { return r.Mixer.TickMs })}}},
		{Title: "Memory for each leg", Unit: "KiB", Lines: []line{{"", of(func(r *Report) float64 { return float64(r.BytesPerListener) / 1024 })}}},
	}
	for i := range plots {
		plots[i].X, plots[i].Of = x, by
	}
	if err := page.Execute(w, map[string]any{"Node": node, "Runs": runs, "First": runs[0], "By": by, "Plots": plots}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// plot is figures by something.
type plot struct {
	Title, Unit string
	Of          string // what X counts
	X           []float64
	Lines       []line
}

type line struct {
	Name string
	Y    []float64 // NaN where there is no point
}

// maxDots is how many points of a line are drawn as such.
const maxDots = 40

// Legend is whether the lines are named below, as they are too many to be named at their ends.
func (p plot) Legend() bool { return len(p.Lines) > 2 }

// Size of a plot and of the room for its axes, in pixels.
const (
	plotW, plotH = 420.0, 220.0
	left, bottom = 52.0, 28.0
	top, right   = 12.0, 14.0
)

// SVG draws it, both axes from zero.
func (p plot) SVG() template.HTML {
	maxX, maxY := 0.0, 0.0
	for _, v := range p.X {
		maxX = math.Max(maxX, v)
	}
	for _, l := range p.Lines {
		for _, v := range l.Y {
			if !math.IsNaN(v) {
				maxY = math.Max(maxY, v)
			}
		}
	}
	stepX, stepY := step(maxX), step(maxY)
	maxX, maxY = stepX*math.Max(1, math.Ceil(maxX/stepX)), stepY*math.Max(1, math.Ceil(maxY/stepY))
	px := func(v float64) float64 { return left + v/maxX*(plotW-left-right) }
	py := func(v float64) float64 { return plotH - bottom - v/maxY*(plotH-bottom-top) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" width="%g" height="%g" role="img">`, plotW, plotH, plotW, plotH)
	for v := 0.0; v <= maxY*1.001; v += stepY {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text x="%.1f" y="%.1f" text-anchor="end">%.4g</text>`, left, plotW-right, py(v), py(v), left-6, py(v)+4, v)
	}
	for v := 0.0; v <= maxX*1.001; v += stepX {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%.6g</text>`, px(v), plotH-bottom+18, v)
	}
	for k, l := range p.Lines {
		var pts []string
		last := -1
		for i, v := range l.Y {
			if !math.IsNaN(v) {
				pts, last = append(pts, fmt.Sprintf("%.1f,%.1f", px(p.X[i]), py(v))), i
			}
		}
		fmt.Fprintf(&b, `<polyline class="line l%d" points="%s"/>`, k, strings.Join(pts, " "))
		for i, v := range l.Y {
			if len(l.Y) <= maxDots && !math.IsNaN(v) {
				fmt.Fprintf(&b, `<circle class="dot l%d" cx="%.1f" cy="%.1f" r="3"><title>%.4g %s: %.4g %s</title></circle>`, k, px(p.X[i]), py(v), p.X[i], template.HTMLEscapeString(p.Of), v, template.HTMLEscapeString(p.Unit))
			}
		}
		if l.Name != "" && last >= 0 && !p.Legend() {
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`, px(p.X[last])-6, py(l.Y[last])-6, template.HTMLEscapeString(l.Name))
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, and names that are escaped
}

// step is the distance of four to eight marks up to most: 1, 2 or 5 times a power of ten.
func step(most float64) float64 {
	if most <= 0 {
		return 1
	}
	s := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, k := range []float64{1, 2, 5} {
		if most/(s*k) <= 8 {
			return s * k
		}
	}
	return 10 * s
}

// parts are what the pages share.
var parts = template.Must(template.New("parts").Parse(`{{define "style"}}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1d2733; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #dde3ea; font-variant-numeric: tabular-nums }
th { font-size: 13px; line-height: 1.3; vertical-align: bottom }
figure { display: inline-block; margin: 0 1rem 1rem 0 } figcaption { font-weight: 600 }
svg text { font: 11px system-ui, sans-serif; fill: #566 } .grid { stroke: #e6ebf0 } .line { fill: none; stroke-width: 2 }
.line.l0 { stroke: #1668b8 } .dot.l0 { fill: #1668b8 } .k0 { background: #1668b8 } .line.l1 { stroke: #c2571a } .dot.l1 { fill: #c2571a } .k1 { background: #c2571a } .line.l2 { stroke: #2a8a4a } .dot.l2 { fill: #2a8a4a } .k2 { background: #2a8a4a } .line.l3 { stroke: #8a4fc2 } .dot.l3 { fill: #8a4fc2 } .k3 { background: #8a4fc2 } .line.l4 { stroke: #b3213f } .dot.l4 { fill: #b3213f } .k4 { background: #b3213f } .line.l5 { stroke: #7a6a10 } .dot.l5 { fill: #7a6a10 } .k5 { background: #7a6a10 } .line.l6 { stroke: #0f8f96 } .dot.l6 { fill: #0f8f96 } .k6 { background: #0f8f96 } .line.l7 { stroke: #6b7683 } .dot.l7 { fill: #6b7683 } .k7 { background: #6b7683 } .line.l8 { stroke: #c04f9a } .dot.l8 { fill: #c04f9a } .k8 { background: #c04f9a }
.legend { font-size: 12px; max-width: 420px } .legend span { margin-right: .8rem } .legend i { display: inline-block; width: 10px; height: 10px; margin-right: .3rem }
@media (prefers-color-scheme: dark) { body { background: #14191f; color: #dfe6ee } th, td { border-color: #2c3742 } .grid { stroke: #2c3742 } svg text { fill: #9ab } }
{{end}}{{define "plots"}}{{range .}}<figure><figcaption>{{.Title}}, {{.Unit}}</figcaption>{{.SVG}}{{if .Legend}}<div class="legend">{{range $k, $l := .Lines}}<span><i class="k{{$k}}"></i>{{$l.Name}}</span> {{end}}</div>{{end}}</figure>
{{end}}{{end}}`))

func pageOf(name, text string) *template.Template {
	return template.Must(template.Must(parts.Clone()).New(name).Parse(text))
}

var page = pageOf("report", `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Parley: what a listener costs</title>
<style>{{template "style"}}</style></head><body>
<h1>What a listener costs</h1>
<p>{{.First.Transport}}, {{.First.Seconds}} s for each run; {{.Node}}. The plots are by the number of {{.By}}. A frame is on time when it reaches its listener within 20 ms of his clock.</p>
<table><thead><tr><th>listeners</th><th>speakers</th><th>CPU, ms/s a leg</th><th>CPU, cores</th><th>a tick, ms</th><th>on time, %</th><th>delay p50, ms</th><th>p99, ms</th><th>memory, KiB each</th><th>generator left out</th><th>load</th></tr></thead><tbody>
{{range .Runs}}<tr><td>{{.Listeners}}</td><td>{{.Speakers}}</td><td>{{printf "%.3f" .MsPerSecondPerLeg}}</td><td>{{printf "%.3f" (index .CPUPerS "media")}}</td><td>{{printf "%.2f" .Mixer.TickMs}}</td><td>{{printf "%.3f" .OnTimePct}}</td><td>{{printf "%.1f" .DelayMs.P50}}</td><td>{{printf "%.1f" .DelayMs.P99}}</td><td>{{.KiBPerListener}}</td><td>{{.Skipped}}</td><td>{{.Load}}</td></tr>
{{end}}</tbody></table>
{{template "plots" .Plots}}</body></html>
`)

// OnTimePct is OnTime in per cent.
func (r *Report) OnTimePct() float64 { return 100 * r.OnTime }

// KiBPerListener is the memory for each listener.
func (r *Report) KiBPerListener() int64 { return r.BytesPerListener / 1024 }
