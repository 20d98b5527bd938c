package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newDHTGet(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get KEY", Short: "Print the values of a key",
		Long: `Print the values that are found under a key: who signed each, whose signature was
checked, and the data, as text where it can be printed and else as hex. What is encrypted
to the account's device is decrypted. Certificates, announcements of devices,
revocation lists and requests of Jami get a line of what they say.

` + dhtKeyHelp + `

The exit code is 5 when there is nothing.`,
		Example: `  parley dht get greeting
  parley dht get 5f6a…       the devices that an account announces
  parley dht get greeting --json | jq -r '.values[].text'`,
		Args: takes("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				found, err := call(ctx, s, contract.DHTGetCmd, &contract.DHTKey{Key: args[0]})
				if err != nil {
					return err
				}
				if len(found.Values) == 0 {
					return contract.ErrNotFound.With("there is no value under %q", args[0])
				}
				r := &valueReader{s: s}
				list := struct {
					Values []*dhtValue `json:"values"`
				}{[]*dhtValue{}}
				for _, v := range found.Values {
					list.Values = append(list.Values, r.read(ctx, v))
				}
				return a.print(list, func(w io.Writer) {
					for i, v := range list.Values {
						if i > 0 {
							fmt.Fprintln(w)
						}
						v.show(w)
					}
				})
			})
		},
	}
	accountFlag(cmd, a)
	return cmd
}
