package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/secret"
)

// archiveTime is for commands that stretch a password, about a second each time on an
// idle machine; the right to answer ends with it.
const archiveTime = 30 * time.Second

// readPassword reads the password that stands in a file, or with "-" on standard
// input, without showing it where that is a terminal. An empty path is no password.
func (a *app) readPassword(path, what string) ([]byte, error) {
	switch path {
	case "":
		return nil, nil
	case "-":
	default:
		return secret.File(path)
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.err, "%s: ", what)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		if err == nil && len(b) == 0 {
			err = secret.ErrEmpty
		}
		if err != nil {
			return nil, fmt.Errorf("password: %w", err)
		}
		return b, nil
	}
	b, err := secret.FirstLine(a.in)
	if err != nil {
		return nil, fmt.Errorf("password on standard input: %w", err)
	}
	return b, nil
}

// seal encrypts a secret so that only the identity process of the node reads it, and
// for that command alone.
func seal(ctx context.Context, s *session, command string, x *contract.Secret) (*contract.Sealed, error) {
	st, err := call(ctx, s, contract.IdentityGet, &contract.None{})
	if err != nil {
		return nil, err
	}
	return bus.Seal(st.SealKey, command, x)
}

// callSealed sends a sealed command.
func callSealed[A any](ctx context.Context, s *session, cmd contract.Command[contract.Sealed, A], x contract.Secret) (*A, error) {
	ctx, cancel := context.WithTimeout(ctx, archiveTime)
	defer cancel()
	q, err := seal(ctx, s, cmd.Name, &x)
	if err != nil {
		return nil, err
	}
	return call(ctx, s, cmd, q)
}

// newReplyKey makes the key with which an answer is sealed.
func newReplyKey() ([]byte, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return key, nil
}
