package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/sockets"
)

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check a configuration, or print a sample"}
	group(cmd)
	cmd.AddCommand(newConfigCheck(a), newConfigSample(a))
	return cmd
}

func newConfigCheck(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Check file, environment and flags without starting anything",
		Args: func(cmd *cobra.Command, args []string) error {
			err := takes()(cmd, args)
			if err != nil && len(args) == 1 {
				return usagef("%w; did you mean --config %s?", err, quoted(args[0]))
			}
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			if _, err := sockets.MediaSpecs(cfg); err != nil {
				return usagef("%w", err)
			}
			values := cfg.Values()
			return a.print(values, func(w io.Writer) {
				for _, f := range config.Fields() {
					fmt.Fprintf(w, "%s\t%v\n", f.Key, values[f.Key])
				}
			})
		},
	}
	addConfigFlags(cmd)
	return cmd
}

func newConfigSample(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "sample", Short: "Print a configuration file with every key and its default", Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				_, err := a.out.Write(config.Sample())
				return err
			}
			return os.WriteFile(out, config.Sample(), 0o644)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write to this file")
	return cmd
}
