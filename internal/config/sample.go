package config

import (
	"bytes"
	"fmt"
	"strings"
)

// sampleWidth is where the comments of the sample wrap.
const sampleWidth = 88

// Sample returns a configuration file with every key, its default and its
// documentation, all commented out: as it stands it changes nothing.
func Sample() []byte {
	var b bytes.Buffer
	b.WriteString(`# Configuration of a Parley node. Every key is optional; a key that is not here, or is
# misspelt, is an error. A value comes from, in rising order: its default (shown), this
# file, the environment (PARLEY_HTTP_LISTEN for http.listen), a flag (--http.listen).
# Made by "parley config sample".
`)
	section := ""
	for _, f := range fields {
		b.WriteString("\n")
		indent := ""
		if f.section != "" {
			indent = "  "
			if f.section != section {
				fmt.Fprintf(&b, "%s:\n", f.section)
			}
		}
		section = f.section
		lines := wrap(f.Doc, sampleWidth-len(indent)-2)
		if f.check != "" || f.enum != nil || f.max > f.min {
			lines = append(lines, wrap("Takes "+f.Allowed()+".", sampleWidth-len(indent)-2)...)
		}
		for _, line := range lines {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		_, name, found := strings.Cut(f.Key, ".")
		if !found {
			name = f.Key
		}
		fmt.Fprintf(&b, "%s# %s: %s\n", indent, name, f.sampleValue())
	}
	return b.Bytes()
}

func (f Field) sampleValue() string {
	switch {
	case f.Key == "data":
		return "/var/lib/parley"
	case f.List && f.Default == "":
		return "[]"
	case f.List:
		return "[" + f.Default + "]"
	case f.Default == "" || strings.ContainsAny(f.Default, ":#"):
		return fmt.Sprintf("%q", f.Default)
	}
	return f.Default
}

func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
