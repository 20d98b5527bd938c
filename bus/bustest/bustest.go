// Package bustest gives a test a real bus of its own: the embedded server with
// all users, permissions and streams, on a free port and in the test's directory.
//
//	s := bustest.Start(t)
//	c := s.Conn("conference")              // as a process, with that process's permissions
//	nc := s.Bot("echo", "main", "listen")  // as a bot, in an account of its own
//	svc, err := media.New(s.Env("media"))  // a whole service against this bus
package bustest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/embed"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/natscreds"
)

// Account is the Jami Id that every connection of this package has set.
const Account = "0123456789abcdef0123456789abcdef01234567"

// patience bounds everything here that waits.
const patience = 10 * time.Second

// Server is a running bus.
type Server struct {
	t    testing.TB
	cfg  *config.Config
	log  *zap.Logger
	bus  *embed.Bus
	stop func()
}

// Start runs a bus until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartWith(t, func(*config.Config) {})
}

// StartWith runs a bus with settings that change has changed.
func StartWith(t testing.TB, change func(*config.Config)) *Server {
	t.Helper()
	cfg := &config.Config{Data: t.TempDir(), Identity: config.Identity{Create: true}}
	cfg.Bus.Listen = "127.0.0.1:0"
	change(cfg)
	// Warnings are noise in tests that provoke refusals on purpose.
	s := &Server{t: t, cfg: cfg, log: zaptest.NewLogger(t, zaptest.Level(zap.FatalLevel))}
	s.run()
	t.Cleanup(s.Stop)
	return s
}

func (s *Server) run() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := embed.New(s.env("bus", *s.cfg))
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	up, done := make(chan string, 1), make(chan error, 1)
	s.bus = r.(*embed.Bus)
	s.bus.Started = func(url string) { up <- url }
	go func() { done <- r.Run(ctx) }()
	select {
	case url := <-up:
		if s.cfg.Bus.URL != "" {
			break
		}
		host, _, _ := net.SplitHostPort(s.cfg.Bus.Listen) // it has been listened on
		_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "nats://"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.cfg.Bus.Listen = net.JoinHostPort(host, port)
	case err := <-done:
		cancel()
		s.t.Fatalf("bus: %v", err)
	case <-time.After(patience):
		cancel()
		s.t.Fatalf("bus not up within %s", patience)
	}
	s.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			s.t.Errorf("bus: %v", err)
		}
	}
}

// Stop ends the server; the test's connections then try to reconnect.
func (s *Server) Stop() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Restart ends the server, if it runs, and starts it on the same port with the
// same data: users and bots stay what they were.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.run()
}

// StartAt runs a bus at the servers of another operator.
func StartAt(t testing.TB, at *Stock, change func(*config.Config)) *Server {
	t.Helper()
	return StartWith(t, func(c *config.Config) {
		c.Bus.URL, c.Bus.OperatorKey, c.Bus.SystemCreds = strings.Join(at.URLs, ","), at.Key, at.SystemCreds
		change(c)
	})
}

// URL returns where the bus listens.
func (s *Server) URL() string { return host.BusURL(s.cfg) }

// Config returns a copy of the configuration that names this bus and the test's
// directory; everything else is zero.
func (s *Server) Config() *config.Config {
	c := *s.cfg
	return &c
}

// Env returns what a service's New takes. The configuration is its own: change
// what the service needs before New.
func (s *Server) Env(name string) *host.Env { return s.env(name, *s.cfg) }

func (s *Server) env(name string, cfg config.Config) *host.Env {
	return &host.Env{Name: name, Version: "0.0.0-test", Config: &cfg, Log: s.log.Named(name), Registry: prometheus.NewRegistry()}
}

// Conn connects as a process of the node ("conference", "cli", …), with Account
// set. It is closed when the test ends.
func (s *Server) Conn(name string) *bus.Conn {
	s.t.Helper()
	return s.conn(name, host.CredsFile(s.cfg, name))
}

func (s *Server) conn(name, creds string) *bus.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := bus.Connect(ctx, bus.Options{URL: s.URL(), Creds: creds, Name: name, Log: s.log.Named(name)})
	if err != nil {
		s.t.Fatalf("connect as %s: %v", name, err)
	}
	c.SetAccount(Account)
	s.t.Cleanup(c.Close)
	return c
}

// Admin connects as a user of the node's NATS account who may do anything, which no
// file of a node holds: it is signed with the account's key.
func (s *Server) Admin() *bus.Conn {
	s.t.Helper()
	return s.conn("admin", s.AdminCreds())
}

// AdminCreds returns the path of the credentials of such a user.
func (s *Server) AdminCreds() string {
	s.t.Helper()
	creds, err := s.adminCreds()
	if err != nil {
		s.t.Fatal(err)
	}
	return creds
}

func (s *Server) adminCreds() (string, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	pub, err := user.PublicKey()
	if err != nil {
		return "", err
	}
	seed, err := user.Seed()
	if err != nil {
		return "", err
	}
	text, err := jwt.FormatUserConfig(s.SignNode(jwt.NewUserClaims(pub)), seed)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.t.TempDir(), "admin.creds")
	return path, os.WriteFile(path, text, 0o600)
}

// SignNode signs the claims of a user with the key of the node's NATS account.
func (s *Server) SignNode(uc *jwt.UserClaims) string {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.cfg.Data, "bus", "keys", "keys.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var k struct{ Node string }
	if err := json.Unmarshal(raw, &k); err != nil {
		s.t.Fatal(err)
	}
	node, err := nkeys.FromSeed([]byte(k.Node))
	if err != nil {
		s.t.Fatal(err)
	}
	tok, err := uc.Encode(node)
	if err != nil {
		s.t.Fatal(err)
	}
	return tok
}

// Raw connects as a process without the bus package between, with more options.
func (s *Server) Raw(name string, opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	opts = append([]nats.Option{nats.UserCredentials(host.CredsFile(s.cfg, name)), nats.CustomInboxPrefix(bus.InboxPrefix(name)), nats.Name(name)}, opts...)
	if name == "bus" && s.cfg.Bus.URL == "" {
		opts = append(opts, nats.InProcessServer(s.bus))
	}
	return s.Dial(opts...)
}

// Worker adds a media worker, as the command line would, and returns the path of its credentials.
func (s *Server) Worker(name string) string { return s.guest(name, "media") }

// Door adds one that takes calls, too.
func (s *Server) Door(name string) string { return s.guest(name, "calls") }

func (s *Server) guest(name, service string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := AddWorker(ctx, s.Conn("cli"), contract.WorkerAdd{Name: name, Service: service}, s.t.TempDir())
	if err != nil {
		s.t.Fatalf("add worker %s: %v", name, err)
	}
	return path
}

// AddWorker adds a media worker, as the command line would, with its credentials in dir.
func AddWorker(ctx context.Context, cli *bus.Conn, q contract.WorkerAdd, dir string) (string, error) {
	kp, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	if q.UserKey, err = kp.PublicKey(); err != nil {
		return "", err
	}
	seed, err := kp.Seed()
	if err != nil {
		return "", err
	}
	g, err := bus.Call(ctx, cli, contract.BusAddWorker, &q)
	if err != nil {
		return "", err
	}
	text, err := natscreds.Format(g.JWT, seed, g.Access)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, q.Name+".creds")
	return path, os.WriteFile(path, text, 0o600)
}

// Grant lets a bot in, as identity would, and returns what it connects with.
func (s *Server) Grant(name, room string, rights ...contract.Right) (*contract.BusGranted, nkeys.KeyPair) {
	s.t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		s.t.Fatal(err)
	}
	pub, err := kp.PublicKey()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g, err := bus.Call(ctx, s.Conn("identity"), contract.BusGrantBot,
		&contract.BusGrant{Account: Account, Bot: name, Room: room, Rights: rights, UserKey: pub})
	if err != nil {
		s.t.Fatalf("grant bot %s: %v", name, err)
	}
	return g, kp
}

// Bot lets a bot in and connects as it. opts are for handlers of errors and the
// like.
func (s *Server) Bot(name, room string, rights ...contract.Right) *nats.Conn {
	s.t.Helper()
	g, kp := s.Grant(name, room, rights...)
	return s.BotConn(name, g, kp)
}

// BotConn connects with what Grant returned: one more replica.
func (s *Server) BotConn(name string, g *contract.BusGranted, kp nkeys.KeyPair, opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	return s.Dial(append([]nats.Option{BotAuth(g, kp), nats.Name(name)}, opts...)...)
}

// BotAuth is the option by which a bot proves who it is.
func BotAuth(g *contract.BusGranted, kp nkeys.KeyPair) nats.Option {
	return nats.UserJWT(func() (string, error) { return g.JWT, nil }, kp.Sign)
}

// Dial connects with just these options.
func (s *Server) Dial(opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	// Refusals are what many tests look for: they go to the handler of the
	// test, or nowhere, not to stderr.
	base := []nats.Option{nats.Timeout(patience), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
	nc, err := nats.Connect(s.URL(), append(base, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// FreePort returns a TCP port of the loopback that nobody used a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}
