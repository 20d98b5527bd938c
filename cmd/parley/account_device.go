package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newAccountDevices(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "devices", Short: "List the account's devices that the node knows", Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := call(ctx, s, contract.DeviceList, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) {
					fmt.Fprintln(w, "ID\tSHORT ID\tNAME\tCREATED\tSEEN\tSTATE")
					for _, d := range l.Devices {
						var state []string
						if d.This {
							state = append(state, "this one")
						}
						if d.Revoked {
							state = append(state, "revoked")
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Short, dash(printable(d.Name)), d.Created.Format(time.DateOnly),
							day(d.Seen), dash(strings.Join(state, ", ")))
					}
				})
			})
		},
	}
}

func newAccountDevice(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Rename the node's device, revoke another one"}
	group(cmd)
	cmd.AddCommand(newDeviceRename(a), newDeviceRevoke(a))
	return cmd
}

func newDeviceRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rename NAME", Short: "Give the node's device a name", Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				d, err := call(ctx, s, contract.DeviceRename, &contract.DeviceName{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { fmt.Fprintf(w, "device\t%s\nname\t%s\n", d.ID, printable(d.Name)) })
			})
		},
	}
}

func newDeviceRevoke(a *app) *cobra.Command {
	var archive, certificate string
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "Revoke another device of the account, for ever",
		Long: `Revoke another device of the account, for ever. ID is its long or its short id. The
revocation goes into the account's archive and to all who keep the account's values; who
has it refuses the device. A device that the node has not heard of needs --certificate: a
PEM file, such as "parley account show --certificates" prints there.

` + archivePasswordHelp,
		Args: takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := a.secretOf(archive, "")
			if err != nil {
				return err
			}
			x.Device = args[0]
			if certificate != "" {
				b, err := os.ReadFile(certificate)
				if err != nil {
					return fmt.Errorf("certificate: %w", err)
				}
				x.Certificate = string(b)
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				d, err := callSealed(ctx, s, contract.DeviceRevoke, x)
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) {
					fmt.Fprintf(w, "revoked\t%s\ntold peers\t%d\n", d.ID, d.Peers)
				})
			})
		},
	}
	cmd.Flags().StringVar(&archive, "archive-password-file", "", "the password of the node's archive")
	cmd.Flags().StringVar(&certificate, "certificate", "", "PEM file with the device's certificate")
	return cmd
}

// day is the date of a time that may not be known.
func day(t time.Time) string {
	if t.Unix() <= 0 {
		return "-"
	}
	return t.Format(time.DateOnly)
}
