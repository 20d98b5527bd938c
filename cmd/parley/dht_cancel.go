package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newDHTCancel(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel KEY ID", Short: "Stop putting a value",
		Long: `Stop putting a value of this node. One that the node's key signed is taken back at once;
others (--sign, --encrypt-to, certificates) end with their lifetime where they are.`,
		Example: `  parley dht cancel greeting 7355608`,
		Args:    takes("KEY", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil || id == 0 {
				return usagef("%q is no id of a value: a number, as put and get print it", args[1])
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				if _, err := call(ctx, s, contract.DHTCancelCmd, &contract.DHTCancel{Key: args[0], ID: id}); err != nil {
					return err
				}
				return a.print(map[string]string{"cancelled": args[1]}, func(w io.Writer) {
					fmt.Fprintf(w, "value %s is no longer put; unless the node's key alone signed it, what others have of it ends with its lifetime\n", args[1])
				})
			})
		},
	}
	accountFlag(cmd, a)
	return cmd
}
