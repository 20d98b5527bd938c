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

func newAccountContacts(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "contacts", Short: "List the account's contacts, blocked and removed ones too",
		Long: `List the account's contacts, blocked and removed ones too, and who of them is online; a dash
says that this is not known. With --follow, who is online now, who comes and goes, and
changes of contacts are printed as they come, with --json an object a line, until the
command is interrupted.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				if follow {
					return a.followContacts(ctx, s)
				}
				l, err := allContacts(ctx, s)
				if err != nil {
					return err
				}
				p, err := call(ctx, s, contract.PresenceList, &contract.None{})
				if err != nil { // the contacts are known all the same
					fmt.Fprintf(a.err, "who is online is not known: %v\n", err)
					p = new(contract.Presences)
				}
				return a.print(withPresence(l, p), func(w io.Writer) { showContacts(w, l.Contacts, p.Contacts...) })
			})
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "print who comes and goes, until interrupted")
	return cmd
}

// contactsSeen is the list with who is online, as --json prints it.
type contactsSeen struct {
	*contract.Contacts
	Presence []contract.Presence `json:"presence"` // of those of whom it is known
	Followed int                 `json:"followed"`
}

func withPresence(l *contract.Contacts, p *contract.Presences) contactsSeen {
	return contactsSeen{l, p.Contacts, p.Followed}
}

// followContacts prints who is online, and then what changes.
func (a *app) followContacts(ctx context.Context, s *session) error {
	f := newFollowed(ctx)
	defer f.stop()
	err := errors.Join(
		hear(f, s, contract.PresenceEvents, func(e *contract.PresenceChanged) *news { return &news{Presence: &e.Presence} }),
		hear(f, s, contract.ContactEvents, contactNews))
	if err != nil {
		return err
	}
	l, err := call(ctx, s, contract.PresenceList, &contract.None{})
	if err != nil {
		return err
	}
	for _, p := range l.Contacts {
		if err := a.line(news{Presence: &p}); err != nil {
			return err
		}
	}
	return f.print(a)
}

// allContacts reads the list page by page.
func allContacts(ctx context.Context, s *session) (*contract.Contacts, error) {
	all := new(contract.Contacts)
	for q := new(contract.ContactQuery); ; {
		page, err := call(ctx, s, contract.ContactList, q)
		if err != nil {
			return nil, err
		}
		all.Contacts = append(all.Contacts, page.Contacts...)
		all.Total, all.Revision = page.Total, page.Revision
		if q.After = page.Next; q.After == "" {
			return all, nil
		}
	}
}

// showContacts is a table of contacts; presence is what is known of who is online.
func showContacts(w io.Writer, cs []contract.Contact, presence ...contract.Presence) {
	if len(cs) == 0 {
		fmt.Fprintln(w, "no contacts")
		return
	}
	online := map[string]string{}
	for _, p := range presence {
		online[p.ID] = yes(p.Online)
	}
	fmt.Fprintln(w, "ID\tSTATE\tCONFIRMED\tONLINE\tADDED")
	for _, c := range cs {
		state, added := "removed", ""
		switch {
		case c.Active:
			state = "active"
		case c.Banned:
			state = "blocked"
		}
		if c.Added > 0 {
			added = time.Unix(c.Added, 0).UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.ID, state, yes(c.Confirmed), dash(online[c.ID]), dash(added))
	}
}

func newAccountContact(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "contact", Short: "Add, remove, block or unblock a contact"}
	group(cmd)
	for _, x := range []struct{ change, short string }{
		{"add", "Add a contact, a blocked one too, and ask it to be one"},
		{"remove", "Remove a contact"},
		{"block", "Remove an account from the contacts, if it is one, and block it"},
		{"unblock", "No longer block an account; it is no contact then"},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: x.change + " ID", Short: x.short, Args: takes("ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				id := jamiID(args[0])
				return a.inNode(cmd, func(ctx context.Context, s *session) error {
					ctx, cancel := context.WithTimeout(ctx, archiveTime)
					defer cancel()
					c, err := call(ctx, s, contract.ContactSetCmd, &contract.ContactChange{ID: id, Change: x.change})
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
