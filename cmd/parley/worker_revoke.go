package main

import (
	"context"
	"fmt"
	"io"

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
				k, err := call(ctx, s, contract.BusRevokeWorker, &contract.WorkerName{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(k, func(w io.Writer) { fmt.Fprintf(w, "worker %s is shut out\n", printable(k.Name)) })
			})
		},
	}
}
