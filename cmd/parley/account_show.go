package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

func newAccountShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the account's id and settings", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(_ context.Context, s *session) error {
				return a.print(s.acc, func(w io.Writer) { showAccount(w, &s.acc) })
			})
		},
	}
}
