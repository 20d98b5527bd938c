package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mostHints bounds how many words are proposed for a wrong one.
const mostHints = 4

// flagError is the complaint about a flag, in the words of who types it.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() == "" {
		return usagef("%w%s", err, didYouMean(flagsOf(cmd), e.GetSpecifiedName(), "--"))
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if want := valueWords[e.GetFlag().Value.Type()]; want != "" {
			return usagef("--%s %q: it takes %s", e.GetFlag().Name, e.GetValue(), want)
		}
	}
	return usagef("%w", err)
}

// valueWords say what a flag of a type takes.
var valueWords = map[string]string{
	"bool": "true or false", "int": "a whole number", "uint": "a whole number, not below 0", "uint16": "a whole number from 0 to 65535",
	"int64": "a whole number", "uint64": "a whole number, not below 0", "float64": "a number", "duration": "a time such as 30s or 5m",
}

// flagsOf is a command whose commands have the names of cmd's flags, to look for one like another.
func flagsOf(cmd *cobra.Command) *cobra.Command {
	names := &cobra.Command{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return names
}
