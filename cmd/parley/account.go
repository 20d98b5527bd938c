package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newAccount(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "The accounts of the node"}
	group(cmd)
	cmd.PersistentFlags().StringVar(&a.account, "account", "", "id or name of the account that is meant (default: the main one)")
	cmd.AddCommand(newAccountList(a), newAccountCreate(a), newAccountRetire(a), newAccountEnrol(a), newAccountLink(a), newAccountCRL(a), newAccountJoin(a), newAccountShow(a), newAccountSet(a), newAccountExport(a), newAccountImport(a), newAccountPassword(a), newAccountBackup(a),
		newAccountDevices(a), newAccountDevice(a), newAccountContacts(a), newAccountContact(a),
		newAccountRequests(a), newAccountRequest(a), newAccountAddresses(a), newAccountReach(a))
	return cmd
}

func showAccount(w io.Writer, acc *contract.Account) {
	note := ""
	if acc.Note != "" {
		note = "note\t" + printable(acc.Note) + "\n"
	}
	if acc.Name != "" {
		note = "name\t" + printable(acc.Name) + "\n" + note
	}
	fmt.Fprintf(w, "account\t%s\nalias\t%s\ndevice\t%s\nrendezvous\t%s\narchive\t%s\n%s", acc.ID, dash(printable(acc.Alias)), acc.DeviceID, yes(acc.Rendezvous),
		map[string]string{"plain": "without a password", "password": "with a password", "locked": "with a password that the node does not have",
			"server": "none here: " + acc.Server + " manages the account"}[acc.Archive], note)
}
