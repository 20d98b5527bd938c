// Package host runs one process of the node: its logger, metrics, health
// answers, bus connection and orderly end. Services are values that host runs;
// they know nothing of flags or signals.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/natscreds"
	"github.com/parley-jami/parley/internal/sockets"
)

// EnvSupervised is set for a child of `parley up`: its health and metrics are
// then asked for on a Unix socket and shown by the supervisor.
const EnvSupervised = "PARLEY_SUPERVISED"

// EnvProfile, when set, adds /debug/pprof to the health answers of a supervised
// process: on its Unix socket, which only the node's user reaches.
const EnvProfile = "PARLEY_PPROF"

// DrainTime bounds the orderly end of one process; `parley up` ends within 5 s.
const DrainTime = 4 * time.Second

// Runner is a service. Run returns when ctx ends, after it has drained, or with
// the error that ended it; the process then exits non-zero and is restarted.
type Runner interface {
	Run(ctx context.Context) error
}

// Env is what a service gets. All fields are fixed after the start.
type Env struct {
	Name     string // "identity", "media", …
	Version  string
	Config   *config.Config
	Log      *zap.Logger
	Registry *prometheus.Registry

	ready atomic.Bool
}

// Dir returns the directory that the process owns, DATA/NAME, made with mode 0700.
func (e *Env) Dir() (string, error) { return e.dir(e.Name) }

// RunDir returns DATA/run: sockets and what need not outlive a boot.
func (e *Env) RunDir() (string, error) { return e.dir("run") }

func (e *Env) dir(name string) (string, error) {
	d := filepath.Join(e.Config.Data, name)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return d, nil
}

// SetReady is what /readyz answers.
func (e *Env) SetReady(ok bool) { e.ready.Store(ok) }

// Ready reports what SetReady was given last.
func (e *Env) Ready() bool { return e.ready.Load() }

// BusURL returns where the bus is.
func BusURL(c *config.Config) string {
	if c.Bus.URL != "" {
		return c.Bus.URL
	}
	return "nats://" + c.Bus.Listen
}

// CredsFile returns the credentials file of a process or of "cli".
func CredsFile(c *config.Config, name string) string {
	return filepath.Join(c.Data, "creds", name+".creds")
}

// Connect connects the process to the bus as its own user, waiting until the
// credentials are written and the bus answers.
func (e *Env) Connect(ctx context.Context) (*bus.Conn, error) {
	creds := CredsFile(e.Config, e.Name)
	for {
		_, err := os.Stat(creds)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("bus credentials: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("bus credentials: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	a, err := natscreds.ReadAccess(creds)
	if err != nil {
		return nil, err
	}
	name := e.Name
	if a.Worker != "" { // they are of that machine alone, which is none of the node's
		name = bus.GuestUser(e.Name, a.Worker)
	}
	return bus.Connect(ctx, bus.Options{URL: BusURL(e.Config), Creds: creds, Name: name, Log: e.Log.Named("bus")})
}

// Guest returns under which name this process serves a node from another machine; "" for one of
// the node's own. It is known once the process has connected.
func (e *Env) Guest() (string, error) {
	a, err := natscreds.ReadAccess(CredsFile(e.Config, e.Name))
	return a.Worker, err
}

// RoomsKeySize is the length of the key in [RoomsKey], in bytes.
const RoomsKeySize = 32

// RoomsKey returns the file of the key that copies of rooms are sealed with, for who may take them over.
func RoomsKey(c *config.Config) string { return filepath.Join(c.Data, "creds", "rooms.key") }

// ConnectAccount connects and waits for the account.
func (e *Env) ConnectAccount(ctx context.Context) (*bus.Conn, contract.Account, error) {
	c, err := e.Connect(ctx)
	if err != nil {
		return nil, contract.Account{}, err
	}
	acc, err := c.WaitAccount(ctx)
	if err != nil {
		c.Close()
		return nil, acc, fmt.Errorf("waiting for the account: %w", err)
	}
	return c, acc, nil
}

// Run runs a service until it ends, ctx does, or SIGTERM or SIGINT comes; a second
// signal ends the process at once. build gets the environment after the health
// answers are up.
func Run(ctx context.Context, name, version string, cfg *config.Config, log *zap.Logger, build func(*Env) (Runner, error)) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	env := &Env{Name: name, Version: version, Config: cfg, Log: log.Named(name), Registry: prometheus.NewRegistry()}
	env.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	closeHealth, err := env.serveHealth()
	if err != nil {
		return err
	}
	defer closeHealth()
	r, err := build(env)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		stop() // a second signal kills
		env.SetReady(false)
		select {
		case err = <-done:
		case <-time.After(DrainTime):
			err = fmt.Errorf("not drained within %s", DrainTime)
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// HealthSocket returns the Unix socket on which a supervised process answers
// /healthz, /readyz and /metrics.
func HealthSocket(c *config.Config, name string) string {
	return filepath.Join(c.Data, "run", name+".sock")
}

// HeaderData names the data directory of who answers at admin.listen: `parley ready` asks an address,
// at which another node may be.
const HeaderData = "Parley-Data"

// OfData has the answers of h say whose they are.
func OfData(c *config.Config, h http.Handler) http.Handler {
	data := c.Data
	if abs, err := filepath.Abs(data); err == nil {
		data = abs
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderData, data)
		h.ServeHTTP(w, r)
	})
}

func (e *Env) serveHealth() (func(), error) {
	var l net.Listener
	var err error
	switch {
	case os.Getenv(EnvSupervised) != "":
		if _, err = e.RunDir(); err != nil {
			return nil, err
		}
		path := HealthSocket(e.Config, e.Name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("health socket: %w", err)
		}
		l, err = net.Listen("unix", path)
	case e.Config.Admin.Listen != "":
		l, err = sockets.Listen(sockets.Spec{Name: "admin", Network: "tcp", Addr: e.Config.Admin.Listen, Setting: "admin.listen"})
	default:
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Name, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !e.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(e.Registry, promhttp.HandlerOpts{}))
	if os.Getenv(EnvProfile) != "" && os.Getenv(EnvSupervised) != "" {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	srv := &http.Server{Handler: OfData(e.Config, mux), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			e.Log.Error("health answers ended", zap.Error(err))
		}
	}()
	return func() {
		if err := srv.Close(); err != nil {
			e.Log.Debug("health close", zap.Error(err))
		}
	}, nil
}
