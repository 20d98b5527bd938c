package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/names"
)

func newNames(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "names", Short: "Ask a name server"}
	group(cmd)
	others := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && args[0] == "register" {
			return usagef("%s has no command register: a name is registered in Jami, in the settings of the account (docs/names.md)", cmd.CommandPath())
		}
		return others(cmd, args)
	}
	cmd.AddCommand(newNamesLookup(a))
	return cmd
}

// namesExit gives the errors of a name server their exit codes.
func namesExit(err error) error {
	for code, list := range map[int][]error{
		exitUsage:       {names.ErrInvalidName, names.ErrUnsupported},
		exitUnavailable: {names.ErrUnavailable},
		exitRefused:     {names.ErrTaken},
		exitNotFound:    {names.ErrNotFound},
	} {
		for _, want := range list {
			if errors.Is(err, want) {
				return &codedError{code, err}
			}
		}
	}
	return err
}
