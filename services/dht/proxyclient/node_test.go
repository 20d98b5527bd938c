package proxyclient

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is clients at two proxies of one network, or one at a proxy that is alone.
func cluster(t *testing.T, n int) []overlay.Overlay {
	t.Helper()
	w := newNetwork()
	good := min(n-1, 1)
	var urls []string
	for i := range 2 {
		_, s := w.serve(t, fmt.Sprint("proxy", i), good)
		urls = append(urls, s.URL)
	}
	var out []overlay.Overlay
	for i := range n {
		node := start(t, i, urls[i%2])
		waitUp(t, node, urls[i%2])
		out = append(out, node)
	}
	return out
}

func TestOverlay(t *testing.T) { overlaytest.Run(t, cluster) }
