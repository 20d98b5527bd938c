package embed

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Where each process is written. The bus package itself waits for the account and turns the pages of lists, and packages
// gate and remotekey do for several what they say.
var code = map[string][]string{
	"up": {"cmd/parley", "bus/bus.go"}, "cli": {"cmd/parley", "sdk/go", "bus/rooms.go"}, "bus": {"bus/embed"}, "identity": {"services/identity"},
	"dht": {"services/dht", "bus/bus.go", "bus/gate"}, "connect": {"services/connect", "bus/bus.go", "bus/gate", "bus/remotekey"}, "media": {"services/media", "bus/bus.go"},
	"swarm": {"services/swarm", "bus/bus.go", "bus/gate", "bus/remotekey"}, "conference": {"services/conference", "bus/bus.go"},
}

// source returns all Go code under paths but for tests.
func source(t *testing.T, paths ...string) string {
	t.Helper()
	var all strings.Builder
	for _, p := range paths {
		err := filepath.WalkDir(filepath.Join("..", "..", p), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// A grant that nobody uses is a door for who breaks into the process.
func TestEachGrantIsUsed(t *testing.T) {
	ident := map[string]string{} // contract name -> Go name
	defs := regexp.MustCompile(`(?m)^\t([A-Z]\w*)\s*= (?:command|query|event|audio)\b.*?\("\w+", "([a-z.]+)"`)
	for _, m := range defs.FindAllStringSubmatch(source(t, "bus/contract"), -1) {
		ident[m[2]] = m[1]
	}
	for process, a := range table {
		if process == calling { // connect, on another machine
			for _, name := range a.calls {
				if !slices.Contains(table["connect"].calls, name) {
					t.Errorf("a worker may call %s, and connect may not", name)
				}
			}
			process = "connect"
		}
		text := source(t, code[process]...)
		for _, name := range append(append(a.calls, a.hears...), a.says...) {
			used := regexp.MustCompile(`contract\.` + ident[name] + `\b`).MatchString(text)
			if process == "connect" { // the page's messages and the operator's API pass commands on by name
				_, verb, _ := strings.Cut(name, ".")
				used = used || strings.Contains(text, `"`+name+`"`) || strings.HasPrefix(name, "room.") && strings.Contains(text, `"`+verb+`"`)
			}
			if ident[name] == "" || !used {
				t.Errorf("%s may use %s (contract.%s) and does not", process, name, ident[name])
			}
		}
	}
}
