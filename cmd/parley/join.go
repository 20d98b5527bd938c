package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/logging"
	"github.com/parley-jami/parley/internal/natscreds"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/supervise"
)

func newJoin(a *app) *cobra.Command {
	var creds, name string
	cmd := &cobra.Command{
		Use: "join [URL] --creds FILE", Short: "Have this machine mix for a node that runs elsewhere",
		Long: `Have this machine mix for a node that runs elsewhere: a media process, started again
when it dies, that takes participants of the node's rooms. A room that fills its worker
spreads to others, and all its participants hear each other.

With credentials of "worker add --calls" it takes calls, too: the page and WHIP at http.listen and
http.tls_listen, SIP at sip.listen and sip.tls_listen, as on the node; a page stays at the machine that it
was loaded from. With those of "worker add --conference" it is a conference instead, which stands by
for the rooms.

FILE is what "parley worker add NAME" wrote on the node, copied here; it is a secret. It says which
worker this is, where the bus is and what verifies it; URL is another address of the bus, such as
nats://10.0.0.5:4223. Workers reach one another, and participants reach this machine, by UDP at
media.listen.

SIGTERM or Ctrl-C ends it: those who are here lose their sound until they are at another one. It ends by
itself when its credentials are revoked.

Shown are the settings that a worker has to do with. The others of "parley config sample" can be given too.`,
		Example: `  parley join --creds hall2.creds
  parley join nats://10.0.0.5:4223 --creds hall2.creds --media.max_legs 2000`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes at most one URL, got %s", cmd.CommandPath(), count(len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if creds == "" {
				return usagef("--creds names the file of credentials, which `parley worker add NAME` makes on the node")
			}
			f, err := natscreds.Read(creds)
			switch {
			case errors.Is(err, natscreds.ErrMalformed):
				return usagef("--creds: %s is no file of credentials (%w); `parley worker add NAME` makes one on the node", creds, err)
			case err != nil:
				return usagef("--creds: %w", err)
			case f.Access.Worker == "":
				return usagef("--creds: %s is not of a media worker; `parley worker add NAME` makes such credentials on the node", creds)
			case f.Access.Worker != f.User.Name:
				return usagef("--creds: %s says that it is of worker %q, and its signed part of %q", creds, f.Access.Worker, f.User.Name)
			case name != "" && name != f.User.Name:
				return usagef("--name %s: the credentials are of worker %s, and the node lets nobody be another; leave out --name, or have it add %s", name, f.User.Name, name)
			}
			url := strings.Join(f.Access.URLs, ",")
			if len(args) > 0 {
				url = args[0]
			}
			service := cmp.Or(f.Access.Service, "media")
			if guests[service] == nil {
				return usagef("--creds: %s is for %.32q, which this version does not know; install the node's version", creds, service)
			}
			set := map[string]string{"bus.url": url, "media.worker": f.User.Name}
			switch service {
			case "calls":
				set["connect.name"] = f.User.Name
			case "conference":
				if f.RoomsKey == "" {
					return usagef("--creds: %s lacks the key of the rooms' copies; `parley worker add NAME --conference` makes it anew", creds)
				}
				set = map[string]string{"bus.url": url, "rooms.default": ""} // the rooms are the node's
			}
			for flag, v := range set {
				if err := cmd.Flags().Set(flag, v); err != nil {
					return usagef("%s: %w", flag, err)
				}
			}
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			if cfg.Bus.URL == "" {
				return usagef("the URL of the node's bus is missing, as nats://10.0.0.5:4223")
			}
			return a.join(cmd.Context(), cfg, service, f, creds)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedName() == "url" {
			return usagef("unknown flag: --url; the address of the bus is an argument here: parley join URL --creds FILE")
		}
		return flagError(cmd, err)
	})
	addConfigFlags(cmd)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		section, _, _ := strings.Cut(f.Name, ".")
		f.Hidden = !slices.Contains(ofAWorker, section)
	})
	cmd.Flags().StringVar(&creds, "creds", "", "file of this worker's credentials")
	cmd.Flags().StringVar(&name, "name", "", "name of this worker, to be sure that the credentials are of it")
	return cmd
}

// ofAWorker are the sections of settings that a worker has to do with; its help shows no others.
var ofAWorker = []string{"media", "http", "sip", "turn", "admin", "log"}

// guests are the processes of each service that another machine does for a node.
var guests = map[string][]string{"media": {"media"}, "calls": {"media", "connect"}, "conference": {"conference"}}

// join runs the worker until a signal ends it.
func (a *app) join(ctx context.Context, cfg *config.Config, service string, f *natscreds.File, creds string) error {
	began := time.Now()
	ctx, kill, stopSignals := drainSignals(ctx)
	defer stopSignals()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	out := supervise.NewOutput(a.err)
	defer out.Close()
	log, lock, err := a.ownData(ctx, cfg, out, "join")
	if err != nil {
		return err
	}
	defer lock.Close()
	var specs []supervise.Spec
	for _, process := range guests[service] {
		if err := takeCreds(cfg, process, f, creds); err != nil {
			return err
		}
		var ports []sockets.Spec
		switch process {
		case "media":
			if ports, err = sockets.MediaSpecs(cfg); err != nil {
				return usagef("%w", err)
			}
		case "connect":
			ports = sockets.ConnectSpecs(cfg)
		}
		held, err := sockets.Open(ports)
		if err != nil {
			return err
		}
		defer held.Close()
		specs = append(specs, supervise.Spec{Name: process, Needed: true, Health: host.HealthSocket(cfg, process), Sockets: held})
	}
	sup := supervise.New(supervise.Options{
		Specs: specs,
		Path:  "/proc/self/exe", Args: func(name string) []string { return []string{"run", name, "--data", cfg.Data} },
		Env: childEnv(cfg), Inherit: []*os.File{lock}, Out: out, Log: log,
	})
	serving, endServing := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer endServing()
	if cfg.Admin.Listen != "" {
		var l net.Listener
		if l, err = sockets.Listen(sockets.Spec{Name: "admin", Network: "tcp", Addr: cfg.Admin.Listen, Setting: "admin.listen"}); err != nil {
			return err
		}
		wg.Go(func() { supervise.Serve(serving, l, host.OfData(cfg, sup.Handler()), log) })
	}
	up, err := supervise.ListenUp(cfg.Data)
	if err != nil {
		return err
	}
	here := &nodeLink{cfg: cfg, log: log, sup: sup, node: supervise.Node{PID: os.Getpid(), Version: version, Started: began.UTC(), BusURL: cfg.Bus.URL, Admin: cfg.Admin.Listen, Worker: f.User.Name}}
	local := sup.Handler()
	local.HandleFunc("GET /status", here.serveStatus)
	wg.Go(func() { supervise.Serve(serving, up, local, log) })
	known := make(chan struct{}) // closed when the node has answered
	wg.Go(func() { a.joinWatch(ctx, end, known, cfg, guests[service][0], f.User.Name, log) })
	wg.Go(func() {
		if sup.WaitJoinable(ctx) != nil {
			return
		}
		if !nodeAnswers(ctx, known, cfg.Bus.URL, log) {
			return
		}
		log.Info("worker is up", zap.String("worker", f.User.Name), zap.String("service", service), zap.String("bus", cfg.Bus.URL), zap.Duration("after", time.Since(began)))
		if logging.IsTerminal(a.out) {
			does := map[string]string{"media": "mixes", "calls": "mixes and takes calls", "conference": "stands by"}[service]
			fmt.Fprintf(a.out, "\nWorker %s %s for the node at %s. Stop it with Ctrl-C.\n", f.User.Name, does, cfg.Bus.URL)
		}
	})
	err = sup.Run(ctx, kill)
	end(nil)
	if why, ok := errors.AsType[*contract.Error](context.Cause(ctx)); ok {
		return why
	}
	return err
}

// How long a worker waits for the node before it says so, and how often then.
const (
	nodeLate = 4 * time.Second
	nodeMore = time.Minute
)

// nodeAnswers waits until the node has answered; false: ctx has ended.
func nodeAnswers(ctx context.Context, known <-chan struct{}, url string, log *zap.Logger) bool {
	late := time.NewTimer(nodeLate)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-known:
			return true
		case <-late.C:
			log.Warn("the node does not answer; is it up, and is its bus (bus.listen there) reachable from here? Trying on", zap.String("bus", url), zap.Error(reach(ctx, url)))
			late.Reset(nodeMore)
		}
	}
}

// reach says why nobody is at the address of a bus; nil: somebody is.
func reach(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, nodeLate)
	defer cancel()
	var errs []error
	for _, one := range strings.Split(addr, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "4222")))
		if err == nil {
			return c.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// takeCreds copies the credentials to where the process looks for them.
func takeCreds(cfg *config.Config, process string, f *natscreds.File, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return usagef("--creds: %w", err)
	}
	to := host.CredsFile(cfg, process)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	if f.RoomsKey != "" {
		if err := atomicfile.Write(host.RoomsKey(cfg), []byte(f.RoomsKey+"\n"), 0o600); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
	}
	if err := atomicfile.Write(to, raw, 0o600); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	return nil
}

// refusedFor is how long the bus may refuse good credentials: it, too, may have to hear of them first.
const refusedFor = 3 * time.Second

// helloEvery is how often a worker says that it is there: by that the node knows two machines with the same credentials.
const helloEvery = 10 * time.Second

// joinWatch keeps a connection of its own and ends the worker, with the reason, when the node does not
// want it: the media process alone would try for ever.
func (a *app) joinWatch(ctx context.Context, end context.CancelCauseFunc, known chan<- struct{}, cfg *config.Config, process, name string, log *zap.Logger) {
	var once sync.Once
	var mu sync.Mutex
	var since time.Time
	refused := func(revoked bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		if since.IsZero() || time.Since(since) > 2*refusedFor { // the last one was another time
			since = time.Now()
		}
		switch {
		case revoked:
			end(contract.ErrForbidden.With("the node has revoked the credentials of worker %s; `parley worker add` makes new ones there", name))
		case time.Since(since) >= refusedFor:
			end(contract.ErrForbidden.With("the node at %s does not let worker %s in (%v): its credentials were revoked, or are of another node; `parley worker list` there shows which it knows", cfg.Bus.URL, name, err))
		}
	}
	conn, err := bus.Connect(ctx, bus.Options{URL: cfg.Bus.URL, Creds: host.CredsFile(cfg, process), Name: bus.GuestUser(process, name), Log: log.Named("bus"), Refused: refused})
	if err != nil {
		return // only when ctx has ended
	}
	defer conn.Close()
	hello := make(chan struct{}, 1)
	again := func() {
		mu.Lock()
		since = time.Time{}
		mu.Unlock()
		select {
		case hello <- struct{}{}:
		default:
		}
	}
	defer conn.OnReconnect(again)()
	again()
	beat := time.NewTicker(helloEvery)
	defer beat.Stop()
	instance, twice := nuid.Next(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-hello:
		case <-beat.C:
		}
		w, err := bus.Call(ctx, conn, contract.BusWorkerHello, &contract.WorkerHello{Version: version, Contract: contract.Version, Instance: instance}, name)
		if err == nil && w.Twice != twice {
			if twice = w.Twice; twice {
				log.Warn("another machine uses these credentials, too: the node takes both for one worker, and participants lose their sound; end this one or that, and have `parley worker add` make others", zap.String("worker", name))
			} else {
				log.Info("no other machine uses these credentials any more", zap.String("worker", name))
			}
		}
		switch e, ok := errors.AsType[*contract.Error](err); {
		case ctx.Err() != nil:
		case err == nil:
			once.Do(func() { close(known) })
		case ok && (e.Is(contract.ErrVersion) || e.Is(contract.ErrForbidden)):
			end(err)
			return
		case ok && e.Retry: // its bus process is not there yet
			time.AfterFunc(time.Second, again)
		default:
			log.Warn("the node was not asked whether it knows this version", zap.Error(err))
		}
	}
}
