package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newBotRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Take a bot's credentials away; it is disconnected at once",
		Args: takes("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				b, err := call(ctx, s, contract.BotRevoke, &contract.BotName{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(b, func(w io.Writer) { fmt.Fprintf(w, "bot %s is shut out\n", b.Name) })
			})
		},
	}
}
