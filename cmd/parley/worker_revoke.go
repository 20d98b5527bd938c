package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newWorkerRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Take a media worker's credentials away, for good",
		Long: `Take a media worker's credentials away, for good. It is cut off at once: who is there goes to the
other workers, as when its machine is gone. "parley worker drain" has them go without a gap, before.`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				all, err := listWorkers(ctx, s)
				if err != nil {
					return err
				}
				var was shownWorker
				if i := slices.IndexFunc(all.Workers, func(w shownWorker) bool { return w.Worker.Worker == args[0] }); i >= 0 {
					was = all.Workers[i]
				}
				k, err := call(ctx, s, contract.BusRevokeWorker, &contract.WorkerName{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(k, func(w io.Writer) {
					switch name := printable(k.Name); {
					case was.Revoked != nil:
						fmt.Fprintf(w, "worker %s is shut out since %s\n", name, was.Revoked.Local().Format(time.DateTime))
					case was.Started == "" && k.Service != "conference":
						fmt.Fprintf(w, "worker %s is shut out; it has not been here since the node started\n", name)
					default:
						fmt.Fprintf(w, "worker %s is shut out\n", name)
					}
				})
			})
		},
	}
}
