package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/qr"
)

func newAccountShow(a *app) *cobra.Command {
	var certificates, code bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show the account's id and settings", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				if code && !a.json {
					text, err := qr.Terminal("jami:" + s.acc.ID)
					if err != nil {
						return err
					}
					if _, err := io.WriteString(a.out, text); err != nil {
						return err
					}
				}
				if !certificates {
					return a.print(s.acc, func(w io.Writer) { showAccount(w, &s.acc) })
				}
				c, err := call(ctx, s, contract.IdentityCerts, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(c, func(w io.Writer) { io.WriteString(w, c.DevicePEM+c.AccountPEM) })
			})
		},
	}
	cmd.Flags().BoolVar(&code, "qr", false, "show the Jami Id as a QR code too, as apps read it")
	cmd.Flags().BoolVar(&certificates, "certificates", false, "print the PEM chain instead: device, account, authority")
	return cmd
}
