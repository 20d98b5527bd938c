package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newWorker(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "worker", Short: "The media processes that mix, here and on other machines"}
	group(cmd)
	cmd.AddCommand(newWorkerList(a), newWorkerAdd(a), newWorkerRevoke(a), newWorkerDrain(a))
	return cmd
}

func newWorkerList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the media workers", Args: takes(),
		Long: `List the media workers: this node's own and those of "parley join". One that does not beat
any more is gone; those that were added are listed also when they were never here, and those that
were revoked, too. "On two machines" are those whose credentials two use at once, which has
participants lose their sound: end one, and add another worker for it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := listWorkers(ctx, s)
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) {
					fmt.Fprintln(w, "WORKER\tDOES\tSTATE\tADDED\tLEGS\tCORES\tMEMORY\tADDRESS\tROOMS")
					for _, x := range l.Workers {
						state, added := "up", "-"
						if x.Added != nil {
							added = x.Added.Local().Format(time.DateOnly)
						}
						switch {
						case x.Revoked != nil:
							state = "revoked"
						case x.Twice:
							state = "on two machines"
						case x.Service == "conference" && x.Worker.Worker == l.Rooms:
							state = "has the rooms"
						case x.Service == "conference" && x.Here:
							state = "stands by"
						case x.Service == "conference":
							state = "not seen"
						case !x.Alive && x.Started == "":
							state = "not seen"
						case !x.Alive:
							state = "gone"
						case x.Other:
							state = "other version"
						case x.Drain:
							state = "drained"
						}
						legs, cores, memory := "-", "-", "-" // of one that is gone nothing is known
						if x.Alive {
							legs, cores, memory = fmt.Sprint(x.Legs), fmt.Sprintf("%.2f", x.CPU), fmt.Sprintf("%d MiB", x.RSS>>20)
							if x.MaxLegs > 0 {
								legs += fmt.Sprintf(" of %d", x.MaxLegs)
							}
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(x.Worker.Worker), cmp.Or(x.Service, "media"), state, added, legs, cores, memory, dash(printable(x.TrunkAddress)), dash(strings.Join(x.Rooms, " ")))
					}
				})
			})
		},
	}
}

// shownWorker is a worker as the node sees it, and since when it has credentials of its own.
type shownWorker struct {
	contract.Worker
	Added   *time.Time `json:"added,omitempty"` // nil: the node's own
	Service string     `json:"service,omitempty"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Here    bool       `json:"here,omitempty"`  // of one that stands by: it is there
	Twice   bool       `json:"twice,omitempty"` // two machines use its credentials
}

type shownWorkers struct {
	Workers []shownWorker `json:"workers"`
	Rooms   string        `json:"rooms,omitempty"` // who stood by and has the rooms now
}

// listWorkers are those that beat or did, and those that were added.
func listWorkers(ctx context.Context, s *session) (*shownWorkers, error) {
	seen, err := call(ctx, s, contract.WorkerList, &contract.None{})
	if err != nil {
		return nil, err
	}
	known, err := call(ctx, s, contract.BusWorkers, &contract.None{})
	if err != nil {
		return nil, err
	}
	out := &shownWorkers{Workers: []shownWorker{}, Rooms: seen.Rooms}
	for _, w := range seen.Workers {
		out.Workers = append(out.Workers, shownWorker{Worker: w})
	}
	for _, k := range known.Workers {
		i := slices.IndexFunc(out.Workers, func(w shownWorker) bool { return w.Worker.Worker == k.Name })
		if i < 0 {
			i = len(out.Workers)
			out.Workers = append(out.Workers, shownWorker{Worker: contract.Worker{WorkerBeat: contract.WorkerBeat{Worker: k.Name}, Rooms: []string{}}})
		}
		w := &out.Workers[i]
		w.Added, w.Revoked, w.Service, w.Here, w.Twice = &k.Added, k.Revoked, k.Service, k.Here, k.Twice
	}
	slices.SortFunc(out.Workers, func(a, b shownWorker) int { return strings.Compare(a.Worker.Worker, b.Worker.Worker) })
	return out, nil
}
