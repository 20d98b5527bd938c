package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/supervise"
)

// Exit codes. Scripts rely on them; exitHelp explains them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitUnavailable = 3
	exitRefused     = 4
	exitNotFound    = 5
)

const exitHelp = `Every command ends with one of these codes; errors are told on standard error,
with --json as one object: {"code","message","retry"}.

  0  done
  1  an error that is none of the following, such as a full disk
  2  the command line or the configuration is wrong
  3  no node is running there, or a part of it is away or does not answer in time;
     the same command may succeed later ("parley status" shows what there is); or
     the name server, the node that was pinged, or who was called does not answer
  4  refused: a right is missing, the PIN or the password is wrong, the room is locked
     or full, the call is declined, the name is taken, what would be written is there already, or a node runs
     where none may
  5  there is no such room, participant, bot, device, contact, account, name or value
`

// exitError carries its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*codedError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*supervise.InUseError](err); ok {
		return exitRefused
	}
	e, ok := errors.AsType[*contract.Error](err)
	if !ok {
		return exitError
	}
	for code, list := range map[int][]*contract.Error{
		exitUsage:       {contract.ErrBadRequest},
		exitUnavailable: {contract.ErrUnavailable, contract.ErrTimeout, contract.ErrBusy, contract.ErrStale, contract.ErrUnreachable, contract.ErrNoAnswer},
		exitRefused: {contract.ErrForbidden, contract.ErrPINRequired, contract.ErrPINWrong, contract.ErrSlowDown,
			contract.ErrLocked, contract.ErrFull, contract.ErrRendezvous, contract.ErrExists, contract.ErrDeclined, contract.ErrVersion},
		exitNotFound: {contract.ErrNotFound, contract.ErrGone},
	} {
		for _, want := range list {
			if e.Is(want) {
				return code
			}
		}
	}
	return exitError
}

// asRefusal returns what --json tells of err. A code of the bus stays as it is.
func asRefusal(err error) *contract.Error {
	r := &contract.Error{Code: "error", Message: err.Error()}
	if e, ok := errors.AsType[*contract.Error](err); ok {
		r.Code, r.Retry = e.Code, e.Retry
		if e.Error() == err.Error() {
			r.Message = e.Message
		}
		return r
	}
	if e, ok := errors.AsType[*names.Error](err); ok {
		r.Code = string(e.Code)
	}
	switch code := exitCode(err); {
	case code == exitUnavailable:
		r.Code, r.Retry = contract.ErrUnavailable.Code, true
	case r.Code != "error":
	case code == exitUsage:
		r.Code = contract.ErrBadRequest.Code
	case code == exitNotFound:
		r.Code = contract.ErrNotFound.Code
	}
	return r
}

// newExitCodes is a help topic: `parley help exit-codes`.
func newExitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "The exit codes of every command", Long: exitHelp}
}
