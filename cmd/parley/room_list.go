package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

func newRoomList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the rooms", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				rooms, err := bus.Rooms(ctx, s.Conn)
				if err != nil {
					return err
				}
				l := &contract.RoomList{Rooms: rooms}
				return a.print(l, func(w io.Writer) {
					fmt.Fprintln(w, "ROOM\tTITLE\tPARTICIPANTS\tPIN\tLOCKED\tACCOUNT")
					for _, r := range l.Rooms {
						acc := "main"
						if r.Account != "" {
							acc = r.Account
						}
						fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", r.Name, dash(printable(r.Title)), max(r.Total, len(r.Participants)), yes(r.HasPIN), yes(r.Locked), acc)
					}
				})
			})
		},
	}
}
