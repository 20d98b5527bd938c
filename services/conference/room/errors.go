// SPDX-License-Identifier: Apache-2.0

package room

import "errors"

// Refusals of admission.
var (
	ErrPINRequired = errors.New("the room asks for a PIN")
	ErrPINWrong    = errors.New("the PIN is wrong")
	ErrLocked      = errors.New("the room is locked")
	ErrFull        = errors.New("the room is full")
	ErrRendezvous  = errors.New("the account takes no calls")
	ErrJoining     = errors.New("a join of the same participant is under way")
)

// Refusals of commands.
var (
	ErrNoMember  = errors.New("no such participant")
	ErrForbidden = errors.New("not allowed")
	ErrBad       = errors.New("malformed")
	ErrGone      = errors.New("it has ended")
)
