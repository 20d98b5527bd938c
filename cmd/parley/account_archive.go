package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/supervise"
	"github.com/parley-jami/parley/services/identity"
	"github.com/parley-jami/parley/services/identity/account"
)

// maxArchive bounds an archive file; stock ones have some 20 KB.
const maxArchive = 32 << 20

const archivePasswordHelp = `The archive's password, if it has one that the node doesn't know (identity.password_file),
is read from the first line of --archive-password-file, or with - from standard input.`

func newAccountExport(a *app) *cobra.Command {
	var with, archive string
	var force bool
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write the account's archive, which any Jami client imports",
		Long: `Write the account's archive, which any Jami client imports. Whoever has the file, and
its password if it has one, is the account: keep it well. The node has to run; it sends
the archive encrypted to this command alone.

` + archivePasswordHelp,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := a.secretOf(archive, with)
			if err != nil {
				return err
			}
			if x.Reply, err = newReplyKey(); err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				cipher, err := fetchArchive(ctx, s, x)
				if err != nil {
					return err
				}
				b, err := jami.Open(x.Reply, cipher)
				if err != nil {
					return fmt.Errorf("the node's answer: %w", err)
				}
				if err := writeNew(args[0], b, force); err != nil {
					return err
				}
				done := struct {
					File      string `json:"file"`
					Account   string `json:"account"`
					Encrypted bool   `json:"encrypted"`
				}{args[0], s.acc.ID, len(x.New) > 0}
				if !done.Encrypted {
					fmt.Fprintf(a.err, "parley: %s has no password: whoever reads it is the account\n", args[0])
				}
				return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "account\t%s\narchive\t%s\n", done.Account, done.File) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&with, "password-file", "", "encrypt FILE with the password on the first line of this file (- for standard input)")
	f.StringVar(&archive, "archive-password-file", "", "the password of the node's archive")
	f.BoolVar(&force, "force", false, "replace FILE if it is there")
	return cmd
}

// fetchArchive gets the sealed archive part by part.
func fetchArchive(ctx context.Context, s *session, x contract.Secret) (cipher []byte, err error) {
	for {
		part, err := callSealed(ctx, s, contract.ArchiveExport, x)
		if err != nil {
			return nil, err
		}
		cipher = append(cipher, part.Cipher...)
		if !part.More || len(part.Cipher) == 0 {
			return cipher, nil
		}
		x.From = len(cipher)
	}
}

// secretOf reads the archive's password and the one of a file.
func (a *app) secretOf(archive, with string) (x contract.Secret, err error) {
	if archive == "-" && with == "-" {
		return x, usagef("only one password can come from standard input")
	}
	if x.Password, err = a.readPassword(archive, "password of the archive"); err != nil {
		return x, err
	}
	x.New, err = a.readPassword(with, "new password")
	return x, err
}

// writeNew writes a file for the owner alone.
func writeNew(path string, b []byte, force bool) error {
	write := atomicfile.Create
	if force {
		write = atomicfile.Write
	}
	err := write(path, b, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return thereAlready(path)
	}
	return err
}

func thereAlready(path string) error {
	return contract.ErrExists.With("%s is there already; --force replaces it", path)
}

func newAccountPassword(a *app) *cobra.Command {
	var with, archive string
	var remove bool
	cmd := &cobra.Command{
		Use: "password", Short: "Set, change or remove the password of the account's archive",
		Long: `Set, change or remove the password of the account's archive. The node has to run; the
passwords reach its identity process encrypted to that. Where identity.password_file is
set, put the new password there before the next start: a node that can't open its
archive works, but asks for the password whenever the archive is to be changed.

` + archivePasswordHelp,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (with == "") == !remove {
				return usagef("give one of --password-file and --remove")
			}
			x, err := a.secretOf(archive, with)
			if err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				acc, err := callSealed(ctx, s, contract.ArchivePassword, x)
				if err != nil {
					return err
				}
				return a.print(acc, func(w io.Writer) { showAccount(w, acc) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&with, "password-file", "", "the new password is the first line of this file (- for standard input)")
	f.StringVar(&archive, "archive-password-file", "", "the password until now")
	f.BoolVar(&remove, "remove", false, "leave the archive without a password")
	return cmd
}

func newAccountImport(a *app) *cobra.Command {
	var password string
	var replace, beside bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Make an account of the node from an archive, as a new device of it",
		Long: `Make an account of the node from an archive that a Jami client or another node exported.
The node becomes a new device of that account, with a key of its own; contacts, conversations,
settings and revocations stay as the archive has them. An archive with a password keeps
it: name a file with it as identity.password_file, so that the node can change the archive.
An account that takes no calls at any time stays so: "parley account set --rendezvous".

A node has a main account, whose name its rooms and bots have on the bus, and may have
others. --beside takes the account in as one of those, while the node runs or not. With
--replace it becomes the main one and the former is moved aside, within DATA/identity; bots
have to be made anew then. For that no node may run on the data directory; this command
holds its lock. (Processes that run apart, as "parley run identity", don't take it: stop them.)`,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if replace && beside {
				return usagef("give one of --replace and --beside")
			}
			file, err := readArchive(args[0])
			if err != nil {
				return err
			}
			pw, err := a.readPassword(password, "password of the archive")
			if err != nil {
				return err
			}
			t, err := a.find(cmd)
			if err != nil {
				return err
			}
			var made *identity.Imported
			if t.local != nil {
				made, err = a.importRunning(cmd, t, file, pw, beside)
			} else {
				made, err = importStopped(cmd.Context(), t, file, pw, place(replace, beside))
			}
			if errors.Is(err, contract.ErrBadRequest) {
				return fmt.Errorf("%s: %w", args[0], err) // its content
			} else if err != nil {
				return err
			}
			return a.print(made, func(w io.Writer) {
				showAccount(w, &made.Account)
				for _, dir := range made.Replaced {
					fmt.Fprintf(w, "replaced, now in\t%s\n", dir)
				}
			})
		},
	}
	cmd.Flags().StringVar(&password, "password-file", "", "the password of FILE is the first line of this file (- for standard input)")
	cmd.Flags().BoolVar(&replace, "replace", false, "move the main account aside and take its place")
	cmd.Flags().BoolVar(&beside, "beside", false, "keep the accounts that are there")
	return cmd
}

// importRunning has the node take an account in.
func (a *app) importRunning(cmd *cobra.Command, t *target, file, pw []byte, beside bool) (*identity.Imported, error) {
	s, st, err := a.reach(cmd)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if len(st.Accounts) > 0 && !beside {
		return nil, contract.ErrForbidden.With("a node runs on %s and has an account: --beside adds this one; to replace the main one stop the node first", t.cfg.Data)
	}
	acc, err := callSealed(cmd.Context(), s, contract.AccountImport, contract.Secret{Archive: file, Password: pw})
	if err != nil {
		return nil, err
	}
	return &identity.Imported{Account: *acc}, nil
}

// importStopped makes the account where no node runs.
func importStopped(ctx context.Context, t *target, file, pw []byte, where account.Place) (*identity.Imported, error) {
	if err := prepareData(t.cfg); err != nil {
		return nil, err
	}
	lock, err := supervise.Lock(ctx, t.cfg.Data)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	return identity.Import(t.cfg, file, pw, where)
}

func place(replace, beside bool) account.Place {
	switch {
	case replace:
		return account.Main
	case beside:
		return account.Beside
	}
	return account.Alone
}

func readArchive(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxArchive+1))
	if err == nil && len(b) == 0 {
		return nil, usagef("%s is empty: this is no archive of an account", path)
	}
	if err == nil && len(b) > maxArchive {
		return nil, usagef("%s has more than %d MiB; this is no archive of an account", path, maxArchive>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return b, nil
}

func newAccountBackup(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "backup DIR|FILE", Short: "Copy all that identity keeps: account, device key, list of bots",
		Long: `Copy all that identity keeps: the account's directory with the device's key, and the list of
bots, as they are at one moment. Into a new directory within DIR if that is a directory,
else as FILE, a .tar.gz. A node may run meanwhile, and need not.

To restore it, stop the node, move DATA/identity away and put the copy in its place. Use it
for the same node alone: two nodes with one device key hinder each other; to have the
account elsewhere too, export the archive and import that.`,
		Args: takes("DIR|FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			files, err := identity.Files(cfg.Data)
			if err != nil {
				return err
			}
			done := struct {
				Backup string `json:"backup"`
				Files  int    `json:"files"`
			}{args[0], len(files)}
			if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
				done.Backup, err = writeTree(args[0], files)
				if err != nil {
					return err
				}
			} else {
				b, err := tarball(files)
				if err != nil {
					return err
				}
				if err := writeNew(args[0], b, force); err != nil {
					return err
				}
			}
			if done.Backup, err = filepath.Abs(done.Backup); err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "%d files\t%s\n", done.Files, done.Backup) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it is there")
	return cmd
}
