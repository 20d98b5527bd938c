// Package qr shows a text as a QR code (ISO/IEC 18004): in a terminal, and as SVG.
package qr

import (
	"fmt"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quiet is the light margin that readers need, in modules.
const quiet = 4

// code is the modules of a QR code: true is dark.
type code [][]bool

func encode(text string) (code, error) {
	img, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	size := img.Bounds().Dx()
	c := make(code, size)
	for y := range c {
		c[y] = make([]bool, size)
		for x := range c[y] {
			c[y][x] = color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y < 128
		}
	}
	return c, nil
}

// dark reports a module; the margin is light.
func (c code) dark(x, y int) bool {
	return y >= 0 && y < len(c) && x >= 0 && x < len(c) && c[y][x]
}

// Terminal returns the code as lines of text, two modules above each other in a
// character. Colours are set, so that it is dark on light in any terminal.
func Terminal(text string) (string, error) {
	c, err := encode(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for y := -quiet; y < len(c)+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < len(c)+quiet; x++ {
			b.WriteString(map[[2]bool]string{{true, true}: "█", {true, false}: "▀", {false, true}: "▄", {false, false}: " "}[[2]bool{c.dark(x, y), c.dark(x, y+1)}])
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String(), nil
}

// SVG returns the code as an image, of any size, whose title is label.
func SVG(text, label string) (string, error) {
	c, err := encode(text)
	if err != nil {
		return "", err
	}
	size := len(c) + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges" role="img"><title>%s</title>`+
		`<rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, size, size, escape.Replace(label), size, size)
	for y := range c {
		for x := range c[y] {
			if c[y][x] {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String(), nil
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
