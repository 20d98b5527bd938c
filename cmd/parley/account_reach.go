package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

// reachTime bounds the trial, which ends by itself before.
const reachTime = 28 * time.Second

func newAccountReach(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "reach ID", Short: "Try whether the devices of an account can be called",
		Long: `Connect to each device that an account announces, as a call would, and say what
came of it. Nobody is rung.`,
		Args: takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				ctx, cancel := context.WithTimeout(ctx, reachTime)
				defer cancel()
				l, err := call(ctx, s, contract.PeerReach, &contract.PeerAccount{ID: args[0]})
				if err != nil {
					return err
				}
				if err := a.print(l, func(w io.Writer) { showReached(w, l) }); err != nil {
					return err
				}
				return reached(l)
			})
		},
	}
}

// reached is the error where no device was.
func reached(l *contract.PeerReaches) error {
	switch {
	case slices.ContainsFunc(l.Devices, func(d contract.PeerReached) bool { return d.Connected }):
		return nil
	case len(l.Devices) == 0 && l.Missing == 0:
		return &codedError{exitNotFound, errors.New("no device of the account is announced: it is off, or in another network (setting dht.overlay)")}
	}
	return &codedError{exitUnavailable, errors.New("no device was reached: look at jami.listen, which has to be open to them over TCP (to other nodes over UDP as well), and at jami.public behind a NAT; loopback addresses are not offered")}
}

func showReached(w io.Writer, l *contract.PeerReaches) {
	if len(l.Devices) > 0 {
		fmt.Fprintln(w, "DEVICE\tREACHED\tTOOK\tADDRESS\tBY\tERROR")
	}
	for _, d := range l.Devices {
		fmt.Fprintf(w, "%s\t%v\t%v\t%s\t%s\t%s\n", d.Device, d.Connected, time.Duration(d.TookMs)*time.Millisecond, cmp.Or(d.Address, "-"), cmp.Or(words(d.Over, d.TLS, d.Suite), "-"), d.Error)
	}
	if l.Missing > 0 {
		fmt.Fprintf(w, "%d announced without certificates\n", l.Missing)
	}
}
