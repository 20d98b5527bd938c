package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/logging"
	"github.com/parley-jami/parley/internal/supervise"
)

// How long the command line waits. A node that does not run is told of in less
// than a second; one that runs and is busy is waited for.
const (
	dialWait  = 800 * time.Millisecond
	localWait = 3 * time.Second // for a supervisor, and for the bus of a node that has one
	retryFor  = 3 * time.Second
	retryStep = 100 * time.Millisecond
)

// target is the node that a command means.
type target struct {
	cfg   *config.Config
	local *localStatus // nil when there is no supervisor
}

// find looks for the node of this command line. It needs no bus.
func (a *app) find(cmd *cobra.Command) (*target, error) {
	cfg, err := a.load(cmd)
	if err != nil {
		return nil, err
	}
	t := &target{cfg: cfg}
	t.local, err = askSupervisor(cmd.Context(), cfg.Data)
	switch {
	case err == nil && t.local.Node.Worker != "":
		n := t.local.Node
		return nil, &codedError{exitUnavailable, fmt.Errorf("on %s runs no node, but worker %s of the node at %s: ask on that node's machine; `parley worker list` there shows how it is here", cfg.Data, n.Worker, n.BusURL)}
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return t, nil
	case errors.Is(err, syscall.ENOTDIR):
		return nil, usagef("%s is no directory: data (--data, PARLEY_DATA) names the one of a node", cfg.Data)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s belongs to another user: run this as the user of the node: %w", cfg.Data, err)
	case cmd.Context().Err() != nil:
		return nil, err
	}
	return nil, contract.ErrUnavailable.With("the supervisor of the node on %s does not answer: %v", cfg.Data, err)
}

// askSupervisor asks who holds DATA/run/up.sock.
func askSupervisor(ctx context.Context, data string) (*localStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", supervise.UpSocket(data))
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://up/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	st := new(localStatus)
	if err := json.NewDecoder(resp.Body).Decode(st); err != nil {
		return nil, fmt.Errorf("supervisor's answer: %w", err)
	}
	return st, nil
}

// notRunning says what to do when there is no node.
func (t *target) notRunning() error {
	return &codedError{exitUnavailable, fmt.Errorf("no node is running on %s; start it with `parley up --data %s`, or name another one with --data", t.cfg.Data, t.cfg.Data)}
}

// dial connects to the bus of the node as the command line's user.
func (t *target) dial(ctx context.Context, a *app) (*bus.Conn, error) {
	url, wait := host.BusURL(t.cfg), dialWait
	if t.local != nil {
		url, wait = t.local.Node.BusURL, localWait
	}
	creds := host.CredsFile(t.cfg, "cli")
	if f, err := os.Open(creds); errors.Is(err, fs.ErrNotExist) && t.local == nil {
		return nil, t.notRunning()
	} else if errors.Is(err, fs.ErrNotExist) {
		return nil, contract.ErrUnavailable.With("the bus of the node has not started yet; try again")
	} else if err != nil {
		return nil, fmt.Errorf("credentials of the command line; run this as the user of the node: %w", err)
	} else if err := f.Close(); err != nil {
		return nil, fmt.Errorf("credentials of the command line: %w", err)
	}
	log := zap.NewNop()
	if a.verbose {
		var err error
		if log, err = logging.New(config.Log{Level: "debug", Format: logging.Text}, a.err); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	type result struct {
		conn *bus.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() { // a bus that hangs answers the context late; the process ends before it
		conn, err := bus.Connect(ctx, bus.Options{URL: url, Creds: creds, Name: "cli", Log: log})
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			return r.conn, nil
		}
	case <-ctx.Done():
	}
	if t.local == nil {
		return nil, t.notRunning()
	}
	return nil, contract.ErrUnavailable.With("the bus of the node (%s) does not answer within %s", url, wait)
}

// session is a bus connection that knows the account.
type session struct {
	*bus.Conn
	acc contract.Account
	key string // idempotency key of this command line
}

// open finds the node, connects and learns the account.
func (a *app) open(cmd *cobra.Command) (*session, error) {
	s, st, err := a.reach(cmd)
	if err != nil {
		return nil, err
	}
	if err := damaged(st); err != nil {
		s.Close()
		return nil, err
	}
	if st.State != "ready" {
		s.Close()
		return nil, contract.ErrUnavailable.With("the node has no account yet: %s", st.Message)
	}
	if s.acc, err = pick(st, a.account); err != nil {
		s.Close()
		return nil, err
	}
	s.SetAccount(s.acc.ID)
	return s, nil
}

// damaged says why the node's account cannot be used; nil: it can, or there is none yet.
func damaged(st *contract.IdentityState) error {
	if st.State != "damaged" {
		return nil
	}
	return contract.ErrStateDamaged.With("the node's account cannot be used: %s", st.Message)
}

// pick returns the account that is meant, by id or name; with neither the main one.
func pick(st *contract.IdentityState, want string) (contract.Account, error) {
	if want == "" {
		return st.Account, nil
	}
	var named []contract.Account
	for _, acc := range st.Accounts {
		if acc.ID == jamiID(want) {
			return acc, nil
		}
		if acc.Alias == want {
			named = append(named, acc)
		}
	}
	switch len(named) {
	case 0:
		return contract.Account{}, contract.ErrNotFound.With("the node has no account %q; \"parley account list\" lists them", want)
	case 1:
		return named[0], nil
	}
	return contract.Account{}, usagef("%d accounts have the name %q: use the id of one", len(named), want)
}

// jamiID is a Jami Id as people paste it, without the scheme of its URI.
func jamiID(s string) string {
	return strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(s), "jami:"), "ring:"))
}

// reach finds the node, connects and asks identity how it is.
func (a *app) reach(cmd *cobra.Command) (*session, *contract.IdentityState, error) {
	t, err := a.find(cmd)
	if err != nil {
		return nil, nil, err
	}
	conn, err := t.dial(cmd.Context(), a)
	if err != nil {
		return nil, nil, err
	}
	s := &session{Conn: conn, key: nuid.Next()}
	st, err := call(cmd.Context(), s, contract.IdentityGet, &contract.None{})
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return s, st, nil
}

// call sends a command and, while the service that serves it is being started
// again, repeats it; the idempotency key makes that harmless.
func call[Q, A any](ctx context.Context, s *session, cmd contract.Command[Q, A], q *Q, params ...string) (*A, error) {
	ctx = bus.WithKey(ctx, s.key)
	for began := time.Now(); ; {
		answer, err := bus.Call(ctx, s.Conn, cmd, q, params...)
		if err == nil || !errors.Is(err, contract.ErrUnavailable) || time.Since(began) > retryFor {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retryStep):
		}
	}
}
