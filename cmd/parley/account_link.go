package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

func newAccountLink(a *app) *cobra.Command {
	var with, archive string
	cmd := &cobra.Command{
		Use: "link", Short: "Show a PIN with which another device joins the account",
		Long: `Show a PIN with which another device joins the account: in Jami "Link this device to an
account", on another node "parley account join PIN". The archive is put into the overlay,
encrypted with the PIN and the archive's password; whoever knows both within ten minutes is
the account. Where the archive has no password, give one for this with --password-file: a PIN
alone can be guessed by who watches the overlay.

` + archivePasswordHelp,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			x, err := a.secretOf(archive, with)
			if err != nil {
				return err
			}
			if x.Reply, err = newReplyKey(); err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				got, err := callSealed(ctx, s, contract.DeviceLink, x)
				if err != nil {
					return err
				}
				pin, err := jami.Open(x.Reply, got.Cipher)
				if err != nil {
					return fmt.Errorf("the node's answer: %w", err)
				}
				if s.acc.Archive == "plain" && len(x.New) == 0 {
					fmt.Fprintln(a.err, "parley: without a password the PIN alone opens the account for ten minutes; --password-file adds one")
				}
				return a.print(map[string]string{"account": s.acc.ID, "pin": string(pin)}, func(w io.Writer) {
					fmt.Fprintf(w, "account\t%s\nPIN\t%s\n", s.acc.ID, pin)
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&with, "password-file", "", "the other device has to be given the password on the first line of this file (- for standard input)")
	f.StringVar(&archive, "archive-password-file", "", "the password of the node's archive")
	return cmd
}

func newAccountJoin(a *app) *cobra.Command {
	var password, pinFile string
	cmd := &cobra.Command{
		Use: "join PIN", Short: "Become a device of the account that another device shows a PIN for",
		Long: `Become a device of the account that another device shows a PIN for, within ten minutes and
in the same overlay. The account comes beside those that the node has; a node that is to have
that account alone is started with --identity.create=false. The PIN may be read from a file
instead (--pin-file), so that other users of the machine don't see it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (pinFile != "") {
				return usagef("give the PIN, or a file with it by --pin-file")
			}
			if pinFile == "-" && password == "-" {
				return usagef("only one of PIN and password can come from standard input")
			}
			x := contract.Secret{}
			if len(args) == 1 {
				x.PIN = args[0]
			} else {
				pin, err := a.readPassword(pinFile, "PIN")
				if err != nil {
					return err
				}
				x.PIN = string(pin)
			}
			if _, err := jami.ParsePIN(x.PIN); err != nil {
				return usagef("%w", err)
			}
			var err error
			if x.Password, err = a.readPassword(password, "password of the archive"); err != nil {
				return err
			}
			return a.addSealed(cmd, contract.AccountJoin, x)
		},
	}
	f := cmd.Flags()
	f.StringVar(&password, "password-file", "", "the account's password is the first line of this file (- for standard input)")
	f.StringVar(&pinFile, "pin-file", "", "the PIN is the first line of this file (- for standard input)")
	return cmd
}

func newAccountEnrol(a *app) *cobra.Command {
	var x contract.Secret
	var password, roots string
	cmd := &cobra.Command{
		Use: "enrol SERVER", Short: "Become a device of a user's account at an account server (JAMS)",
		Long: `Become a device of a user's account at the account server of an organisation (JAMS). The
server keeps the account's key and list of contacts, and may end the account or the device.
The account comes beside those that the node has; a node that is to have that account alone
is started with --identity.create=false.`,
		Args: takes("SERVER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if x.User == "" || password == "" {
				return usagef("give --user and --password-file")
			}
			var err error
			if x.Password, err = a.readPassword(password, "password of "+x.User); err != nil {
				return err
			}
			if roots != "" {
				text, err := readSmall(roots)
				if err != nil {
					return err
				}
				if x.Roots = certificatesOf(text); x.Roots == "" {
					return usagef("there is no PEM certificate in %s", roots)
				}
			}
			x.Server = args[0]
			return a.addSealed(cmd, contract.AccountEnrol, x)
		},
	}
	f := cmd.Flags()
	f.StringVar(&x.User, "user", "", "name of the user")
	f.StringVar(&password, "password-file", "", "the user's password is the first line of this file (- for standard input)")
	f.StringVar(&roots, "server-ca", "", "PEM file of who certifies the server; without it the system's authorities do")
	return cmd
}

// certificatesOf is the certificates of a PEM text: a key may stand beside them.
func certificatesOf(text []byte) string {
	var out strings.Builder
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "CERTIFICATE" {
			pem.Encode(&out, b) // a Builder takes all
		}
	}
	return out.String()
}

// addSealed has the node take an account in.
func (a *app) addSealed(cmd *cobra.Command, command contract.Command[contract.Sealed, contract.Account], x contract.Secret) error {
	s, _, err := a.reach(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	acc, err := callSealed(cmd.Context(), s, command, x)
	if err != nil {
		return err
	}
	return a.print(acc, func(w io.Writer) { showAccount(w, acc) })
}
