package names

import (
	"errors"
	"fmt"
)

// Code is the stable word of an [Error].
type Code string

// Error is why a request had no result. Compare with [errors.Is] and one of the
// values below.
type Error struct {
	Code   Code
	Detail string
	Cause  error
}

// The errors of this package. The two numbers are what stock Jami tells its users
// after a look-up and after a registration (dht-and-identity §5.2; 2 for a name that
// it refuses itself was seen with 13.7.0).
var (
	ErrInvalidName  = &Error{Code: "invalid_name"}                                   // 1, 2: not a name, not an id
	ErrNotFound     = &Error{Code: "not_found", Detail: "not registered"}            // 2, 4: nobody has the name, the account has none
	ErrTaken        = &Error{Code: "taken", Detail: "another account has this name"} // 3, 3
	ErrIncomplete   = &Error{Code: "incomplete"}                                     // 3, 5: the server misses something in the registration
	ErrBadSignature = &Error{Code: "bad_signature"}                                  // 3, 6: the server does not accept the signature
	ErrUnsupported  = &Error{Code: "unsupported"}                                    // 3, 7: not an RSA account
	ErrInvalidReply = &Error{Code: "invalid_reply"}                                  // 3, 4: the server said what can't be true
	ErrUnavailable  = &Error{Code: "unavailable"}                                    // 3, 4: unreachable, too slow, or out of order
)

func (e *Error) Error() string {
	s := "names: " + string(e.Code)
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

func (e *Error) because(cause error) *Error {
	return &Error{Code: e.Code, Cause: cause}
}

// LookupResult is the number that stock Jami gives to the end of a look-up.
func LookupResult(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrInvalidName):
		return 1
	case errors.Is(err, ErrNotFound):
		return 2
	}
	return 3
}

// RegistrationResult is the number that stock Jami gives to the end of a
// registration.
func RegistrationResult(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrInvalidName):
		return 2
	case errors.Is(err, ErrTaken):
		return 3
	case errors.Is(err, ErrIncomplete):
		return 5
	case errors.Is(err, ErrBadSignature):
		return 6
	case errors.Is(err, ErrUnsupported):
		return 7
	}
	return 4
}
