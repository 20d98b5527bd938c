package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

// offerTime is how long the node may read a file that is to be offered.
const offerTime = 2 * time.Minute

func newFile(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "file", Short: "Give files to people with Jami, and get files from them",
		Long: `Give files to people with Jami, and get files from them. Files go from device to device; they lie in
connect/files in the node's data: what is given in out, what was got in in.`,
	}
	group(cmd)
	cmd.PersistentFlags().StringVar(&a.account, "account", "", "id or name of the account that is meant (default: the main one)")
	cmd.AddCommand(newFileSend(a), newFileGet(a), newFileList(a), newFileRemove(a), newFileCancel(a), newFileFollow(a))
	return cmd
}

// fileLink is what who is to get a file has to know, in one word.
//
//	data-transfer://CONVERSATION/COMMIT_TID?from=ID&name=NAME&sha3=HEX&size=BYTES
func fileLink(from string, x *contract.FileOffered) string {
	u := url.URL{Scheme: "data-transfer", Host: x.Conversation, Path: "/" + x.Commit + "_" + x.TID,
		RawQuery: url.Values{"from": {from}, "name": {x.Name}, "size": {strconv.FormatInt(x.Size, 10)}, "sha3": {x.SHA3}}.Encode()}
	return u.String()
}

func parseFileLink(s string) (*contract.FileGet, error) {
	bad := func(why any) error {
		return contract.ErrBadRequest.With("%.80q is no link to a file as `parley file send` prints it: %v", s, why)
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, bad(err)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, bad(err)
	}
	size, err := strconv.ParseInt(q.Get("size"), 10, 64)
	commit, tid, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "_")
	switch {
	case u.Scheme != "data-transfer" || !ok:
		return nil, bad("it has another form")
	case err != nil:
		return nil, bad(err)
	case q.Get("from") == "":
		return nil, bad("it does not say who has the file")
	}
	return &contract.FileGet{FileRef: contract.FileRef{Conversation: u.Host, Commit: commit, TID: tid}, From: q.Get("from"), Name: q.Get("name"), Size: size, SHA3: q.Get("sha3")}, nil
}

func newFileSend(a *app) *cobra.Command {
	var name, conversation, commit, tid string
	var direct bool
	cmd := &cobra.Command{
		Use: "send ID PATH", Short: "Let an account have a file",
		Long: `Copy a file into the node's data and let an account have it, and print the link by which
"parley file get" on another node gets it. In the conversation with the account, where there is
one, or in the one that --conversation names the file is announced, and all its members may have it.
Otherwise, and with --direct, nobody is told: the link is for you to pass on. A file that another
device announced is offered too by --conversation, --commit and --tid.`,
		Args: takes("ID", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				ctx, cancel := context.WithTimeout(ctx, offerTime)
				defer cancel()
				if name == "" {
					name = filepath.Base(args[1])
				}
				path, err := copyOut(args[1], filepath.Join(cfg.Data, "connect", "files", "out"))
				if err != nil {
					return err
				}
				q := &contract.FileOffer{Path: filepath.Base(path), Name: name, To: []string{jamiID(args[0])}, Conversation: conversation, Direct: direct}
				if commit != "" || tid != "" {
					q.Ref = &contract.FileRef{Conversation: conversation, Commit: commit, TID: tid}
				}
				x, err := call(ctx, s, contract.FileOfferCmd, q)
				if err != nil {
					return errors.Join(err, os.Remove(path))
				}
				link := fileLink(s.acc.ID, x)
				return a.print(struct {
					*contract.FileOffered
					Link string `json:"link"`
				}{x, link}, func(w io.Writer) { fmt.Fprintln(w, link) })
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "how people see it (default: the last part of PATH)")
	cmd.Flags().BoolVar(&direct, "direct", false, "announce it nowhere")
	cmd.Flags().StringVar(&conversation, "conversation", "", "conversation in which it is announced (default: the one with the account)")
	cmd.Flags().StringVar(&commit, "commit", "", "commit that announced it already")
	cmd.Flags().StringVar(&tid, "tid", "", "number that it has there")
	return cmd
}

// copyOut copies a file into a folder, under a name that nothing there has.
func copyOut(from, dir string) (string, error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	path := filepath.Join(dir, rand.Text())
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it is made when files can be given
		return "", contract.ErrUnavailable.With("the node does not take files yet: try again when `parley ready` says that it is")
	case err != nil:
		return "", fmt.Errorf("the node's folder of files: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("copying the file: %w", err), os.Remove(path))
	}
	return path, nil
}

func newFileGet(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "get LINK", Short: "Get a file of an account",
		Long: `Get the file that a link of "parley file send" means, wait until it is there, and say where it is. What
came before it was interrupted is not sent again; the node goes on when the command does not.`,
		Args: takes("LINK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := parseFileLink(args[0])
			if err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				p, err := a.fetch(ctx, s, q)
				if err != nil {
					return err
				}
				if out != "" {
					if err := copyTo(p.Path, out); err != nil {
						return err
					}
					p.Path = out
				}
				return a.print(p, func(w io.Writer) { fmt.Fprintln(w, p.Path) })
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to copy it to, which is not there yet")
	return cmd
}

// fetch has the node get a file and waits for it.
func (a *app) fetch(ctx context.Context, s *session, q *contract.FileGet) (*contract.FileTransfer, error) {
	f := newFollowed(ctx)
	defer f.stop()
	if err := hear(f, s, contract.FileTransfers, func(p *contract.FileTransfer) *news { return &news{File: p} }); err != nil {
		return nil, err
	}
	id, err := call(ctx, s, contract.FileGetCmd, q)
	if err != nil {
		return nil, err
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case n := <-f.came:
			p := n.File
			if p.ID != id.ID || p.Given {
				continue
			}
			switch p.State {
			case contract.FileDone:
				return p, nil
			case contract.FileFailed, contract.FileCancelled:
				return nil, fmt.Errorf("the file did not come: %s", dash(p.Why))
			}
			if !a.json {
				fmt.Fprintln(a.err, fileText(p))
			}
		}
	}
}

// copyTo copies a file to where none is.
func copyTo(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func newFileList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what the account offers and gets, and what members of conversations announced",
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				l, err := call(ctx, s, contract.FileListCmd, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(l, func(w io.Writer) {
					if len(l.Offered)+len(l.Announced)+len(l.Transfers) == 0 {
						fmt.Fprintln(w, "no files")
					}
					for i := range l.Offered {
						x := &l.Offered[i]
						fmt.Fprintf(w, "offered    %s  %d bytes  to %s  %s\n", printable(x.Name), x.Size, dash(strings.Join(x.To, ", ")), fileLink(s.acc.ID, x))
					}
					for i := range l.Announced {
						x := &l.Announced[i]
						fmt.Fprintf(w, "announced  %s  %d bytes  by %s  %s\n", printable(x.Name), x.Size, x.From, fileLink(x.From, &x.FileOffered))
					}
					for i := range l.Transfers {
						fmt.Fprintln(w, fileText(&l.Transfers[i]))
					}
				})
			})
		},
	}
}

func newFileRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove LINK", Short: "No longer offer a file",
		Long: "No longer offer a file. It stays in the node's data; who is getting it gets the rest.",
		Args: takes("LINK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := parseFileLink(args[0])
			if err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				_, err := call(ctx, s, contract.FileRemoveCmd, &q.FileRef)
				if err != nil {
					return err
				}
				return a.print(q.FileRef, func(w io.Writer) { fmt.Fprintln(w, "it is not offered any more") })
			})
		},
	}
}

func newFileCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "cancel TRANSFER", Short: "Get a file no longer, and remove what there is of it",
		Args: takes("TRANSFER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				q := &contract.FileID{ID: args[0]}
				if _, err := call(ctx, s, contract.FileCancelCmd, q); err != nil {
					return err
				}
				return a.print(q, func(w io.Writer) { fmt.Fprintln(w, "cancelled") })
			})
		},
	}
}

func newFileFollow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "follow", Short: "Print how files come and go",
		Long: "Print how files come and go, until the command is interrupted; with --json an object a line.",
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				f := newFollowed(ctx)
				defer f.stop()
				if err := hear(f, s, contract.FileTransfers, func(p *contract.FileTransfer) *news { return &news{File: p} }); err != nil {
					return err
				}
				return f.print(a)
			})
		},
	}
}

func fileText(p *contract.FileTransfer) string {
	way := "from"
	if p.Given {
		way = "to"
	}
	s := fmt.Sprintf("%-9s  %s  %s %s  %s  %d of %d bytes", p.State, p.ID, way, p.Peer, printable(p.Name), p.Bytes, p.Size)
	if p.Why != "" {
		s += ": " + printable(p.Why)
	}
	return s
}
