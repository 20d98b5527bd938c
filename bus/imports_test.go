package bus_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/parley-jami/parley/"

// The rules keep the node a system of services: each has its reason.
var rules = []struct {
	in     string // packages under this path
	forbid []string
	why    string
}{
	{"services/identity", others("identity"), "a service reaches another over the bus"},
	{"services/dht", others("dht"), "a service reaches another over the bus"},
	{"services/connect", others("connect"), "a service reaches another over the bus"},
	{"services/media", others("media"), "a service reaches another over the bus"},
	{"services/swarm", others("swarm"), "a service reaches another over the bus"},
	{"services/conference", others("conference"), "a service reaches another over the bus"},
	{"services/names", others("names"), "the name server is no part of a node"},
	{"services/jams", others("jams"), "the account server is no part of a node"},
	{"services/turn", others("turn"), "the relay is no part of a node"},
	{"services/", []string{"bus/embed"}, "only the bus process runs a NATS server"},
	{"internal/", []string{"services/"}, "what is shared knows no service"},
	{"bus/", []string{"services/"}, "the bus knows no service"},
	{"bus/contract", []string{"bus/actor", "bus/host", "bus/embed", "internal/"}, "the contract is types alone"},
}

func others(name string) []string {
	var out []string
	for _, s := range []string{"identity", "dht", "connect", "media", "swarm", "conference", "names", "jams", "turn"} {
		if s != name {
			out = append(out, "services/"+s)
		}
	}
	return out
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(strings.ReplaceAll(line, module, ""))
		for _, r := range rules {
			if !strings.HasPrefix(f[0], r.in) {
				continue
			}
			for _, imp := range f[1:] {
				for _, no := range r.forbid {
					if imp == no || strings.HasPrefix(imp, strings.TrimSuffix(no, "/")+"/") {
						t.Errorf("%s imports %s: %s", f[0], imp, r.why)
					}
				}
			}
		}
	}
}

func TestExamplesCanBeCopied(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"examples/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		for _, imp := range f[1:] {
			if own, ok := strings.CutPrefix(imp, module); ok && own != "bus/contract" && !strings.HasPrefix(own, "sdk/") {
				t.Errorf("%s imports %s", f[0], own)
			}
		}
	}
}

// Below the top folder of a service the code runs and is tested without a bus.
func TestCoresKnowNoBus(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"services/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(strings.ReplaceAll(line, module, ""))
		if strings.Count(f[0], "/") < 2 {
			continue
		}
		for _, imp := range f[1:] {
			if imp == "bus" || (strings.HasPrefix(imp, "bus/") && imp != "bus/contract") || strings.Contains(imp, "nats-io/nats.go") {
				t.Errorf("%s imports %s", f[0], imp)
			}
		}
	}
}
