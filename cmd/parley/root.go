package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "parley", Version: version,
		Short: "A headless Jami node that hosts conferences",
		Long: `Parley is a headless Jami node for the people who run conferences: one account,
reachable by anyone at any time, where browsers, SIP phones and bots meet in a room.

  parley up       starts a node
  parley status   shows a running one

"parley help exit-codes" lists the exit codes.`,
		SilenceErrors: true, SilenceUsage: true,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.data, "data", "", "directory of the node that is meant (default: $PARLEY_DATA, else /var/lib/parley for root, else $XDG_DATA_HOME/parley)")
	f.StringVar(&a.config, "config", "", "configuration file (default: $PARLEY_CONFIG, else none)")
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show what is done on the bus")
	root.SetFlagErrorFunc(flagError)
	group(root)
	root.AddCommand(
		newUp(a), newJoin(a), newRun(a), newStatus(a), newReady(a), newWorker(a), newBus(a), newRoom(a), newCall(a), newAccount(a), newMessage(a), newConversation(a), newFile(a), newBot(a), newNames(a), newJAMS(a), newCA(a), newDHT(a), newConfig(a), newVersion(a), newExitCodes(),
	)
	for _, extra := range extraCommands {
		root.AddCommand(extra(a))
	}
	return root
}

// extraCommands are those whose files add themselves.
var extraCommands []func(*app) *cobra.Command

// group makes cmd a command that only has others: alone it shows its help, and a
// word that none of them has is a usage error.
func group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return usagef("%s has no command %q%s", cmd.CommandPath(), args[0], didYouMean(cmd, args[0], ""))
	}
}

// didYouMean is what to add to the complaint about a word: the commands of cmd that are like it,
// each after a prefix.
func didYouMean(cmd *cobra.Command, word, prefix string) string {
	cmd.SuggestionsMinimumDistance = 2
	s := cmd.SuggestionsFor(word)
	if len(s) == 0 {
		return ""
	}
	return "; did you mean " + prefix + strings.Join(s[:min(len(s), mostHints)], " or "+prefix) + "?"
}

// takes says which arguments a command wants, by the words of its use line.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		want := "no arguments"
		if len(names) > 0 {
			want = strings.Join(names, " ")
		}
		return usagef("%s takes %s, got %s", cmd.CommandPath(), want, count(len(args)))
	}
}

func count(n int) string {
	switch n {
	case 0:
		return "none"
	case 1:
		return "one"
	}
	return fmt.Sprint(n)
}
