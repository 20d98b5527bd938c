package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/natscreds"
)

// workerAdded is what `worker add --json` prints.
type workerAdded struct {
	Worker string   `json:"worker"`
	Creds  string   `json:"creds"` // path of the credentials file
	URLs   []string `json:"urls"`
	TLS    bool     `json:"tls"`
	Alone  bool     `json:"bus_alone,omitempty"` // it stands by for a bus that is gone with the node's machine
}

func newWorkerAdd(a *app) *cobra.Command {
	var out string
	var urls []string
	var calls, standby bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make credentials for a media worker on another machine",
		Long: `Make credentials for a media worker on another machine, for "parley join" there. They are of
that worker alone, and are taken away by "parley worker revoke NAME". The file says where the
bus is and what verifies it; its private key is made here and is never sent anywhere.

With --calls the machine takes calls as well: the page, WHIP and WHEP, and SIP, for which it may speak
in the rooms of the node as whoever calls there.

With --conference they are of a machine that mixes nothing but stands by for the rooms: it takes
them over when the conference that has them is gone. The node has to hold them by a lease
(rooms.lease), and for a machine that is gone the bus has to be a cluster (bus.cluster_listen, or one at bus.url).`,
		Example: `  parley worker add hall2
  parley worker add hall2 --calls
  parley worker add spare --conference
  parley worker add hall2 --url nats://node.example.org:4223 --out - | ssh hall2 'umask 077; cat > hall2.creds'`,
		Args: takes("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, u := range urls {
				if p, err := url.Parse(u); err != nil || p.Scheme != "nats" && p.Scheme != "tls" || p.Host == "" || p.User != nil {
					return usagef("--url %q: the address of the bus, as nats://10.0.0.5:4223", u)
				}
			}
			if err := word("worker", args[0]); err != nil {
				return err
			}
			if out == "" {
				out = args[0] + ".creds"
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				o, err := a.openCreds(out)
				if err != nil {
					return err
				}
				q := contract.WorkerAdd{Name: args[0]}
				var more []byte
				switch {
				case calls && standby:
					return errors.Join(usagef("--calls, --conference: one of them"), o.close())
				case calls:
					q.Service = "calls"
				case standby:
					q.Service = "conference"
					if more, err = roomsKey(a, cmd); err != nil {
						return errors.Join(err, o.close())
					}
				}
				made, err := addWorker(ctx, s, q, urls, more, o)
				if err = errors.Join(err, o.close()); err != nil {
					return err
				}
				return o.beside().print(made, func(w io.Writer) { showWorkerAdded(w, made) })
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "credentials file to write, - for standard output (default ./NAME.creds)")
	cmd.Flags().BoolVar(&calls, "calls", false, "it takes calls of browsers and phones as well")
	cmd.Flags().BoolVar(&standby, "conference", false, "of a machine that stands by for the rooms")
	cmd.Flags().StringSliceVar(&urls, "url", nil, "where the worker reaches the bus, when it differs from what the node sees")
	return cmd
}

// roomsKey is what who stands by opens the copies of rooms with. It never crosses the bus.
func roomsKey(a *app, cmd *cobra.Command) ([]byte, error) {
	cfg, err := a.load(cmd)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(host.RoomsKey(cfg))
	if err != nil {
		return nil, fmt.Errorf("key of the rooms' copies: %w", err)
	}
	return natscreds.RoomsKey(strings.TrimSpace(string(raw))), nil
}

// addWorker takes the worker back when its credentials could not be kept.
func addWorker(ctx context.Context, s *session, q contract.WorkerAdd, urls []string, more []byte, o *credsOut) (*workerAdded, error) {
	name := q.Name
	// So that the worker which may be taken back is not an older one.
	all, err := call(ctx, s, contract.BusWorkers, &contract.None{})
	if err != nil {
		return nil, err
	}
	for _, w := range all.Workers {
		if w.Name == name && w.Revoked == nil {
			return nil, contract.ErrExists.With("there is a worker %s already; `parley worker revoke %s` shuts it out, then the name can be added anew", name, name)
		}
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	defer user.Wipe()
	if q.UserKey, err = user.PublicKey(); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	got, err := call(ctx, s, contract.BusAddWorker, &q)
	if err == nil {
		if len(urls) > 0 {
			got.Access.URLs = urls
		}
		var text []byte
		if text, err = natscreds.Format(got.JWT, seed, got.Access); err == nil {
			err = o.keep(append(text, more...))
		}
		if err == nil {
			return &workerAdded{Worker: name, Creds: o.path, URLs: got.Access.URLs, TLS: got.Access.TLS, Alone: got.Alone && q.Service == "conference"}, nil
		}
		err = fmt.Errorf("credentials: %w", err)
	} else if ctx.Err() == nil && !errors.Is(err, contract.ErrTimeout) && !errors.Is(err, contract.ErrUnavailable) {
		return nil, err // refused
	}
	_, rerr := call(context.WithoutCancel(ctx), &session{Conn: s.Conn, key: nuid.Next()}, contract.BusRevokeWorker, &contract.WorkerName{Name: name})
	if rerr != nil && !errors.Is(rerr, contract.ErrNotFound) {
		err = fmt.Errorf("%w; the worker may have been added: `parley worker revoke %s` takes it back", err, name)
	}
	return nil, err
}

func showWorkerAdded(w io.Writer, m *workerAdded) {
	fmt.Fprintf(w, "worker\t%s\ncredentials\t%s\nURL\t%s\n\n", m.Worker, m.Creds, strings.Join(m.URLs, " "))
	file := filepath.Base(m.Creds)
	if m.Creds == "-" {
		file = m.Worker + ".creds" // where it was put is not known here
	}
	fmt.Fprintf(w, "Copy the file to that machine, and there: parley join --creds %s\n", quoted(file))
	if !m.TLS {
		anew := []string{"set bus.listen to an address that it reaches", "start the node again", "`parley worker revoke " + m.Worker + "`"}
		if m.Creds != "-" {
			anew = append(anew, "`rm "+quoted(m.Creds)+"`")
		}
		fmt.Fprintf(w, "The bus listens on loopback alone. For another machine, in this order: %s, and this command once more.\n", strings.Join(anew, ", "))
	}
	if m.Alone {
		fmt.Fprintln(w, "The bus is one server, on the node's machine: who stands by takes the rooms when the conference alone is gone, and not when that machine is. For that the bus has to be a cluster, best of three machines: set bus.cluster_listen and bus.cluster_routes on each (docs/deploy.md).")
	}
}
