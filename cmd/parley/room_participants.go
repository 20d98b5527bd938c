package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

func newRoomParticipants(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "participants ROOM", Short: "List who is in a room", Args: takes("ROOM"), ValidArgsFunction: completeRooms(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inRoom(cmd, args[0], func(ctx context.Context, s *session) error {
				r, err := getRoom(ctx, s, args[0])
				if err != nil {
					return err
				}
				answer := map[string]any{"participants": r.Participants, "total": max(r.Total, len(r.Participants))}
				return a.print(answer, func(w io.Writer) { showParticipants(w, r.Participants, r.Total) })
			})
		},
	}
}
