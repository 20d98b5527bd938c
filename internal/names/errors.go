package names

import (
	"errors"

	"github.com/parley-jami/parley/internal/coded"
)

// Error is why a request had no result. Compare with [errors.Is] and one of the
// values below.
type Error = coded.Error

// The errors of this package. The two numbers are what stock Jami tells its users
// after a look-up and after a registration (dht-and-identity §5.2; 2 for a name that
// it refuses itself was seen with 13.7.0).
var (
	ErrInvalidName  = &Error{Of: "names", Code: "invalid_name"}                                   // 1, 2: not a name, not an id
	ErrNotFound     = &Error{Of: "names", Code: "not_found", Detail: "not registered"}            // 2, 4: nobody has the name, the account has none
	ErrTaken        = &Error{Of: "names", Code: "taken", Detail: "another account has this name"} // 3, 3
	ErrIncomplete   = &Error{Of: "names", Code: "incomplete"}                                     // 3, 5: the server misses something in the registration
	ErrBadSignature = &Error{Of: "names", Code: "bad_signature"}                                  // 3, 6: the server does not accept the signature
	ErrUnsupported  = &Error{Of: "names", Code: "unsupported"}                                    // 3, 7: not an RSA account
	ErrInvalidReply = &Error{Of: "names", Code: "invalid_reply"}                                  // 3, 4: the server said what can't be true
	ErrUnavailable  = &Error{Of: "names", Code: "unavailable"}                                    // 3, 4: unreachable, too slow, or out of order
)

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
