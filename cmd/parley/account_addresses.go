package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

// addressWait is how long account addresses waits for answers: an overlay that is asked again and again finds
// the question within 10 s, and the answer within as many.
const addressWait = 25 * time.Second

func newAccountAddresses(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "addresses ID", Short: "Exchange public addresses with the devices of a contact",
		Long: `Ask the devices of a contact under which IP addresses others see them, and tell them this
node's. All is encrypted; devices of stock Jami don't answer. The command waits until all
have answered, and at most ` + addressWait.String() + `.`,
		Args: takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				got, err := askAddresses(ctx, s, jamiID(args[0]))
				if err != nil {
					return err
				}
				return a.print(map[string]any{"devices": got}, func(w io.Writer) {
					fmt.Fprintln(w, "DEVICE\tADDRESSES")
					for _, d := range got {
						fmt.Fprintf(w, "%s\t%s\n", d.Device, dash(strings.Join(d.Addresses, " ")))
					}
				})
			})
		},
	}
}

// askAddresses returns what the devices answered; who answered nothing in time is not
// among them.
func askAddresses(ctx context.Context, s *session, id string) ([]*contract.PeerAddresses, error) {
	ctx, cancel := context.WithTimeout(ctx, addressWait)
	defer cancel()
	f := newFollowed(ctx)
	defer f.stop()
	if err := hear(f, s, contract.AddressEvents, func(e *contract.PeerAddresses) *news { return &news{Addresses: e} }); err != nil {
		return nil, err
	}
	asked, err := call(ctx, s, contract.AddressAskCmd, &contract.AddressAsk{To: id})
	if err != nil {
		return nil, err
	}
	var got []*contract.PeerAddresses
	for len(got) < asked.Devices {
		select {
		case n := <-f.came:
			if n.Addresses.From == id && n.Addresses.Answer {
				got = append(got, n.Addresses)
			}
		case <-ctx.Done():
			if len(got) == 0 {
				return nil, contract.ErrTimeout.With("none of %d devices of %s answered; devices of stock Jami do not", asked.Devices, id)
			}
			return got, nil
		}
	}
	return got, nil
}
