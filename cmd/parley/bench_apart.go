package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// insideFlag is how a command line that [app.apart] runs is told of its namespaces.
func insideFlag(cmd *cobra.Command, inside *string) {
	cmd.Flags().StringVar(inside, "inside", "", "")
	if err := cmd.Flags().MarkHidden("inside"); err != nil {
		panic(err) // there is that flag
	}
}

// apart runs this command line once more in a network namespace, and removes that and those
// of the machines when it has ended. The names of all begin with the given one and the process's id.
func (a *app) apart(ctx context.Context, command, names string) (err error) {
	if os.Geteuid() != 0 {
		return usagef("%s makes network namespaces: run it as root", command)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("%s%d-", names, os.Getpid())
	if err := ip(ctx, "netns", "add", prefix+"hub"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeNamespaces(prefix)) }()
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", prefix + "hub", self}, append(os.Args[1:], "--inside", prefix)...)...)
	c.Stdin, c.Stdout, c.Stderr = a.in, a.out, a.err
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = time.Minute
	err = c.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) && ctx.Err() == nil {
		return &codedError{failed.ExitCode(), errTold}
	}
	return err
}

// ip runs ip(8).
func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ips runs ip(8) with each of the lines.
func ips(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if err := ip(ctx, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// removeNamespaces removes those whose names begin so. Their interfaces go with them.
func removeNamespaces(prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), localWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", "netns", "list").Output()
	errs := []error{err}
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, prefix) {
			errs = append(errs, ip(ctx, "netns", "del", name))
		}
	}
	return errors.Join(errs...)
}
