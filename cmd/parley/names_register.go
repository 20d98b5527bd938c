package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
)

func newNamesRegister(a *app) *cobra.Command {
	var server, archive string
	cmd := &cobra.Command{
		Use: "register NAME", Short: "Register a name for an account of the node",
		Long: `Register a name for an account of the node, which then is found by it: 3 to 32 of a-z, 0-9,
- and _. A name can't be given back, and an account has one. The account's key signs it.

` + archivePasswordHelp,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := names.New(names.Options{Server: server})
			if err != nil {
				return namesExit(err)
			}
			defer c.Close()
			x, err := a.secretOf(archive, "")
			if err != nil {
				return err
			}
			x.Name = args[0]
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				if has := s.acc.Name; has != "" && !strings.EqualFold(has, x.Name) {
					return contract.ErrExists.With("this account has the name %s already; an account has one, for good", has)
				}
				claim, err := callSealed(ctx, s, contract.NameSign, x)
				if err != nil {
					return err
				}
				rec := names.Record{Name: claim.Name, Addr: jami.KeyID(claim.Key), Key: claim.Key, Signature: claim.Signature}
				if err := c.RegisterSigned(ctx, &rec, claim.Owner); err != nil {
					return namesExit(err)
				}
				acc, err := call(ctx, s, contract.AccountSet, &contract.AccountChange{Name: &claim.Name})
				if err != nil {
					return fmt.Errorf("the name is registered, and the node could not note it: %w", err)
				}
				return a.print(acc, func(w io.Writer) { showAccount(w, acc) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&server, "server", names.DefaultServer, "URL of the name server")
	f.StringVar(&archive, "archive-password-file", "", "the password of the account's archive")
	f.StringVar(&a.account, "account", "", "id or name of the account that is meant (default: the main one)")
	return cmd
}
