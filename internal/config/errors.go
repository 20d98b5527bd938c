package config

import (
	"fmt"
	"strings"
)

// Error is a key that is unknown or has a bad value.
type Error struct {
	Key    string // "http.listen"; empty where the source itself is malformed
	Source string // the file's path, "environment variable PARLEY_…", "flag --…", "default"
	Line   int    // in the file, from 1; 0 elsewhere
	Why    string // what is wrong and what is allowed
}

func (e *Error) Error() string {
	at := e.Source
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.Source, e.Line)
	}
	if e.Key == "" || strings.HasSuffix(e.Source, e.Key) { // "flag --http.listen"
		return fmt.Sprintf("%s: %s", at, e.Why)
	}
	return fmt.Sprintf("%s: %s: %s", at, e.Key, e.Why)
}

// unknown says that there is no such key and which one may have been meant.
func unknown(key string) string {
	best, dist := "", 4
	for _, f := range fields {
		if d := distance(key, f.Key); d < dist {
			best, dist = f.Key, d
		}
	}
	if best != "" {
		return "there is no such key; did you mean " + best + "?"
	}
	section, _, _ := strings.Cut(key, ".")
	var near []string
	for _, f := range fields {
		if f.section == section && section != "" {
			near = append(near, f.Key)
		}
	}
	if near != nil {
		return "there is no such key; " + section + " has " + strings.Join(near, ", ")
	}
	return "there is no such key; `parley config sample` lists all of them"
}

// distance is the edit distance of a and b, or a large number for long ones.
func distance(a, b string) int {
	const long = 64
	if len(a) > long || len(b) > long {
		return long
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
