package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newAccountRequests(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "requests", Short: "List who asks to be a contact of the account",
		Long: `List who asks to be a contact of the account, the latest first. The name is what the
other side says of itself; who it is tells the id alone. With --follow, requests and
changes of contacts are printed as they come, with --json an object a line, until the
command is interrupted.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				if follow {
					return a.followRequests(ctx, s)
				}
				l, err := call(ctx, s, contract.RequestList, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) { showRequests(w, l.Requests) })
			})
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "print what comes, until interrupted")
	return cmd
}

func showRequests(w io.Writer, rs []contract.ContactRequest) {
	if len(rs) == 0 {
		fmt.Fprintln(w, "no requests")
		return
	}
	fmt.Fprintln(w, "ID\tNAME\tRECEIVED")
	for _, r := range rs {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.ID, dash(printable(r.Name)), time.Unix(r.Received, 0).UTC().Format(time.DateTime))
	}
}

// followRequests prints what waits and then what comes.
func (a *app) followRequests(ctx context.Context, s *session) error {
	f := newFollowed(ctx)
	defer f.stop()
	err := errors.Join(
		hear(f, s, contract.RequestEvents, func(r *contract.ContactRequest) *news { return &news{Request: r} }),
		hear(f, s, contract.ContactEvents, contactNews))
	if err != nil {
		return err
	}
	l, err := call(ctx, s, contract.RequestList, &contract.None{})
	if err != nil {
		return err
	}
	for _, r := range l.Requests {
		if err := a.line(news{Request: &r}); err != nil {
			return err
		}
	}
	return f.print(a)
}

func newAccountRequest(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "request", Short: "Accept or refuse who asks to be a contact, or block them"}
	group(cmd)
	for _, x := range []struct{ answer, short string }{
		{"accept", "Make who asks a contact, and tell them"},
		{"refuse", "Take who asks for no contact; they are not told, and may ask again"},
		{"block", "Refuse who asks, for as long as they are not unblocked"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: x.answer + " ID", Short: x.short, Args: takes("ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				id := jamiID(args[0])
				return a.inNode(cmd, func(ctx context.Context, s *session) error {
					ctx, cancel := context.WithTimeout(ctx, archiveTime)
					defer cancel()
					c, err := call(ctx, s, contract.RequestAnswerCmd, &contract.RequestAnswer{ID: id, Answer: x.answer})
					if err != nil {
						return err
					}
					return a.print(c, func(w io.Writer) { showContacts(w, []contract.Contact{*c}) })
				})
			},
		})
	}
	return cmd
}
