package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newRoomLock(a *app, lock bool) *cobra.Command {
	verb, done, short := "lock", "locked", "Let nobody else in"
	if !lock {
		verb, done, short = "unlock", "open", "Let people in again"
	}
	return &cobra.Command{
		Use: verb + " ROOM", Short: short, Args: takes("ROOM"), ValidArgsFunction: completeRooms(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inRoom(cmd, args[0], func(ctx context.Context, s *session) error {
				st, err := call(ctx, s, contract.RoomLock, &contract.LockChange{Locked: lock}, args[0], contract.Operator)
				if err != nil {
					return err
				}
				return a.print(st, func(w io.Writer) { fmt.Fprintf(w, "room %s is %s\n", args[0], done) })
			})
		},
	}
}
