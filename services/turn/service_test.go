package turn

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/turn/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	credentials "github.com/parley-jami/parley/internal/turn"
	"github.com/parley-jami/parley/services/turn/relay"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/pion/turn/v5/internal/client.(*PeriodicTimer).Start.func1"))
}

// environment is that of `parley run turn` with some flags.
func environment(t *testing.T, flags map[string]string) (*host.Env, *observer.ObservedLogs) {
	t.Helper()
	all := map[string]string{"data": t.TempDir(), "turn.listen": "127.0.0.1:0", "turn.public": "127.0.0.1", "turn.ports": "29000-29100"}
	for k, v := range flags {
		all[k] = v
	}
	cfg, err := config.Load(config.Sources{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	return &host.Env{Name: "turn", Version: "test", Config: cfg, Log: zap.New(core), Registry: prometheus.NewRegistry()}, logs
}

// A node's browser reaches the node's audio by the relay, with a credential that the node
// signs with the secret in the data directory.
func TestRunsAndSharesTheSecret(t *testing.T) {
	audio, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer audio.Close()
	env, logs := environment(t, map[string]string{"turn.allow_peers": audio.LocalAddr().String()})
	s, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for limit := time.Now().Add(10 * time.Second); !env.Ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("not ready")
		}
	}
	at := fmt.Sprint(logs.FilterMessage("relaying").All()[0].ContextMap()["address"])
	secret, err := credentials.Secret(env.Config) // as the node reads it
	if err != nil {
		t.Fatal(err)
	}
	cred := credentials.Issue(secret, "participant", time.Hour, time.Now())
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: at, TURNServerAddr: at, Conn: conn, Username: cred.Username, Password: cred.Password, Realm: "parley"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	out, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteTo([]byte("sound"), audio.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if err := audio.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := audio.ReadFrom(b); err != nil || string(b[:n]) != "sound" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if logs.FilterMessage("allocation ends").Len() != 1 {
		t.Error("the end of the allocation is not in the log")
	}
	for _, e := range logs.All() {
		if strings.Contains(fmt.Sprint(e.ContextMap()), string(secret)) || strings.Contains(fmt.Sprint(e.ContextMap()), cred.Password) {
			t.Errorf("a secret in the log: %s", e.Message)
		}
	}
}

func TestRefusesToStart(t *testing.T) {
	for _, c := range []struct {
		flags map[string]string
		want  string
	}{
		{map[string]string{"turn.public": "192.0.2.1,192.0.2.2"}, "second address"},
		{map[string]string{"turn.users_file": "/nowhere/users"}, "turn.users_file"},
		{map[string]string{"turn.secret_file": "/nowhere/secret"}, "turn.secret_file"},
		{map[string]string{"turn.tls_listen": "127.0.0.1:0", "turn.cert": "/nowhere/cert", "turn.key": "/nowhere/key"}, "turn.cert"},
		{map[string]string{"turn.listen": "192.0.2.1:0"}, "turn.listen"},
	} {
		env, _ := environment(t, c.flags)
		s, err := New(env)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.flags, err)
		}
	}
}

func TestMediaPorts(t *testing.T) {
	for listen, want := range map[string]relay.Ports{":24000": {First: 24000, Last: 24257}, "10.0.0.1:30000": {First: 30000, Last: 30257}, "": {}, ":65500": {}, ":0": {}} {
		if got := mediaPorts(listen); got != want {
			t.Errorf("%q: %v", listen, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	got, err := addresses([]string{"192.0.2.1", "2001:db8::1"})
	if err != nil || len(got) != 2 || got[0] != (relay.Address{Bind: netip.IPv4Unspecified(), Public: netip.MustParseAddr("192.0.2.1")}) || got[1].Bind != netip.IPv6Unspecified() {
		t.Errorf("%v, %v", got, err)
	}
	seen, err := addresses(nil)
	for _, a := range seen {
		if a.Public.IsLoopback() || a.Public.IsLinkLocalUnicast() || a.Public.IsUnspecified() {
			t.Errorf("%s is told to clients", a.Public)
		}
	}
	if err != nil && len(seen) != 0 {
		t.Error(err)
	}
}
