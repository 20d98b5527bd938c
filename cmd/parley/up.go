package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/logging"
	"github.com/parley-jami/parley/internal/secret"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/supervise"
)

func newUp(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", Short: "Start a node and keep it running",
		Long: `Start a node: the bus and six services, each a process of its own that is started
again when it dies. The first start makes the account. SIGTERM or Ctrl-C tells the
participants and ends within 5 s; a second one ends at once.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			return a.up(cmd.Context(), cfg)
		},
	}
	addConfigFlags(cmd)
	return cmd
}

// stopOrder says in which wave a process is stopped: who talks with participants
// first, so that they are told; the bus last. needed says who must be ready
// before anybody can join.
var stopOrder = map[string]struct {
	wave   int
	needed bool
}{
	"connect":    {0, true},
	"conference": {0, true},
	"media":      {1, true},
	"swarm":      {2, false},
	"dht":        {2, false},
	"identity":   {2, true},
	"bus":        {3, true},
}

// up runs the node until a signal ends it.
func (a *app) up(ctx context.Context, cfg *config.Config) error {
	began := time.Now()
	ctx, kill, stopSignals := drainSignals(ctx)
	defer stopSignals()
	for setting, path := range map[string]string{"identity.storage_key_file": cfg.Identity.StorageKey, "identity.password_file": cfg.Identity.PasswordFile} {
		if path == "" {
			continue
		}
		if _, err := secret.File(path); err != nil {
			return usagef("%s: %w", setting, err)
		}
	}
	out := supervise.NewOutput(a.err)
	defer out.Close()
	log, lock, err := a.ownData(ctx, cfg, out, "up")
	if err != nil {
		return err
	}
	defer lock.Close()
	n, err := openNode(cfg)
	if err != nil {
		return err
	}
	defer n.close()

	relays := secretOf(config.EnvTURNSecret)
	sup := supervise.New(supervise.Options{
		Specs: n.specs, Path: "/proc/self/exe", Args: func(name string) []string { return []string{"run", name, "--data", cfg.Data} },
		Env: childEnv(cfg), EnvOf: map[string][]string{"identity": secretOf(config.EnvIdentityStorageKey), "connect": relays, "media": relays}, Inherit: []*os.File{lock}, Out: out, Log: log,
	})
	link := &nodeLink{cfg: cfg, log: log, sup: sup, began: began, say: a.teller(log),
		node: supervise.Node{PID: os.Getpid(), Version: version, Started: began.UTC(), BusURL: host.BusURL(cfg), Admin: cfg.Admin.Listen}}

	serving, endServing := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	h := host.OfData(cfg, sup.Handler())
	if n.admin != nil {
		wg.Go(func() { supervise.Serve(serving, n.admin, h, log) })
	}
	local := sup.Handler()
	local.HandleFunc("GET /status", link.serveStatus)
	wg.Go(func() { supervise.Serve(serving, n.up, local, log) })
	wg.Go(func() { link.run(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		log.Info("stopping; a second signal ends at once")
		if err := notifySystemd("STOPPING=1"); err != nil {
			log.Warn("service manager not told", zap.Error(err))
		}
	})

	err = sup.Run(ctx, kill)
	endServing()
	wg.Wait()
	return err
}

// ownData makes the log of what supervises processes, and takes the data directory for them.
func (a *app) ownData(ctx context.Context, cfg *config.Config, out *supervise.Output, name string) (*zap.Logger, *os.File, error) {
	cfg.Log.Format = logging.Resolve(cfg.Log.Format, a.err)
	log, err := logging.New(cfg.Log, out)
	if err != nil {
		return nil, nil, err
	}
	if err := prepareData(cfg); err != nil {
		return nil, nil, err
	}
	lock, err := supervise.Lock(ctx, cfg.Data)
	return log.Named(name), lock, err
}

// drainSignals returns a context that the first signal ends and a channel that
// the second one closes.
func drainSignals(parent context.Context) (ctx context.Context, kill <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	sigs := make(chan os.Signal, 2)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	killed, ended, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < 2; n++ {
			select {
			case <-ended:
				return
			case <-sigs:
			}
			if n == 0 {
				cancel()
			} else {
				close(killed)
			}
		}
	}()
	return ctx, killed, func() {
		signal.Stop(sigs)
		close(ended)
		<-done
		cancel()
	}
}

// secretOf takes a variable that no child gets but those that it is given, and that this process has no longer.
func secretOf(name string) []string {
	v, ok := os.LookupEnv(name)
	if !ok {
		return nil
	}
	os.Unsetenv(name) // cannot fail for a name that is one
	return []string{name + "=" + v}
}

// childEnv is the environment with the whole configuration as this process sees
// it, so that a child started again after the file was edited still fits the
// others and the sockets that are held for it.
func childEnv(cfg *config.Config) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == "NOTIFY_SOCKET" || name == config.EnvStorageKey || name == config.EnvIdentityStorageKey || name == config.EnvTURNSecret
	})
	env = append(env, cfg.Environ()...) // of duplicates the last counts
	return append(env, host.EnvSupervised+"=1", config.EnvFile+"=")
}

// openedNode is every address of a node, taken before anything is started.
type openedNode struct {
	specs []supervise.Spec
	held  map[string]*sockets.Set // by process
	admin net.Listener            // nil: off
	up    net.Listener
}

func openNode(cfg *config.Config) (*openedNode, error) {
	n := &openedNode{held: map[string]*sockets.Set{}}
	if err := n.open(cfg); err != nil {
		n.close()
		return nil, err
	}
	for _, p := range processes {
		o := stopOrder[p.name]
		n.specs = append(n.specs, supervise.Spec{Name: p.name, Wave: o.wave, Needed: o.needed,
			Health: host.HealthSocket(cfg, p.name), Sockets: n.held[p.name]})
	}
	return n, nil
}

func (n *openedNode) open(cfg *config.Config) error {
	media, err := sockets.MediaSpecs(cfg)
	if err != nil {
		return usagef("%w", err)
	}
	if n.held["connect"], err = sockets.Open(sockets.ConnectSpecs(cfg)); err != nil {
		return err
	}
	n.held["connect"].Keep() // connections to Jami devices, with their calls
	if n.held["media"], err = sockets.Open(media); err != nil {
		return err
	}
	if err := sockets.Probe(sockets.ProbeSpecs(cfg)); err != nil {
		return err
	}
	if cfg.Admin.Listen != "" {
		if n.admin, err = sockets.Listen(sockets.Spec{Name: "admin", Network: "tcp", Addr: cfg.Admin.Listen, Setting: "admin.listen"}); err != nil {
			return err
		}
	}
	n.up, err = supervise.ListenUp(cfg.Data)
	return err
}

func (n *openedNode) close() {
	for _, s := range n.held {
		if s != nil {
			s.Close()
		}
	}
	for _, l := range []net.Listener{n.admin, n.up} {
		if l != nil {
			l.Close() // closed already after an orderly end
		}
	}
}

// teller returns what tells the operator: plain text on a terminal; elsewhere the
// progress goes to the log and only the final block is printed.
func (a *app) teller(log *zap.Logger) teller {
	return teller{out: a.out, terminal: logging.IsTerminal(a.out), log: log}
}

type teller struct {
	out      io.Writer
	terminal bool
	log      *zap.Logger
}

func (t teller) progress(msg string) {
	if t.terminal {
		fmt.Fprintln(t.out, "parley: "+msg)
		return
	}
	t.log.Info(msg)
}
