package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newAccount(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "The account of the node"}
	group(cmd)
	cmd.AddCommand(newAccountShow(a), newAccountSet(a), newAccountExport(a), newAccountImport(a), newAccountPassword(a), newAccountBackup(a),
		newAccountDevices(a), newAccountDevice(a), newAccountContacts(a), newAccountContact(a))
	return cmd
}

func showAccount(w io.Writer, acc *contract.Account) {
	fmt.Fprintf(w, "account\t%s\nalias\t%s\ndevice\t%s\nrendezvous\t%s\narchive\t%s\n", acc.ID, dash(printable(acc.Alias)), acc.DeviceID, yes(acc.Rendezvous),
		map[string]string{"plain": "without a password", "password": "with a password", "locked": "with a password that the node does not have"}[acc.Archive])
}
