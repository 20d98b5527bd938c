package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/config"
)

// app is what every command gets: where it reads and writes, and the flags that
// all have.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      []string

	data    string
	config  string
	account string // of the commands of one account; empty: the main one
	json    bool
	verbose bool
}

var (
	errInterrupted = errors.New("interrupted")
	errTold        = errors.New("told already")
)

// main runs one command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	if err != nil && !errors.Is(err, errTold) && err.Error() != "" {
		// A mistake in a flag may come before --json was read.
		if a.json || slices.Contains(args, "--json") {
			a.tellJSON(err)
		} else {
			fmt.Fprintln(a.err, "parley: "+err.Error())
		}
	}
	return exitCode(err)
}

// tellJSON writes err as commands of the bus answer it.
func (a *app) tellJSON(err error) {
	enc := json.NewEncoder(a.err)
	enc.SetEscapeHTML(false)
	if werr := enc.Encode(asRefusal(err)); werr != nil {
		fmt.Fprintln(a.err, "parley: "+err.Error())
	}
}

// load reads the configuration as this command line, the environment and the
// file say; flags of keys that cmd has and that were given win.
func (a *app) load(cmd *cobra.Command) (*config.Config, error) {
	s := config.Sources{File: a.config, Env: a.env, Flags: map[string]string{}}
	if s.File == "" {
		for _, kv := range a.env {
			if v, ok := strings.CutPrefix(kv, config.EnvFile+"="); ok {
				s.File = v
			}
		}
	}
	for _, f := range config.Fields() {
		if fl := cmd.Flags().Lookup(f.Key); fl != nil && fl.Changed {
			s.Flags[f.Key] = fl.Value.String()
		}
	}
	return config.Load(s)
}

// addConfigFlags gives cmd a flag for each configuration key; --data is there
// already.
func addConfigFlags(cmd *cobra.Command) {
	for _, f := range config.Fields() {
		if f.Key == "data" {
			continue
		}
		usage := f.Doc
		if f.List {
			usage += " (separated by commas)"
		}
		cmd.Flags().String(f.Key, f.Default, usage)
	}
}

// print writes v as JSON with --json, else calls text.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.json {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	text(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
