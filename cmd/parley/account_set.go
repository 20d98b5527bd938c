package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newAccountSet(a *app) *cobra.Command {
	var alias string
	var rendezvous bool
	cmd := &cobra.Command{
		Use: "set", Short: "Change the account's settings", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var q contract.AccountChange
			if cmd.Flags().Changed("alias") {
				q.Alias = &alias
			}
			if cmd.Flags().Changed("rendezvous") {
				q.Rendezvous = &rendezvous
			}
			if q == (contract.AccountChange{}) {
				return usagef("nothing to set: give --alias or --rendezvous")
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				acc, err := call(ctx, s, contract.AccountSet, &q)
				if err != nil {
					return err
				}
				return a.print(acc, func(w io.Writer) { showAccount(w, acc) })
			})
		},
	}
	cmd.Flags().StringVar(&alias, "alias", "", "display name of the account")
	cmd.Flags().BoolVar(&rendezvous, "rendezvous", false, "may anyone call a room at any time: true or false")
	return cmd
}
