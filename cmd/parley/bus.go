package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/natscreds"
)

func newBus(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "bus", Short: "The bus of the node"}
	group(cmd)
	cmd.AddCommand(newBusTrust(a))
	return cmd
}

func newBusTrust(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "trust", Short: "Print where the bus is and what verifies it", Args: takes(),
		Long: `Print where the bus is and what verifies it: what credentials of a bot say since they are made for a
bus that encrypts. For those that were made before, append it to their file.`,
		Example: `  parley bus trust >> echo.creds`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				t, err := call(ctx, s, contract.BusTrust, &contract.None{})
				if err != nil {
					return err
				}
				if a.json {
					return a.print(t, nil)
				}
				text, err := natscreds.Trust(*t)
				if err == nil {
					_, err = a.out.Write(text)
				}
				return err
			})
		},
	}
}
