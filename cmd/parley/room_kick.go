package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newRoomKick(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "kick ROOM PARTICIPANT", Short: "Put a participant out of a room",
		Long: "Put a participant out of a room. PARTICIPANT is an id, or a name that only one has.",
		Args: takes("ROOM", "PARTICIPANT"), ValidArgsFunction: completeRooms(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inRoom(cmd, args[0], func(ctx context.Context, s *session) error {
				who, err := participant(ctx, s, args[0], args[1])
				if err != nil {
					return err
				}
				if _, err := call(ctx, s, contract.RoomKick, &contract.Target{Participant: who.ID}, args[0], contract.Operator); err != nil {
					return err
				}
				return a.print(map[string]string{"kicked": who.ID}, func(w io.Writer) { fmt.Fprintf(w, "%s (%s) is out\n", printable(who.Name), who.ID) })
			})
		},
	}
}
