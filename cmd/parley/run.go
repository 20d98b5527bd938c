package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/logging"
	"github.com/parley-jami/parley/internal/supervise"
)

// traceFlush is what is left of a process's drain for sending its last spans.
const traceFlush = 400 * time.Millisecond

func newRun(a *app) *cobra.Command {
	all := slices.Concat(processes, alone)
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	var boot bool
	cmd := &cobra.Command{
		Use: "run NAME", Short: "Run one process of the node alone, as a container does",
		Long: "Run one process of the node alone: " + strings.Join(names, ", ") + `.

The processes of one node share its data directory or, apart from each other, the
credentials in DATA/creds; bus.url tells each where the bus is. names is a name
server, jams an account server and turn a relay, which need no node.

"parley run dht --bootstrap" is a node of OpenDHT that others start from, by itself: no bus,
no account, UDP at dht.opendht_listen, its key and the nodes that it knows in DATA/dht.`,
		Example: `  parley run media
  parley run dht --bootstrap --dht.opendht_listen :4222
  parley run dht --bootstrap --dht.network 7 --dht.opendht_bootstrap other.example.org`,
		Args: takes("NAME"), ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			i := slices.Index(names, args[0])
			if i < 0 {
				return usagef("there is no process %q; there are %s", args[0], strings.Join(names, ", "))
			}
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			if boot && names[i] != bootstrap.name {
				return usagef("--bootstrap is of %q alone", "parley run "+bootstrap.name)
			}
			if boot {
				if err := prepareData(cfg); err != nil {
					return err
				}
				lock, err := supervise.Lock(cmd.Context(), cfg.Data)
				if err != nil {
					return err
				}
				defer lock.Close()
				return runProcess(cmd.Context(), cfg, bootstrap.name, bootstrap.build, a.err)
			}
			return runProcess(cmd.Context(), cfg, names[i], all[i].build, a.err)
		},
	}
	addConfigFlags(cmd)
	cmd.Flags().BoolVar(&boot, "bootstrap", false, "of dht: a bootstrap node by itself, for any node of OpenDHT")
	return cmd
}

func runProcess(ctx context.Context, cfg *config.Config, name string, build func(*host.Env) (host.Runner, error), logTo io.Writer) error {
	if os.Getenv(host.EnvSupervised) != "" {
		// The supervisor may die first and take the pipe of the log with it; that
		// must not end the process in the middle of its drain.
		signal.Ignore(syscall.SIGPIPE)
	}
	if err := prepareData(cfg); err != nil {
		return err
	}
	log, err := logging.New(cfg.Log, logTo)
	if err != nil {
		return err
	}
	zap.ReplaceGlobals(log)
	stopTrace, err := logging.Trace(context.WithoutCancel(ctx), cfg.Trace, name, version, log.Named(name))
	if err != nil {
		return err
	}
	err = host.Run(ctx, name, version, cfg, log, build)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
	defer cancel()
	if terr := stopTrace(limit); terr != nil {
		log.Named(name).Warn("traces not sent", zap.Error(terr))
	}
	if err != nil {
		err = fmt.Errorf("run %w", err)
		if logging.Resolve(cfg.Log.Format, logTo) == logging.Text {
			return err // told to a person, once
		}
		log.Named(name).Error("ended", zap.Error(err))
		return &codedError{exitError, errTold}
	}
	if os.Getenv(host.EnvSupervised) == "" { // a supervisor tells it
		log.Named(name).Info("stopped")
	}
	return nil
}

// prepareData makes the data directory for the owner alone, and all that is made
// in it later.
func prepareData(cfg *config.Config) error {
	syscall.Umask(0o077)
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("data directory (data): %w", err)
	}
	return nil
}
