package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newRoomShow(a *app) *cobra.Command {
	var connections bool
	cmd := &cobra.Command{
		Use: "show ROOM", Short: "Show a room and who is in it",
		Long: `Show a room and who is in it. With --connections also how each participant is connected:
the pair of addresses that audio takes, with the types that ICE gives them (host, srflx, prflx,
relay), what encrypts it, loss, jitter and round trip, and what the signalling came over.`,
		Args: takes("ROOM"), ValidArgsFunction: completeRooms(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inRoom(cmd, args[0], func(ctx context.Context, s *session) error {
				r, err := getRoom(ctx, s, args[0])
				if err != nil {
					return err
				}
				links := a.roomLinks(ctx, s, r)
				var conns []contract.Connection
				if connections {
					if conns, err = getConnections(ctx, s, args[0]); err != nil {
						return err
					}
				}
				return a.print(struct {
					*contract.Room
					Links       contract.RoomLinks    `json:"links"`
					Connections []contract.Connection `json:"connections,omitzero"`
				}{r, links, conns}, func(w io.Writer) {
					fmt.Fprintf(w, "room\t%s\n", r.Name)
					fmt.Fprintf(w, "title\t%s\n", dash(printable(r.Title)))
					if r.Account != "" {
						fmt.Fprintf(w, "account\t%s\n", r.Account)
					}
					fmt.Fprintf(w, "PIN\t%s\n", yes(r.HasPIN))
					fmt.Fprintf(w, "locked\t%s\n", yes(r.Locked))
					fmt.Fprintf(w, "SIP digest\t%s\n", yes(r.SIPAuth))
					fmt.Fprintf(w, "who joins is\t%s\n", dash(string(r.DefaultRole)))
					if r.Max > 0 {
						fmt.Fprintf(w, "at most\t%d\n", r.Max)
					}
					fmt.Fprintf(w, "created\t%s\n", r.Created.Local().Format("2006-01-02 15:04:05"))
					showLinks(w, links)
					fmt.Fprintln(w)
					showParticipants(w, r.Participants, r.Total)
					showConnections(w, conns)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&connections, "connections", false, "how each participant is connected")
	return cmd
}
