// Command asyncapi writes docs/asyncapi.json (AsyncAPI 3.0) and docs/bus.md from the
// bus contract: subjects and types by reflection, their descriptions and the
// values of enumerations from the comments and constants of its source. Run it in
// the root of the project; the same contract gives the same bytes.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("C", ".", "root of the project")
	check := flag.Bool("check", false, "write nothing; fail when a file is stale")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "asyncapi:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	for name, want := range files {
		path := filepath.Join(root, "docs", name)
		if !check {
			if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // documentation is public
				return err
			}
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want) {
			return fmt.Errorf("%s is stale: run make generate", path)
		}
	}
	return nil
}

// generate returns the content of the files by name.
func generate(root string) (map[string][]byte, error) {
	src, err := readSource(filepath.Join(root, "bus", "contract"))
	if err != nil {
		return nil, err
	}
	s := newSchemas(src)
	doc, err := json.MarshalIndent(document(s), "", "  ")
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"asyncapi.json": append(doc, '\n'), "bus.md": markdown(s)}, nil
}
