//go:build interop

package opendht

import (
	"io"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/stocktest"
)

// output is what a process says.
type output struct{ *stocktest.Output }

func (o output) find(t *testing.T, d time.Duration, pattern string) []string {
	t.Helper()
	return o.Find(t, d, pattern)
}

func (o output) look(d time.Duration, pattern string) []string { return o.Look(d, pattern) }

// stock is one dhtnode.
type stock struct {
	*output
	node  *stocktest.Node
	port  int
	pid   int
	keyID string // of its identity
}

func dhtnode(t *testing.T, bootstrap string, args ...string) *stock {
	t.Helper()
	n := stocktest.Start(t, bootstrap, args...)
	return &stock{&output{n.Output}, n, n.Port, n.PID, n.KeyID}
}

func (s *stock) do(t *testing.T, format string, args ...any) {
	t.Helper()
	s.node.Do(t, format, args...)
}

func freePort(t *testing.T) int { return stocktest.FreePort(t) }

func run(t *testing.T, name string, args ...string) (io.Writer, *output) {
	t.Helper()
	in, o := stocktest.Run(t, name, args...)
	return in, &output{o}
}

// python is one node of python3-opendht.
type python struct {
	*output
	node *stocktest.Python
}

func startPython(t *testing.T, bootstrap int) *python {
	t.Helper()
	p := stocktest.StartPython(t, bootstrap)
	return &python{&output{p.Output}, p}
}

type event = stocktest.Event

func (p *python) do(t *testing.T, op string, key overlay.Key, data []byte) event {
	t.Helper()
	return p.node.Do(t, op, key, data)
}
