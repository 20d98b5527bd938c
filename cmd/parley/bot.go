package main

import "github.com/spf13/cobra"

func newBot(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "bot", Short: "Credentials of bots"}
	group(cmd)
	cmd.AddCommand(newBotCreate(a), newBotList(a), newBotRevoke(a))
	return cmd
}
