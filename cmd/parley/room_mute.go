package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newRoomMute(a *app, mute bool) *cobra.Command {
	verb, done, short := "mute", "muted", "Mute a participant, who then needs a moderator to speak again"
	if !mute {
		verb, done, short = "unmute", "unmuted", "Let a muted participant speak again"
	}
	long := short + ". PARTICIPANT is an id, or a name that only one has."
	if mute {
		long += `

It holds while the participant is in the room. Who comes anew, by reloading the page for
instance, is a new participant and is not muted. To prevent that, lock the room ("parley
room lock"), or let newcomers be listeners ("parley room create --role listener").`
	}
	return &cobra.Command{
		Use: verb + " ROOM PARTICIPANT", Short: short, Long: long,
		Args: takes("ROOM", "PARTICIPANT"), ValidArgsFunction: completeRooms(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inRoom(cmd, args[0], func(ctx context.Context, s *session) error {
				who, err := participant(ctx, s, args[0], args[1])
				if err != nil {
					return err
				}
				p, err := call(ctx, s, contract.RoomMute, &contract.MuteChange{Participant: who.ID, Muted: mute}, args[0], contract.Operator)
				if err != nil {
					return err
				}
				return a.print(p, func(w io.Writer) { fmt.Fprintf(w, "%s (%s) is %s\n", printable(p.Name), p.ID, done) })
			})
		},
	}
}
