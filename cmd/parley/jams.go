package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/jams"
	server "github.com/parley-jami/parley/services/jams"
	"github.com/parley-jami/parley/services/jams/users"
)

const (
	operatorTime = time.Minute // of a list in pages
	minPassword  = 8
)

func newJAMS(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "jams", Short: "Manage the users of an account server (\"parley run jams\")"}
	group(cmd)
	user := &cobra.Command{Use: "user", Short: "Users and their accounts"}
	group(user)
	user.AddCommand(newJAMSAdd(a), newJAMSPasswd(a), newJAMSList(a), newJAMSRevoke(a))
	device := &cobra.Command{Use: "device", Short: "Devices of accounts"}
	group(device)
	device.AddCommand(newJAMSDeviceRevoke(a))
	cmd.AddCommand(user, device)
	return cmd
}

// jamsFlags are the settings that say where the server's files and its socket are.
func jamsFlags(cmd *cobra.Command) {
	for _, f := range config.Fields() {
		if f.Key == "jams.data" || f.Key == "jams.users" {
			cmd.Flags().String(f.Key, f.Default, f.Doc)
		}
	}
}

func newJAMSAdd(a *app) *cobra.Command {
	var display, email string
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Write a user into the users' file",
		Long: `Write a user into the users' file. The password is asked for, or read as the first
line of standard input. A running server knows the user within seconds.`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := jams.UserName(args[0])
			if err != nil {
				return &codedError{exitUsage, err}
			}
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			password, err := a.newPassword()
			if err != nil {
				return err
			}
			if err := prepareData(cfg); err != nil {
				return err
			}
			if err := os.MkdirAll(cfg.JAMSDir(), 0o700); err != nil {
				return err
			}
			err = users.Add(server.UsersFile(cfg), users.Entry{Name: name, Password: users.HashPassword(password), DisplayName: display, Email: email})
			if errors.Is(err, users.ErrExists) {
				return &codedError{exitRefused, err}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&display, "display-name", "", "name that others see")
	cmd.Flags().StringVar(&email, "email", "", "address that others find the user by")
	jamsFlags(cmd)
	return cmd
}

func newJAMSPasswd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "passwd NAME", Short: "Give a user of the users' file another password",
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := jams.UserName(args[0])
			if err != nil {
				return &codedError{exitUsage, err}
			}
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			password, err := a.newPassword()
			if err != nil {
				return err
			}
			err = users.SetPassword(server.UsersFile(cfg), name, users.HashPassword(password))
			if errors.Is(err, users.ErrNoUser) {
				return &codedError{exitNotFound, err}
			}
			return err
		},
	}
	jamsFlags(cmd)
	return cmd
}

// newPassword asks twice on a terminal, else reads a line.
func (a *app) newPassword() (string, error) {
	password, err := a.promptPassword("password: ")
	if err != nil {
		return "", err
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		again, err := a.promptPassword("again: ")
		if err != nil {
			return "", err
		}
		if again != password {
			return "", usagef("these were two different passwords")
		}
	}
	if len(password) < minPassword || len(password) > jams.MaxPassword {
		return "", usagef("a password has %d to %d bytes", minPassword, jams.MaxPassword)
	}
	return password, nil
}

func (a *app) promptPassword(prompt string) (string, error) {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.err, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return string(b), err
	}
	b, err := io.ReadAll(io.LimitReader(a.in, jams.MaxPassword+2))
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), err
}

func newJAMSList(a *app) *cobra.Command {
	var query string
	cmd := &cobra.Command{
		Use: "list", Short: "Show the accounts that were handed out, with their devices",
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := []jams.Account{}
			err := a.askJAMS(cmd, func(ctx context.Context, op *jams.Operator) error {
				for after := ""; ; {
					page, err := op.Accounts(ctx, query, after, jams.MaxPage)
					if err != nil {
						return err
					}
					list = append(list, page.Accounts...)
					if after = page.Next; after == "" {
						return nil
					}
				}
			})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				fmt.Fprintf(w, "USER\tACCOUNT\tDEVICE\t\n")
				for _, u := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", u.Name, u.JamiID, "", revokedWord(u.Revoked))
					for _, d := range u.Devices {
						fmt.Fprintf(w, "\t%s\t%s\t%s\n", d.Alias, d.ID, revokedWord(d.Revoked))
					}
					if u.MoreDevices > 0 {
						fmt.Fprintf(w, "\t\tand %d more\trevoked\n", u.MoreDevices)
					}
				}
			})
		},
	}
	cmd.Flags().StringVar(&query, "query", "", "only whose name, shown name or address has this, whose Jami Id begins with it, or who has this device")
	jamsFlags(cmd)
	return cmd
}

func revokedWord(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return "revoked"
}

func newJAMSRevoke(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "End a user's account for good",
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askJAMS(cmd, func(ctx context.Context, op *jams.Operator) error { return op.RevokeAccount(ctx, args[0]) })
		},
	}
	jamsFlags(cmd)
	return cmd
}

func newJAMSDeviceRevoke(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NAME ID", Short: "End a device of a user's account for good",
		Args: takes("NAME", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := jams.ParseDeviceID(args[1])
			if err != nil {
				return &codedError{exitUsage, err}
			}
			return a.askJAMS(cmd, func(ctx context.Context, op *jams.Operator) error { return op.RevokeDevice(ctx, args[0], id) })
		},
	}
	jamsFlags(cmd)
	return cmd
}

// askJAMS asks the account server whose directory is configured.
func (a *app) askJAMS(cmd *cobra.Command, fn func(context.Context, *jams.Operator) error) error {
	cfg, err := a.load(cmd)
	if err != nil {
		return err
	}
	op := jams.NewOperator(jams.OperatorSocket(cfg.JAMSDir()))
	defer op.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), operatorTime)
	defer cancel()
	switch err := fn(ctx, op); {
	case jams.Absent(err), errors.Is(err, syscall.ECONNREFUSED):
		return &codedError{exitUnavailable, fmt.Errorf("no account server runs on %s (jams.data)", cfg.JAMSDir())}
	case errors.Is(err, jams.ErrUnavailable):
		return &codedError{exitUnavailable, err}
	case errors.Is(err, jams.ErrNotFound):
		return &codedError{exitNotFound, err}
	default:
		return err
	}
}
