package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/host"
)

// readyWait bounds the question; a process that answers later is not well.
const readyWait = 2 * time.Second

// newReady is the health check of a container: it needs no shell and no curl.
func newReady(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ready", Short: "Ask the node or the process on admin.listen whether it is ready",
		Long: `Ask the node, or the process that runs alone, on admin.listen whether it is ready: exit code 0, or 3 when
it is not. With --data only what runs on that directory counts; whoever answers there, without.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			if cfg.Admin.Listen == "" {
				return usagef("admin.listen is switched off, so there is nobody to ask")
			}
			listen, data := cfg.Admin.Listen, cfg.Data
			if !cmd.Flags().Changed("data") || cmd.Flags().Changed("admin.listen") {
				data = "" // who is there is meant: a service's own directory need not be said to ask for it
			}
			if local, err := askSupervisor(cmd.Context(), cfg.Data); err == nil && local.Node.Admin != "" {
				listen = local.Node.Admin // of the node on that directory, whatever it was started with
			}
			if err := askReady(cmd.Context(), listen, data); err != nil {
				return &codedError{exitUnavailable, err}
			}
			return a.print(map[string]bool{"ready": true}, func(w io.Writer) { fmt.Fprintln(w, "ready") })
		},
	}
	addConfigFlags(cmd)
	return cmd
}

// askReady asks who is at an address, and whether it is of a data directory; empty: of any.
func askReady(ctx context.Context, listen, data string) error {
	name, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(name); name == "" || ip != nil && ip.IsUnspecified() {
		name = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(name, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("nobody answers: %w", err)
	}
	defer resp.Body.Close()
	if of := resp.Header.Get(host.HeaderData); data != "" && of != "" && !sameFile(of, data) {
		return fmt.Errorf("nothing runs on %s: at %s (admin.listen) answers what runs on %s; --data names that one, --admin.listen asks an address", data, listen, printable(of))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", printable(strings.TrimSpace(string(text))))
	}
	return nil
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	if abs, err := filepath.Abs(b); err == nil && abs == filepath.Clean(a) {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
