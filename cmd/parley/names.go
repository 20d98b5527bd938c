package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/names"
)

func newNames(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "names", Short: "Ask a name server"}
	group(cmd)
	cmd.AddCommand(newNamesLookup(a), newNamesRegister(a))
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
