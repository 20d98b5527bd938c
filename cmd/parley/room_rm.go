package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newRoomRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm ROOM", Aliases: []string{"remove"}, Short: "End a room and forget it; its chat stays in Git",
		Args: takes("ROOM"), ValidArgsFunction: completeRooms(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inRoom(cmd, args[0], func(ctx context.Context, s *session) error {
				if _, err := call(ctx, s, contract.RoomRemoveCmd, &contract.RoomRef{Room: args[0]}); err != nil {
					return err
				}
				return a.print(map[string]string{"removed": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "room %s is gone\n", args[0]) })
			})
		},
	}
}
