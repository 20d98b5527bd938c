package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// readyWait bounds the question; a process that answers later is not well.
const readyWait = 2 * time.Second

// newReady is the health check of a container: it needs no shell and no curl.
func newReady(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ready", Short: "Ask the node or the process on admin.listen whether it is ready",
		Long: "Ask the node, or the process that runs alone, on admin.listen whether it is ready: exit code 0, or 3 when it is not.",
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			if cfg.Admin.Listen == "" {
				return usagef("admin.listen is switched off, so there is nobody to ask")
			}
			listen := cfg.Admin.Listen
			if local, err := askSupervisor(cmd.Context(), cfg.Data); err == nil && local.Node.Admin != "" {
				listen = local.Node.Admin // of the node on that directory, whatever it was started with
			}
			if err := askReady(cmd.Context(), listen); err != nil {
				return &codedError{exitUnavailable, err}
			}
			return a.print(map[string]bool{"ready": true}, func(w io.Writer) { fmt.Fprintln(w, "ready") })
		},
	}
	addConfigFlags(cmd)
	return cmd
}

func askReady(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("nobody answers: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", printable(strings.TrimSpace(string(text))))
	}
	return nil
}
