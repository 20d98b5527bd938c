package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/names"
)

// namesFound is what is printed of a name.
type namesFound struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Verified bool   `json:"verified"` // the account's signature came with it and is right
}

func newNamesLookup(a *app) *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use: "lookup NAME|ID", Short: "Show whose name it is, or which name an account has",
		Long: `Show whose name it is, or which name an account has. NAME@HOST asks the server
HOST. No node has to run.`,
		Args: takes("NAME|ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := names.New(names.Options{Server: server})
			if err != nil {
				return namesExit(err)
			}
			defer c.Close()
			r, err := lookUp(cmd.Context(), c, args[0])
			if err != nil {
				return namesExit(err)
			}
			f := namesFound{Name: r.Name, ID: r.Addr.String(), Verified: r.Verified()}
			return a.print(f, func(w io.Writer) {
				fmt.Fprintf(w, "name\t%s\nid\t%s\n", f.Name, f.ID)
				if !f.Verified {
					fmt.Fprintf(w, "\tthe server showed no signature of the account\n")
				}
			})
		},
	}
	cmd.Flags().StringVar(&server, "server", names.DefaultServer, "URL of the name server")
	return cmd
}

// lookUp takes what is an id for one: no name is as long.
func lookUp(ctx context.Context, c *names.Client, what string) (names.Record, error) {
	if id, err := names.ParseAddr(what); err == nil {
		return c.Reverse(ctx, id)
	}
	return c.Lookup(ctx, what)
}
