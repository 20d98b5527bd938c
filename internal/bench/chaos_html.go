package bench

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

// ChaosHTML writes a page that shows what each step cost: a table, and a plot of the longest gaps.
// It needs nothing from elsewhere.
func ChaosHTML(w io.Writer, node string, r *ChaosReport) error {
	if r == nil || len(r.Steps) == 0 {
		return fmt.Errorf("%w: there is no run to show", ErrConfig)
	}
	if err := chaosPage.Execute(w, map[string]any{"Node": node, "Run": r, "Bars": bars(r)}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

const (
	barStep = 26.0
	barsW   = 640.0
	barName = 90.0
)

// bars draws the longest gap of each step: the median of its times, and the longest.
func bars(r *ChaosReport) template.HTML {
	most := 1.0
	for _, s := range r.Steps {
		most = max(most, s.GapMs.Max)
	}
	unit := step(most)
	most = unit * math.Ceil(most/unit)
	px := func(ms float64) float64 { return barName + ms/most*(barsW-barName-60) }
	h := barStep*float64(len(r.Steps)) + bottom
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" width="%g" height="%g" role="img">`, barsW, h, barsW, h)
	for v := 0.0; v <= most*1.001; v += unit {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="0" y2="%.1f"/><text x="%.1f" y="%.1f" text-anchor="middle">%.4g</text>`, px(v), px(v), h-bottom, px(v), h-bottom+18, v)
	}
	for i, s := range r.Steps {
		y := barStep * float64(i)
		name := template.HTMLEscapeString(s.Process)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text><rect class="most" x="%g" y="%.1f" width="%.1f" height="14"><title>%s: at most %.0f ms</title></rect>`,
			barName-8, y+17, name, barName, y+6, px(s.GapMs.Max)-barName, name, s.GapMs.Max)
		fmt.Fprintf(&b, `<rect class="half" x="%g" y="%.1f" width="%.1f" height="14"><title>%s: half of the times at most %.0f ms</title></rect><text x="%.1f" y="%.1f">%.0f ms</text>`,
			barName, y+6, px(s.GapMs.P50)-barName, name, s.GapMs.P50, px(s.GapMs.Max)+6, y+17, s.GapMs.Max)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, and names that are escaped
}

var chaosPage = pageOf("chaos", `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Parley: what deaths and cuts cost</title>
<style>{{template "style"}}
th:first-child, td:first-child { text-align: left } svg text { font-size: 12px } .most { fill: #b9d3ea } .half { fill: #1668b8 }
@media (prefers-color-scheme: dark) { .most { fill: #35506b } }
</style></head><body>
<h1>What deaths and cuts cost</h1>
<p>{{.Run.Legs}} legs by {{.Run.Transport}}, {{.Run.Speakers}} of them speaking; {{.Node}}. Each process was killed (SIGKILL), each network cut, several times while all listened and one wrote to the chat. A gap is what is missing in the sound of the leg that had the longest.</p>
<figure><figcaption>Longest gap, ms: half of the times at most, and at most</figcaption>{{.Bars}}</figure>
<table><thead><tr><th>step</th><th>times</th><th>back, ms</th><th>gap p50, ms</th><th>gap max, ms</th><th>of all legs p50, ms</th><th>legs lost</th><th>moved</th><th>two mixers, legs</th><th>ms at most</th><th>load</th></tr></thead><tbody>
{{range .Run.Steps}}<tr><td>{{.Process}}</td><td>{{.Times}}</td><td>{{printf "%.0f" .BackMs.P50}}</td><td>{{printf "%.0f" .GapMs.P50}}</td><td>{{printf "%.0f" .GapMs.Max}}</td><td>{{printf "%.0f" .Legs.P50}}</td><td>{{.Lost}}</td><td>{{.Moved}}{{if .Stuck}}, {{.Stuck}} could not: {{.StuckBy}}{{end}}</td><td>{{.Two}}</td><td>{{printf "%.0f" .TwoMs.Max}}</td><td>{{printf "%.1f" .Load}}</td></tr>
{{end}}</tbody></table>
<h2>Messages</h2>
<table><thead><tr><th>step</th><th>acknowledged</th><th>refused</th><th>lost</th></tr></thead><tbody>
{{range .Run.Steps}}<tr><td>{{.Process}}</td><td>{{.Said}}</td><td>{{.Refused}}</td><td>{{.SaidLost}}{{with .Failed}} ({{.}}){{end}}</td></tr>
{{end}}</tbody></table>
<h2>Frames</h2>
<table><thead><tr><th>step</th><th>due</th><th>came in time</th><th>or their redundancy did</th><th>delay p50, ms</th><th>p99, ms</th></tr></thead><tbody>
{{range .Run.Steps}}{{$name := .Process}}{{with .Frames}}<tr><td>{{$name}}</td><td>{{.Due}}</td><td>{{printf "%.5f" .Heard}}</td><td>{{printf "%.5f" .Whole}}</td><td>{{printf "%.1f" .DelayMs.P50}}</td><td>{{printf "%.1f" .DelayMs.P99}}</td></tr>
{{end}}{{end}}</tbody></table>
</body></html>
`)
