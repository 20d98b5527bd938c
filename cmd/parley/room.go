package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

func newRoom(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "room", Short: "Rooms and who is in them"}
	group(cmd)
	cmd.AddCommand(newRoomList(a), newRoomCreate(a), newRoomShow(a), newRoomRemove(a), newRoomParticipants(a),
		newRoomMute(a, true), newRoomMute(a, false), newRoomKick(a), newRoomLock(a, true), newRoomLock(a, false))
	return cmd
}

// word checks what becomes a token of a subject; a dot or a star there would
// name something else.
func word(what, s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if s == "" || len(s) > 64 || strings.Trim(s, allowed) != "" {
		return usagef("%s %q: 1 to 64 of a-z, 0-9 and -", what, s)
	}
	return nil
}

// getRoom returns the room as it is now.
func getRoom(ctx context.Context, s *session, name string) (*contract.Room, error) {
	j, err := call(ctx, s, contract.RoomGet, &contract.None{}, name, contract.Operator)
	if err != nil {
		return nil, err
	}
	if j.Room.Participants == nil {
		j.Room.Participants = []contract.Participant{}
	}
	return &j.Room, nil
}

// inRoom opens a session for a command about an existing room.
func (a *app) inRoom(cmd *cobra.Command, room string, fn func(ctx context.Context, s *session) error) error {
	if err := word("room", room); err != nil {
		return err
	}
	return a.inNode(cmd, fn)
}

// inNode opens a session and closes it after fn.
func (a *app) inNode(cmd *cobra.Command, fn func(ctx context.Context, s *session) error) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(cmd.Context(), s)
}

// participant finds one by id or, where only one has it, by name.
func participant(ctx context.Context, s *session, room, who string) (*contract.Participant, error) {
	r, err := getRoom(ctx, s, room)
	if err != nil {
		return nil, err
	}
	var named []*contract.Participant
	for i := range r.Participants {
		p := &r.Participants[i]
		if p.ID == who {
			return p, nil
		}
		if strings.EqualFold(p.Name, who) {
			named = append(named, p)
		}
	}
	switch len(named) {
	case 0:
		if r.Total > len(r.Participants) { // not all are listed; conference knows
			return &contract.Participant{ID: who, Name: who}, nil
		}
		return nil, contract.ErrNotFound.With("nobody in %s has the id or the name %q; `parley room participants %s` lists them", room, who, room)
	case 1:
		return named[0], nil
	}
	ids := make([]string, len(named))
	for i, p := range named {
		ids[i] = p.ID
	}
	return nil, usagef("%d participants of %s are called %q; say which by id: %s", len(named), room, who, strings.Join(ids, ", "))
}

// completeRooms completes the first argument by the names of rooms.
func completeRooms(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			err := a.inNode(cmd, func(ctx context.Context, s *session) error {
				rooms, err := bus.Rooms(ctx, s.Conn)
				if err != nil {
					return err
				}
				for _, r := range rooms {
					names = append(names, r.Name)
				}
				return nil
			})
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// showParticipants prints one line for each. A large room lists only some of
// the total.
func showParticipants(w io.Writer, ps []contract.Participant, total int) {
	if total > len(ps) {
		defer fmt.Fprintf(w, "and %d more\n", total-len(ps))
	}
	if len(ps) == 0 {
		fmt.Fprintln(w, "nobody is here")
		return
	}
	fmt.Fprintln(w, "ID\tNAME\tKIND\tROLE\tAUDIO\tTRANSPORT\tCODEC")
	for _, p := range ps {
		var audio []string
		if !p.Connected {
			audio = append(audio, "connecting")
		}
		if p.Muted {
			audio = append(audio, "muted")
		}
		if p.Speaking {
			audio = append(audio, "speaking")
		}
		if p.Hand != nil {
			audio = append(audio, "hand")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, printable(p.Name), p.Kind, p.Role, dash(strings.Join(audio, ",")), dash(p.Transport), dash(p.Codec))
	}
}

// printable replaces what could steer a terminal: names come from strangers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '�'
		}
		return r
	}, s)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
