package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// maxPEM bounds certificates, keys and requests that the command line reads.
const maxPEM = 256 << 10

func newCA(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Keep a certificate authority for accounts",
		Long: `Keep a certificate authority for accounts: make one, sign the requests of accounts, revoke
accounts. No node has to run; the key is best kept on a machine that has none.`,
	}
	group(cmd)
	cmd.AddCommand(newCACreate(a), newCASign(a), newCARevoke(a))
	return cmd
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = usagef("%s has more than %d KiB", path, maxPEM>>10)
	}
	return b, err
}

// createNew writes a file that must not be there.
func createNew(path string, b []byte, mode fs.FileMode) error {
	err := atomicfile.Create(path, b, mode)
	if errors.Is(err, fs.ErrExist) {
		return contract.ErrExists.With("%s is there already, and is not replaced", path)
	}
	return err
}

// loadAuthority reads an authority of two PEM files.
func loadAuthority(certFile, keyFile string, password []byte, now time.Time) (*jami.Authority, error) {
	certText, err := readSmall(certFile)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	certs, err := trust.Certificates(certText)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", certFile, err)
	}
	keyText, err := readSmall(keyFile)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	key, err := jami.ParseSigner(keyText, password)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", keyFile, err)
	}
	ca, err := jami.NewAuthority(certs[0], key, now)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", certFile, err)
	}
	return ca, nil
}

// caFlags say where an authority is.
type caFlags struct{ ca, password string }

func (f *caFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ca, "ca", "", "CERT,KEY: PEM files of the authority")
	cmd.Flags().StringVar(&f.password, "ca-password-file", "", "the password of KEY is the first line of this file (- for standard input)")
}

func newCACreate(a *app) *cobra.Command {
	var password string
	cmd := &cobra.Command{
		Use: "create DIR", Short: "Make an authority: DIR/ca.crt and DIR/ca.key",
		Long: `Make an authority with an RSA-4096 key, valid for ten years: DIR/ca.crt and DIR/ca.key, whose
mode is 0600. What is there is not replaced. Any other authority will do as well: RSA of
2,048 to 8,192 bits or ECDSA, self-signed.`,
		Args: takes("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			pw, err := a.readPassword(password, "password of the authority's key")
			if err != nil {
				return err
			}
			key, err := rsa.GenerateKey(rand.Reader, jami.KeyBits)
			if err != nil {
				return err
			}
			cert, err := jami.NewCA(key, time.Now())
			if err != nil {
				return err
			}
			keyPEM, err := jami.MarshalKey(key)
			if len(pw) > 0 {
				keyPEM, err = jami.MarshalEncryptedKey(key, pw)
			}
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o700); err != nil {
				return err
			}
			certFile, keyFile := filepath.Join(args[0], "ca.crt"), filepath.Join(args[0], "ca.key")
			if err := createNew(keyFile, keyPEM, 0o600); err != nil {
				return err
			}
			if err := createNew(certFile, jami.MarshalChain(cert), 0o644); err != nil {
				return errors.Join(err, os.Remove(keyFile)) // no use without it
			}
			return a.print(map[string]string{"certificate": certFile, "key": keyFile}, func(w io.Writer) {
				fmt.Fprintf(w, "certificate\t%s\nkey\t%s\n", certFile, keyFile)
			})
		},
	}
	cmd.Flags().StringVar(&password, "password-file", "", "encrypt the key with the password on the first line of this file (- for standard input)")
	return cmd
}

func newCASign(a *app) *cobra.Command {
	var from caFlags
	var out string
	cmd := &cobra.Command{
		Use: "sign REQUEST", Short: "Sign the request for an account's certificate",
		Long: `Sign the request for an account's certificate ("parley account create --csr"). The answer,
the account's certificate and the authority's, goes to --out or to standard output.`,
		Args: takes("REQUEST"),
		RunE: func(_ *cobra.Command, args []string) error {
			if from.ca == "" {
				return usagef("give --ca CERT,KEY")
			}
			ca, err := a.readAuthority(from.ca, from.password)
			if err != nil {
				return err
			}
			request, err := readSmall(args[0])
			if err != nil {
				return err
			}
			chain, err := ca.Issue(request, time.Now())
			if err != nil {
				return &codedError{exitRefused, err}
			}
			pem := jami.MarshalChain(chain...)
			if out == "" {
				_, err := a.out.Write(pem)
				return err
			}
			if err := createNew(out, pem, 0o600); err != nil {
				return err
			}
			id, _ := jami.CertIDs(chain[0])
			return a.print(map[string]string{"account": id.String(), "certificate": out}, func(w io.Writer) {
				fmt.Fprintf(w, "account\t%s\ncertificate\t%s\n", id, out)
			})
		},
	}
	from.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "write the certificate to this file, which must not be there")
	return cmd
}

func newCARevoke(a *app) *cobra.Command {
	var from caFlags
	cmd := &cobra.Command{
		Use: "revoke LIST CERTIFICATE...", Short: "Put accounts on the authority's revocation list",
		Long: `Put accounts on the authority's revocation list. LIST is the file of that list (DER); it is
made when there is none, and holds what it held before. Each CERTIFICATE is a PEM file with
one that the authority issued, such as "parley account show --certificates" prints. Give the list to the nodes that are to refuse those
accounts: "parley account crl LIST".`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if from.ca == "" {
				return usagef("give --ca CERT,KEY")
			}
			ca, err := a.readAuthority(from.ca, from.password)
			if err != nil {
				return err
			}
			var older []*x509.RevocationList
			der, err := readSmall(args[0])
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return err
			default:
				l, err := trust.ParseCRL(der, ca.Cert)
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				older = append(older, l)
			}
			var revoke []*x509.Certificate
			for _, path := range args[1:] {
				text, err := readSmall(path)
				if err != nil {
					return err
				}
				certs, err := trust.Certificates(text)
				if err != nil {
					return &codedError{exitRefused, fmt.Errorf("%s: %w", path, err)}
				}
				// What "account show --certificates" prints begins with a device's.
				i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return c.CheckSignatureFrom(ca.Cert) == nil && !c.Equal(ca.Cert) })
				if i < 0 {
					return &codedError{exitRefused, fmt.Errorf("%s: none of its certificates is one that the authority issued", path)}
				}
				revoke = append(revoke, certs[i])
			}
			der, err = jami.ExtendCRL(ca.Cert, ca.Key, time.Now(), revoke, older...)
			if err != nil {
				return err
			}
			if err := atomicfile.Write(args[0], der, 0o644); err != nil {
				return err
			}
			l, err := trust.ParseCRL(der, ca.Cert)
			if err != nil {
				return err
			}
			done := struct {
				List    string   `json:"list"`
				Number  *big.Int `json:"number"`
				Revoked int      `json:"revoked"`
			}{args[0], l.Number, len(l.RevokedCertificateEntries)}
			return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "list\t%s\nrevoked\t%d\n", done.List, done.Revoked) })
		},
	}
	from.add(cmd)
	return cmd
}

func newAccountCRL(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "crl LIST", Short: "Take a revocation list of the account's authority",
		Long: `Take a revocation list of an authority above the account, in DER ("parley ca revoke"). From
then on the node refuses the accounts that it names; where it names the node's own account,
the node says so and signs nothing more.`,
		Args: takes("LIST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			der, err := readSmall(args[0])
			if err != nil {
				return err
			}
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				acc, err := call(ctx, s, contract.AccountCRL, &contract.AuthorityList{CRL: der})
				if err != nil {
					return err
				}
				return a.print(acc, func(w io.Writer) { showAccount(w, acc) })
			})
		},
	}
}
