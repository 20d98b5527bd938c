package qr

import (
	"encoding/xml"
	"strings"
	"testing"
)

const text = "jami:4f891b21a87d5e3c41f96563e358a295aba4e960"

func TestTerminal(t *testing.T) {
	s, err := Terminal(text)
	if err != nil {
		t.Fatal(err)
	}
	c, err := encode(text)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) != (len(c)+2*quiet+1)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), len(c))
	}
	for y := range c {
		line := strings.TrimSuffix(strings.TrimPrefix(lines[(y+quiet)/2], "\x1b[30;107m"), "\x1b[0m")
		for x, r := range []rune(line)[quiet : quiet+len(c)] {
			upper := (y+quiet)%2 == 0
			if dark := r == '█' || upper && r == '▀' || !upper && r == '▄'; dark != c[y][x] {
				t.Fatalf("module %d,%d is %q", x, y, r)
			}
		}
	}
	if _, err := Terminal(strings.Repeat("x", 5000)); err == nil {
		t.Error("a text that no code can hold")
	}
}

func TestSVG(t *testing.T) {
	s, err := SVG(text, `a <b> & "c"`)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Title string `xml:"title"`
		Path  struct {
			D string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal([]byte(s), &v); err != nil || v.Title != `a <b> & "c"` {
		t.Errorf("%+v, %v", v, err)
	}
	c, err := encode(text)
	if err != nil {
		t.Fatal(err)
	}
	dark := 0
	for y := range c {
		for x := range c[y] {
			if c[y][x] {
				dark++
			}
		}
	}
	if got := strings.Count(v.Path.D, "M"); got != dark {
		t.Errorf("%d dark modules, want %d", got, dark)
	}
}
