package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

func newAccountCreate(a *app) *cobra.Command {
	var alias, ca, password, csr, certificate string
	var force bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make one more account",
		Long: `Make one more account of the node, beside those that it has: it can be called, has devices
and contacts of its own, and rooms where "parley room create --account" says so. Its keys
take some seconds. A node that has none (identity.create) gets its main account so.

The account has an authority of its own, whose key is in its archive, unless you bring one:

  --ca CERT,KEY         sign its certificate with these PEM files. The key, RSA or ECDSA,
                        is used by this command alone and does not reach the node
  --csr FILE            write a request for its certificate, to have it signed elsewhere
  --certificate FILE    and come back with what was signed: PEM, the account's
                        certificate first, then those above it

"parley ca" makes and keeps an authority where you have none.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return usagef("%s takes no arguments; a name goes after --alias: --alias %q", cmd.CommandPath(), args[0])
			}
			return takes()(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := 0
			for _, s := range []string{ca, csr, certificate} {
				if s != "" {
					given++
				}
			}
			if given > 1 {
				return usagef("give one of --ca, --csr and --certificate")
			}
			if _, err := os.Lstat(csr); csr != "" && err == nil && !force { // before the node keeps keys for it
				return thereAlready(csr)
			}
			var authority *jami.Authority
			if ca != "" {
				var err error
				if authority, err = a.readAuthority(ca, password); err != nil {
					return err
				}
			}
			s, _, err := a.reach(cmd)
			if err != nil {
				return err
			}
			defer s.Close()
			if csr != "" {
				return a.requestAccount(cmd.Context(), s, alias, csr, force)
			}
			var acc *contract.Account
			switch q := (&contract.AccountCreate{Alias: alias}); {
			case authority != nil:
				acc, err = issueAccount(cmd.Context(), s, authority, q)
			case certificate != "":
				acc, err = completeAccount(cmd.Context(), s, certificate)
			default:
				acc, err = untilMade(cmd.Context(), func(ctx context.Context) (*contract.Account, error) {
					return call(ctx, s, contract.AccountCreateCmd, q)
				})
			}
			if err != nil {
				return err
			}
			return a.print(acc, func(w io.Writer) { showAccount(w, acc) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&alias, "alias", "Parley", "display name of the account")
	f.StringVar(&ca, "ca", "", "CERT,KEY: PEM files of your authority")
	f.StringVar(&password, "ca-password-file", "", "the password of KEY is the first line of this file (- for standard input)")
	f.StringVar(&csr, "csr", "", "write a request for the certificate here, and make no account yet")
	f.StringVar(&certificate, "certificate", "", "make the account of a request, of what was signed for it")
	f.BoolVar(&force, "force", false, "replace the file of --csr if it is there")
	return cmd
}

// readAuthority reads CERT,KEY.
func (a *app) readAuthority(files, password string) (*jami.Authority, error) {
	certFile, keyFile, ok := strings.Cut(files, ",")
	if !ok || certFile == "" || keyFile == "" {
		return nil, usagef("--ca %q: two files, CERT,KEY", files)
	}
	pw, err := a.readPassword(password, "password of "+keyFile)
	if err != nil {
		return nil, err
	}
	return loadAuthority(certFile, keyFile, pw, time.Now())
}

// request asks for the certificate of a new account.
func request(ctx context.Context, s *session, q *contract.AccountCreate) (*contract.AccountRequested, error) {
	return untilMade(ctx, func(ctx context.Context) (*contract.AccountRequested, error) {
		return call(ctx, s, contract.AccountRequest, q)
	})
}

// requestAccount writes the request for a certificate to a file.
func (a *app) requestAccount(ctx context.Context, s *session, alias, path string, force bool) error {
	r, err := request(ctx, s, &contract.AccountCreate{Alias: alias})
	if err != nil {
		return err
	}
	if err := writeNew(path, []byte(r.Request), force); err != nil {
		return err
	}
	return a.print(map[string]string{"request": path}, func(w io.Writer) {
		fmt.Fprintf(w, "request\t%s\nnext\tparley account create --certificate SIGNED\n", path)
	})
}

// issueAccount makes an account that the authority certifies, whose key stays here.
func issueAccount(ctx context.Context, s *session, ca *jami.Authority, q *contract.AccountCreate) (*contract.Account, error) {
	r, err := request(ctx, s, q)
	if err != nil {
		return nil, err
	}
	chain, err := ca.Issue([]byte(r.Request), time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate of the account: %w", err)
	}
	return call(ctx, s, contract.AccountComplete, &contract.AccountIssued{Chain: string(jami.MarshalChain(chain...))})
}

func completeAccount(ctx context.Context, s *session, path string) (*contract.Account, error) {
	chain, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	return call(ctx, s, contract.AccountComplete, &contract.AccountIssued{Chain: string(chain)})
}
