package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestHTML(t *testing.T) {
	var runs []*Report
	for _, n := range []int{100, 500, 2000} {
		runs = append(runs, &Report{Listeners: n, Speakers: 3, Seconds: 20, Transport: RTP, CPUPerS: map[string]float64{"media": float64(n) / 2000},
			MsPerSecondPerListen: 0.5, OnTime: 0.999, BytesPerListener: 40 << 10, DelayMs: Delay{P50: 20, P99: 30}})
	}
	var b bytes.Buffer
	if err := HTML(&b, "a <node>", runs); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if strings.Count(page, "<svg") != 6 || strings.Count(page, "<tr>") != 4 || !strings.Contains(page, "a &lt;node&gt;") || strings.Contains(page, "NaN") {
		t.Errorf("the page:\n%s", page)
	}
	for part := range strings.SplitSeq(page, "<svg") {
		svg, _, ok := strings.Cut(part, "</svg>")
		if !ok {
			continue
		}
		for d := xml.NewDecoder(strings.NewReader("<svg" + svg + "</svg>")); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
	}
	if err := HTML(&b, "", nil); !errors.Is(err, ErrConfig) {
		t.Errorf("no runs: %v", err)
	}
	// Nothing but zeros has axes as well.
	b.Reset()
	if err := HTML(&b, "", []*Report{{Listeners: 1}}); err != nil || strings.Contains(b.String(), "NaN") {
		t.Errorf("only zeros: %v\n%s", err, b.String())
	}
}

func TestStep(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 0.55: 0.1, 1: 0.2, 2000: 500, 7: 1, 8.5: 2, 45: 10} {
		if got := step(most); got != want {
			t.Errorf("up to %g: %g, want %g", most, got, want)
		}
	}
}
