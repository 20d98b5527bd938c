package web

import (
	"io/fs"
	"path"
	"regexp"
	"testing"
)

// TestReferences finds what a page or module names and is not there: without a
// build step nothing else would.
func TestReferences(t *testing.T) {
	named := regexp.MustCompile(`(?:from |href=|src=)"(\.{0,2}/[^"#]+\.(?:js|css|svg))"`)
	count := 0
	err := fs.WalkDir(Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(Files, name)
		if err != nil {
			return err
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			at := m[1]
			if at[0] == '.' {
				at = path.Join(path.Dir(name), at)
			} else {
				at = at[1:]
			}
			if _, err := fs.Stat(Files, at); err != nil {
				t.Errorf("%s names %s: %v", name, m[1], err)
			}
			count++
		}
		return nil
	})
	if err != nil || count < 20 {
		t.Errorf("%d references, %v", count, err)
	}
}
