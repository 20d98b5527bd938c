package jams

import "fmt"

// Code is the stable word of an [Error].
type Code string

// Error is why a request had no result. Compare with [errors.Is] and one of the
// values below.
type Error struct {
	Code   Code
	Detail string
	Cause  error
}

// The errors of this package.
var (
	ErrInvalid        = &Error{Code: "invalid"}         // what the caller asks for can't be sent: a URL, a name, a key
	ErrBadCredentials = &Error{Code: "bad_credentials"} // user and password, or the device's certificate, are not accepted
	ErrForbidden      = &Error{Code: "forbidden"}       // known, and not allowed to
	ErrNotFound       = &Error{Code: "not_found"}       //
	ErrRefused        = &Error{Code: "refused"}         // the server refuses what was sent
	ErrLimited        = &Error{Code: "limited"}         // too many requests; later again
	ErrInvalidReply   = &Error{Code: "invalid_reply"}   // the server said what can't be true
	ErrUnavailable    = &Error{Code: "unavailable"}     // unreachable, too slow, or out of order
)

func (e *Error) Error() string {
	s := "jams: " + string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target has the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

func (e *Error) with(format string, args ...any) *Error {
	return &Error{Code: e.Code, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) because(cause error) *Error { return &Error{Code: e.Code, Cause: cause} }
