package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newWorker(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "worker", Short: "The media processes that mix, here and on other machines"}
	group(cmd)
	cmd.AddCommand(newWorkerList(a))
	return cmd
}

func newWorkerList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the media workers", Args: takes(),
		Long: `List the media workers: this node's own and those of "parley join". One that does not beat
any more is shown as gone until the node starts again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := call(ctx, s, contract.WorkerList, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) {
					fmt.Fprintln(w, "WORKER\tSTATE\tLEGS\tCORES\tMEMORY\tADDRESS\tROOMS")
					for _, x := range l.Workers {
						state := "up"
						if !x.Alive {
							state = "gone"
						}
						legs := fmt.Sprint(x.Legs)
						if x.MaxLegs > 0 {
							legs += fmt.Sprintf(" of %d", x.MaxLegs)
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%d MiB\t%s\t%s\n", printable(x.Worker), state, legs, x.CPU, x.RSS>>20, dash(printable(x.TrunkAddress)), dash(strings.Join(x.Rooms, " ")))
					}
				})
			})
		},
	}
}
