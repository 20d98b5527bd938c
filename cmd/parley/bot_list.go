package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newBotList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the bots", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := call(ctx, s, contract.BotListCmd, &contract.None{})
				if err != nil {
					return err
				}
				if l.Bots == nil {
					l.Bots = []contract.Bot{}
				}
				return a.print(l, func(w io.Writer) {
					fmt.Fprintln(w, "BOT\tROOM\tALLOWED\tCREATED\tREVOKED")
					for _, b := range l.Bots {
						revoked := "-"
						if b.Revoked != nil {
							revoked = b.Revoked.Local().Format("2006-01-02 15:04")
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", b.Name, b.Room, dash(joinRights(b.Rights)), b.Created.Local().Format("2006-01-02 15:04"), revoked)
					}
				})
			})
		},
	}
}
