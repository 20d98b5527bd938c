package contract

import "fmt"

// Error is the refusal of a command. Code is stable and meant for programs,
// Message says to a person what to do about it, Retry whether the same command
// may succeed later without anything being changed.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Retry   bool   `json:"retry"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Is makes errors.Is compare by code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// With returns a copy of e with a message of its own.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Message = fmt.Sprintf(format, args...)
	return &c
}

// The stable error codes. A service may answer with any of them.
var (
	ErrBadRequest   = &Error{Code: "bad_request", Message: "the request is malformed"}
	ErrNotFound     = &Error{Code: "not_found", Message: "there is no such thing"}
	ErrExists       = &Error{Code: "exists", Message: "it exists already"}
	ErrForbidden    = &Error{Code: "forbidden", Message: "your role does not allow this"}
	ErrPINRequired  = &Error{Code: "pin_required", Message: "this room asks for a PIN"}
	ErrPINWrong     = &Error{Code: "pin_wrong", Message: "the PIN is wrong", Retry: true}
	ErrSlowDown     = &Error{Code: "slow_down", Message: "too many tries; wait a little", Retry: true}
	ErrLocked       = &Error{Code: "locked", Message: "the room is locked; a moderator has to open it", Retry: true}
	ErrFull         = &Error{Code: "full", Message: "the room is full", Retry: true}
	ErrRendezvous   = &Error{Code: "rendezvous_off", Message: "this account does not take calls; switch rendezvous on"}
	ErrBusy         = &Error{Code: "busy", Message: "too much at once; try again", Retry: true}
	ErrUnavailable  = &Error{Code: "unavailable", Message: "a service of the node is not running; it is being restarted", Retry: true}
	ErrTimeout      = &Error{Code: "timeout", Message: "no answer in time", Retry: true}
	ErrGone         = &Error{Code: "gone", Message: "it has ended"}
	ErrNoCodec      = &Error{Code: "no_codec", Message: "no audio codec in common; the node speaks Opus, G.722, PCMU and PCMA"}
	ErrStale        = &Error{Code: "stale_epoch", Message: "somebody newer has taken over"}
	ErrVersion      = &Error{Code: "version", Message: "the two are of versions that do not understand each other"}
	ErrStorage      = &Error{Code: "storage", Message: "the data could not be written; look at the disk", Retry: true}
	ErrInternal     = &Error{Code: "internal", Message: "an error in the node; its log says more"}
	ErrStateDamaged = &Error{Code: "state_damaged", Message: "a state file is damaged"}
)
