package jams

import (
	"github.com/parley-jami/parley/internal/coded"
)

// Error is why a request had no result. Compare with [errors.Is] and one of the
// values below.
type Error = coded.Error

// The errors of this package.
var (
	ErrInvalid        = &Error{Of: "jams", Code: "invalid"}         // what the caller asks for can't be sent: a URL, a name, a key
	ErrBadCredentials = &Error{Of: "jams", Code: "bad_credentials"} // user and password, or the device's certificate, are not accepted
	ErrRevoked        = &Error{Of: "jams", Code: "revoked"}         // the device or its account is ended, for good
	ErrSigner         = &Error{Of: "jams", Code: "signer"}          // the device's key, which may be elsewhere, did not sign
	ErrForbidden      = &Error{Of: "jams", Code: "forbidden"}       // known, and not allowed to
	ErrNotFound       = &Error{Of: "jams", Code: "not_found"}       //
	ErrRefused        = &Error{Of: "jams", Code: "refused"}         // the server refuses what was sent
	ErrLimited        = &Error{Of: "jams", Code: "limited"}         // too many requests; later again
	ErrInvalidReply   = &Error{Of: "jams", Code: "invalid_reply"}   // the server said what can't be true
	ErrUnavailable    = &Error{Of: "jams", Code: "unavailable"}     // unreachable, too slow, or out of order
)
