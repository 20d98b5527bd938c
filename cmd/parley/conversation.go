package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newConversation(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "conversation", Short: "The account's conversations with people with Jami",
		Long: `The account's conversations with people with Jami. Who is accepted as a contact brings one along
("parley account requests"); into one of several the account is invited. "parley message send" and
"parley file send" write into the conversation with a contact.`,
	}
	group(cmd)
	cmd.PersistentFlags().StringVar(&a.account, "account", "", "id or name of the account that is meant (default: the main one)")
	cmd.AddCommand(newConversationList(a), newConversationRead(a), newConversationAnswer(a, "accept", "Join a conversation to which the account was invited"),
		newConversationAnswer(a, "refuse", "Refuse an invitation to a conversation; who invited is not told"))
	return cmd
}

func newConversationList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List conversations, and invitations to some",
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := call(ctx, s, contract.ConversationList, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) {
					if len(l.Conversations) == 0 {
						fmt.Fprintln(w, "no conversations")
					}
					for i := range l.Conversations {
						fmt.Fprintln(w, conversationText(&l.Conversations[i]))
					}
				})
			})
		},
	}
}

func conversationText(c *contract.MemberConversation) string {
	s := fmt.Sprintf("%-8s  %s", c.State, c.ID)
	switch {
	case c.State == contract.ConversationInvited:
		s += fmt.Sprintf("  %s, invited by %s", dash(printable(c.Title)), c.From)
	case c.With != "":
		s += "  with " + c.With
	}
	if len(c.Members) > 0 {
		var all []string
		for _, m := range c.Members {
			all = append(all, m.ID+" ("+m.Role+")")
		}
		s += fmt.Sprintf("  %d commits  %s", c.Commits, strings.Join(all, ", "))
	}
	if c.Why != "" {
		s += "  " + printable(c.Why)
	}
	return s
}

func newConversationRead(a *app) *cobra.Command {
	var limit int
	var before string
	cmd := &cobra.Command{
		Use: "read CONVERSATION", Short: "Print the last of what was written in a conversation",
		Args: takes("CONVERSATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				p, err := call(ctx, s, contract.ConversationRead, &contract.ConversationQuery{ID: args[0], Limit: limit, Before: before})
				if err != nil {
					return err
				}
				return a.print(p, func(w io.Writer) {
					for _, x := range slices.Backward(p.Posts) {
						body := x.Body
						if x.File != nil {
							body = fileLink(x.From, x.File)
						}
						fmt.Fprintf(w, "%s  %s  %s  %s\n", x.Time.Local().Format(time.DateTime), x.From, x.Type, printable(body))
					}
				})
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "how many, at most 100")
	cmd.Flags().StringVar(&before, "before", "", "commit before which they are")
	return cmd
}

func newConversationAnswer(a *app, answer, short string) *cobra.Command {
	return &cobra.Command{
		Use: answer + " CONVERSATION", Short: short,
		Args: takes("CONVERSATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				q := &contract.ConversationAnswer{ID: args[0], Answer: answer}
				if _, err := call(ctx, s, contract.ConversationAnswered, q); err != nil {
					return err
				}
				return a.print(q, func(w io.Writer) { fmt.Fprintln(w, "answered") })
			})
		},
	}
}
