package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// createTime bounds the making of an account: three RSA-4096 keys, which take seconds on
// an idle machine.
const createTime = 3 * time.Minute

func newAccountList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the accounts of the node, the main one first", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, st, err := a.reach(cmd)
			if err != nil {
				return err
			}
			defer s.Close()
			list := struct {
				Accounts []contract.Account `json:"accounts"`
				Unusable []string           `json:"unusable,omitempty"`
			}{append([]contract.Account{}, st.Accounts...), st.Unusable}
			if err := damaged(st); err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Accounts) == 0 {
					fmt.Fprintln(w, st.Message)
					return
				}
				defer func() {
					for _, why := range st.Unusable {
						fmt.Fprintf(w, "\ncannot be used: %s\n", printable(why))
					}
				}()
				fmt.Fprintln(w, "ID\tALIAS\tRENDEZVOUS\tARCHIVE\tNOTE")
				for i, acc := range list.Accounts {
					note := acc.Note
					if i == 0 && note == "" {
						note = "main"
					} else if i == 0 {
						note = "main; " + note
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", acc.ID, dash(printable(acc.Alias)), yes(acc.Rendezvous), acc.Archive, dash(printable(note)))
				}
			})
		},
	}
}

// untilMade asks again for as long as keys are being made: one command may not take that
// long.
func untilMade[A any](ctx context.Context, fn func(context.Context) (*A, error)) (*A, error) {
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	for {
		one, stop := context.WithTimeout(ctx, archiveTime-bus.DefaultTimeout)
		made, err := fn(one)
		over := one.Err() != nil || errors.Is(err, contract.ErrTimeout) // what the node says of it, or the bus
		stop()
		if err == nil || ctx.Err() != nil || !over {
			return made, err
		}
	}
}

func newAccountRetire(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "retire ID", Short: "Take an account other than the main one out of use",
		Long: `Take an account other than the main one out of use. ID is its id or its name. Its directory
is moved aside, within DATA/identity, and not removed: export the archive before, or keep
the directory, if the account is to be used again.`,
		Args: takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.account = args[0]
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				gone, err := call(ctx, s, contract.AccountRetire, &contract.None{})
				if err != nil {
					return err
				}
				if rooms, err := bus.Rooms(ctx, s.Conn); err == nil { // else it is of no use to fail now
					for _, r := range rooms {
						if r.Account == gone.ID {
							fmt.Fprintf(a.err, "parley: the room %s was of this account; nobody can enter it any more (parley room rm %s)\n", r.Name, r.Name)
						}
					}
				}
				return a.print(gone, func(w io.Writer) { fmt.Fprintf(w, "account\t%s\nnow in\t%s\n", gone.ID, gone.Dir) })
			})
		},
	}
}
