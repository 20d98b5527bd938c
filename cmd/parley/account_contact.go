package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newAccountContacts(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "contacts", Short: "List the account's contacts, blocked and removed ones too", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := call(ctx, s, contract.ContactList, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) { showContacts(w, l.Contacts) })
			})
		},
	}
}

func showContacts(w io.Writer, cs []contract.Contact) {
	if len(cs) == 0 {
		fmt.Fprintln(w, "no contacts")
		return
	}
	fmt.Fprintln(w, "ID\tSTATE\tCONFIRMED\tADDED")
	for _, c := range cs {
		state, added := "removed", ""
		switch {
		case c.Active:
			state = "active"
		case c.Banned:
			state = "blocked"
		}
		if c.Added > 0 {
			added = time.Unix(c.Added, 0).UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.ID, state, yes(c.Confirmed), dash(added))
	}
}

func newAccountContact(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "contact", Short: "Add, remove, block or unblock a contact"}
	group(cmd)
	for _, x := range []struct{ change, short string }{
		{"add", "Add a contact, a blocked one too"},
		{"remove", "Remove a contact"},
		{"block", "Remove an account from the contacts, if it is one, and block it"},
		{"unblock", "No longer block an account; it is no contact then"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: x.change + " ID", Short: x.short, Args: takes("ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				id := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(args[0], "jami:"), "ring:"))
				return a.inNode(cmd, func(ctx context.Context, s *session) error {
					ctx, cancel := context.WithTimeout(ctx, archiveTime)
					defer cancel()
					c, err := call(ctx, s, contract.ContactSetCmd, &contract.ContactChange{ID: id, Change: x.change})
					if err != nil {
						return err
					}
					return a.print(c, func(w io.Writer) { showContacts(w, []contract.Contact{*c}) })
				})
			},
		})
	}
	return cmd
}
