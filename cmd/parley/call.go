package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// callWait is more than a call takes to be taken or given up; hangUpTime bounds giving it up.
const (
	callWait   = 2 * time.Minute
	hangUpTime = 5 * time.Second
)

func newCall(a *app) *cobra.Command {
	var room, name, hangUp string
	cmd := &cobra.Command{
		Use: "call TO --room ROOM", Short: "Call somebody into a room",
		Long: `Call somebody into a room. TO is a Jami Id, all of whose devices ring, or the sip: or sips:
URI of a phone whose host is in the setting sip.call_hosts. The command tells how it goes, with
--json an object a line, until the call is taken; interrupted, it gives the call up. The call
goes on when the command has ended: --hangup ends it, as "parley room kick" does.`,
		Example: `  parley call 3f1c0e0b7b2a4a1b9d0c6e0f8a7b6c5d4e3f2a1b --room standup
  parley call sip:bob@pbx.example.org --room standup --name Bob
  parley call --hangup jami-1f2e3d4c5b6a7988 --room standup`,
		Args: func(cmd *cobra.Command, args []string) error {
			if hangUp != "" {
				return takes()(cmd, args)
			}
			return takes("TO")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if room == "" {
				return usagef("say which room with --room")
			}
			return a.inRoom(cmd, room, func(ctx context.Context, s *session) error {
				if hangUp != "" {
					if _, err := call(ctx, s, contract.RoomHangUp, &contract.CallEnd{Call: hangUp}, room, contract.Operator); err != nil {
						return err
					}
					return a.print(map[string]string{"ended": hangUp}, func(w io.Writer) { fmt.Fprintf(w, "%s is over\n", hangUp) })
				}
				return a.placeCall(ctx, s, room, &contract.CallOut{To: args[0], Name: name})
			})
		},
	}
	cmd.Flags().StringVar(&room, "room", "", "the room")
	cmd.Flags().StringVar(&name, "name", "", "name of the participant (default: made of TO)")
	cmd.Flags().StringVar(&hangUp, "hangup", "", "end this call, which a call before has printed")
	return cmd
}

// placeCall calls and tells of it until the call is taken or over.
func (a *app) placeCall(ctx context.Context, s *session, room string, q *contract.CallOut) error {
	wait, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	came := make(chan *contract.CallProgress, newsAtOnce)
	sub, err := bus.Subscribe(s.Conn, contract.RoomCalling, func(_ context.Context, _ []string, p *contract.CallProgress) {
		select {
		case came <- p:
		case <-wait.Done():
		}
	}, room)
	if err != nil {
		return err
	}
	defer sub.Stop()
	placed, err := call(ctx, s, contract.RoomCall, q, room, contract.Operator)
	if err != nil {
		return err
	}
	for {
		select {
		case p := <-came:
			if p.Call != placed.Call {
				continue
			}
			if err := a.showCall(p); err != nil {
				return err
			}
			switch p.State {
			case contract.CallTaken, contract.CallEnded:
				return nil
			case contract.CallRefused:
				return contract.ErrDeclined.With("the call was declined: %d %s", p.Status, printable(p.Reason))
			case contract.CallFailed:
				return &contract.Error{Code: p.Code, Message: printable(p.Reason), Retry: p.Code == contract.ErrNoAnswer.Code || p.Code == contract.ErrUnreachable.Code}
			}
		case <-wait.Done():
			end, stop := context.WithTimeout(context.WithoutCancel(ctx), hangUpTime)
			defer stop()
			if _, err := call(end, s, contract.RoomHangUp, &contract.CallEnd{Call: placed.Call}, room, contract.Operator); err != nil && !errors.Is(err, contract.ErrNotFound) {
				return fmt.Errorf("giving the call up: %w", err)
			}
			return contract.ErrHungUp
		}
	}
}

func (a *app) showCall(p *contract.CallProgress) error {
	line := []byte(callText(p))
	if a.json {
		var err error
		if line, err = json.Marshal(p); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(a.out, "%s\n", line); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

func callText(p *contract.CallProgress) string {
	text := fmt.Sprintf("%-8s  %s", p.State, p.Call)
	if p.Device != "" {
		text += "  device " + p.Device
	}
	if p.Status != 0 {
		text += fmt.Sprintf("  %d", p.Status)
	}
	if p.Reason != "" && p.State != contract.CallRefused && p.State != contract.CallFailed { // those are the error
		text += "  " + printable(p.Reason)
	}
	return text
}
