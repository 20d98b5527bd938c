package media

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pion/turn/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/internal/pionlog"
	credentials "github.com/parley-jami/parley/internal/turn"
)

const relaySecret = "a secret for tests"

// turnServer is pion's, at an address, with the secret of the tests.
func turnServer(t *testing.T, at string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	gen := &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}
	s, err := turn.NewServer(turn.ServerConfig{Realm: "test", LoggerFactory: pionlog.Factory{Log: zap.NewNop()},
		AuthHandler: func(ra *turn.RequestAttributes) (string, []byte, bool) {
			return ra.Username, turn.GenerateAuthKey(ra.Username, ra.Realm, credentials.Password([]byte(relaySecret), ra.Username)), true
		},
		ListenerConfigs: []turn.ListenerConfig{{Listener: l, RelayAddressGenerator: gen}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
}

// metric is a sample of a registry.
func metric(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

// A node that takes part in calls of Jami apps keeps a pair of relays, as soon as a server gives them.
func TestRelays(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	env := bustest.Start(t).Env("media")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(relaySecret), 0o600); err != nil {
		t.Fatal(err)
	}
	c := env.Config
	c.Media.Worker, c.Media.Listen, c.Media.Loudest = "m1", fmt.Sprintf("127.0.0.1:%d", freePorts(t)), 4
	c.TURN.URLs, c.TURN.SecretFile = []string{"turn:" + at + "?transport=tcp"}, file
	s, err := newService(env)
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{false, true} { // one of the two does not do
		if c.TURN.Node, c.Jami.Listen = on, ""; !on {
			c.Jami.Listen = ":0"
		}
		if s.relayClient() != nil {
			t.Errorf("turn.node %v, jami.listen %q: it has relays", c.TURN.Node, c.Jami.Listen)
		}
	}
	c.TURN.Node, c.Jami.Listen = true, ":0"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("did not happen: %s", what)
			}
		}
	}
	until("a server that is not there is noticed", func() bool { return metric(t, env.Registry, "parley_turn_client_failures_total", "udp") >= 1 })
	turnServer(t, at)
	until("a pair of relays", func() bool { return metric(t, env.Registry, "parley_turn_client_allocations", "udp") == 2 })
	cancel()
	<-done
	if n := metric(t, env.Registry, "parley_turn_client_allocations", "udp"); n != 0 {
		t.Errorf("%v allocations are left", n)
	}
}
