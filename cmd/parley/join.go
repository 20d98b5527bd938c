package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/logging"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/supervise"
)

// maxCreds bounds a credentials file, in bytes.
const maxCreds = 64 << 10

func newJoin(a *app) *cobra.Command {
	var creds, name string
	cmd := &cobra.Command{
		Use: "join nats://HOST:PORT --creds FILE", Short: "Have this machine mix for a node that runs elsewhere",
		Long: `Have this machine mix for a node that runs elsewhere: a media process, started again
when it dies, that takes participants of the node's rooms. A room that fills its worker
spreads to others, and all its participants hear each other.

The URL is the node's bus (bus.listen there, which is loopback only unless it is set). FILE
is DATA/creds/media.creds of the node, copied here; it is a secret. Workers reach one
another, and participants reach this machine, by UDP at media.listen.

The worker's name is this machine's unless --name gives another; no two may have the same.
SIGTERM or Ctrl-C ends it: those who are here lose their sound until they are at another one.`,
		Example: `  parley join nats://10.0.0.5:4223 --creds media.creds
  parley join nats://10.0.0.5:4223 --creds media.creds --name hall2 --media.max_legs 2000`,
		Args: takes("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if creds == "" {
				return usagef("--creds names the file of credentials: DATA/creds/media.creds of the node")
			}
			if name == "" {
				name = machineName()
			}
			for flag, v := range map[string]string{"bus.url": args[0], "media.worker": name} {
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
			return a.join(cmd.Context(), cfg, creds)
		},
	}
	addConfigFlags(cmd)
	cmd.Flags().StringVar(&creds, "creds", "", "file with the node's credentials for media")
	cmd.Flags().StringVar(&name, "name", "", "name of this worker")
	return cmd
}

// machineName is the host's name as a worker's: 1 to 32 of a-z, 0-9 and -.
func machineName() string {
	h, err := os.Hostname()
	if err != nil {
		return "" // refused as a name
	}
	h, _, _ = strings.Cut(strings.ToLower(h), ".")
	h = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, h), "-")
	return strings.Trim(h[:min(len(h), 32)], "-")
}

// join runs the worker until a signal ends it.
func (a *app) join(ctx context.Context, cfg *config.Config, creds string) error {
	began := time.Now()
	ctx, kill, stopSignals := drainSignals(ctx)
	defer stopSignals()
	out := supervise.NewOutput(a.err)
	defer out.Close()
	log, lock, err := a.ownData(ctx, cfg, out, "join")
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := takeCreds(cfg, creds); err != nil {
		return err
	}
	specs, err := sockets.MediaSpecs(cfg)
	if err != nil {
		return usagef("%w", err)
	}
	held, err := sockets.Open(specs)
	if err != nil {
		return err
	}
	defer held.Close()
	sup := supervise.New(supervise.Options{
		Specs: []supervise.Spec{{Name: "media", Needed: true, Health: host.HealthSocket(cfg, "media"), Sockets: held}},
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
		wg.Go(func() { supervise.Serve(serving, l, sup.Handler(), log) })
	}
	wg.Go(func() {
		if sup.WaitJoinable(ctx) != nil {
			return
		}
		log.Info("worker is up", zap.String("worker", cfg.Media.Worker), zap.String("bus", cfg.Bus.URL), zap.Duration("after", time.Since(began)))
		if logging.IsTerminal(a.out) {
			fmt.Fprintf(a.out, "\nWorker %s mixes for the node at %s. Stop it with Ctrl-C.\n", cfg.Media.Worker, cfg.Bus.URL)
		}
	})
	return sup.Run(ctx, kill)
}

// takeCreds copies the credentials to where the process looks for them.
func takeCreds(cfg *config.Config, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return usagef("--creds: %w", err)
	}
	tok, err := jwt.ParseDecoratedJWT(raw)
	if err == nil && len(raw) <= maxCreds {
		_, err = jwt.DecodeUserClaims(tok)
	}
	if err != nil || len(raw) > maxCreds {
		return usagef("--creds: %s is no file of credentials; copy DATA/creds/media.creds of the node", file)
	}
	to := host.CredsFile(cfg, "media")
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	if err := atomicfile.Write(to, raw, 0o600); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	return nil
}
