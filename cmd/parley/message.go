package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

// messageWait is how long send waits for what becomes of a message.
const messageWait = 20 * time.Second

func newMessage(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "message", Short: "Write to people, and read what they write to the account"}
	group(cmd)
	cmd.PersistentFlags().StringVar(&a.account, "account", "", "id or name of the account that is meant (default: the main one)")
	cmd.AddCommand(newMessageSend(a), newMessageFollow(a))
	return cmd
}

func newMessageSend(a *app) *cobra.Command {
	var typ string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "send ID TEXT", Short: "Write to all devices of an account",
		Long: `Write to all devices of an account. TEXT is one argument, or - for standard input. The
command waits until a device has confirmed the message, and at most --wait; who has no
device online gets it when one appears within ten minutes.`,
		Args: takes("ID", "TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := args[1]
			if body == "-" {
				b, err := io.ReadAll(io.LimitReader(a.in, contract.MaxMessage+1))
				if err != nil {
					return fmt.Errorf("standard input: %w", err)
				}
				body = strings.TrimSuffix(string(b), "\n")
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				st, err := sendMessage(ctx, s, &contract.MessageSend{To: jamiID(args[0]), Type: typ, Body: body}, wait)
				if err != nil {
					return err
				}
				return a.print(st, func(w io.Writer) { fmt.Fprintln(w, stateText(st)) })
			})
		},
	}
	cmd.Flags().StringVar(&typ, "type", "text/plain", "MIME type: a kind of text")
	cmd.Flags().DurationVar(&wait, "wait", messageWait, "how long to wait until it is confirmed")
	return cmd
}

// sendMessage sends and returns the last that is heard of it within a time.
func sendMessage(ctx context.Context, s *session, m *contract.MessageSend, wait time.Duration) (*contract.MessageState, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	f := newFollowed(ctx)
	defer f.stop()
	if err := hear(f, s, contract.MessageStates, func(st *contract.MessageState) *news { return &news{State: st} }); err != nil {
		return nil, err
	}
	q, err := call(ctx, s, contract.MessageSendCmd, m)
	if err != nil {
		return nil, err
	}
	var last *contract.MessageState
	for {
		select {
		case n := <-f.came:
			if n.State.ID != q.ID {
				continue
			}
			switch last = n.State; last.State {
			case contract.MessageFailed:
				return nil, errors.New("the message is given up: " + last.Why)
			case contract.MessageDelivered:
				return last, nil
			}
		case <-ctx.Done():
			if last == nil {
				return nil, contract.ErrTimeout.With("no device of %s is online: it is off, or in another network (setting dht.overlay); the node goes on trying for ten minutes", m.To)
			}
			return last, nil
		}
	}
}

func stateText(st *contract.MessageState) string {
	switch st.State {
	case contract.MessageSent:
		return fmt.Sprintf("sent      %s  to %s, %d devices", st.ID, st.To, st.Devices)
	case contract.MessageFailed:
		return fmt.Sprintf("failed    %s  to %s: %s", st.ID, st.To, st.Why)
	}
	return fmt.Sprintf("%-9s %s  to %s, device %s", st.State, st.ID, st.To, st.Device)
}

func newMessageFollow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "follow", Short: "Print what is written to the account, and what became of what it wrote",
		Long: `Print what is written to the account, and what became of what it wrote, until the command is
interrupted; with --json an object a line. What came before is not shown. Who wrote is known
by the id; the rest is the sender's own word.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				f := newFollowed(ctx)
				defer f.stop()
				err := errors.Join(
					hear(f, s, contract.MessageEvents, func(m *contract.Message) *news { return &news{Message: m} }),
					hear(f, s, contract.MessageStates, func(st *contract.MessageState) *news { return &news{State: st} }))
				if err != nil {
					return err
				}
				return f.print(a)
			})
		},
	}
}
