package trust

import (
	"crypto/x509"
	"fmt"
)

// Reason is why a chain is refused: a stable word for logs, tests and answers.
type Reason string

// The reasons, in the order in which the rules are looked at.
const (
	Malformed         Reason = "malformed"          // not PEM or DER certificates
	TooLarge          Reason = "too_large"          // more bytes or certificates than allowed
	BadSerial         Reason = "bad_serial"         // zero, or more than 20 octets
	NoIssuer          Reason = "no_issuer"          // a device alone
	OutOfOrder        Reason = "out_of_order"       // an issuer's name is not the next subject's
	MissingCA         Reason = "missing_ca"         // the last one did not sign itself
	WrongKeyType      Reason = "wrong_key_type"     // a key that Jami can't use in this place
	SmallKey          Reason = "small_key"          // RSA below 2,048 bits
	LargeKey          Reason = "large_key"          // RSA above 8,192 bits: costs too much to check
	SameKey           Reason = "same_key"           // one key in two places
	WeakSignature     Reason = "weak_signature"     // MD5 or SHA-1
	BadSignature      Reason = "bad_signature"      // not made by the issuer's key
	BadValidity       Reason = "bad_validity"       // ends before it begins
	NotYetValid       Reason = "not_yet_valid"      //
	Expired           Reason = "expired"            //
	NotCA             Reason = "not_a_ca"           // an issuer that is no CA
	MayNotSign        Reason = "may_not_sign"       // an issuer whose key usage lacks keyCertSign
	PathTooLong       Reason = "path_too_long"      // more certificates below a CA than it allows
	CriticalExtension Reason = "critical_extension" // critical and unknown
	UIDMismatch       Reason = "uid_mismatch"       // a UID that is not the key's id
	WrongAccount      Reason = "wrong_account"      // not the account that was expected
	WrongDevice       Reason = "wrong_device"       // not the device that was expected
	Revoked           Reason = "revoked"            //
	UnknownCA         Reason = "unknown_ca"         // not one of the organisation's roots
	Forbidden         Reason = "forbidden"          // anything else that X.509 forbids: name constraints, …
)

// Error is a refusal.
type Error struct {
	Reason Reason
	Place  string // "device", "account", "authority"; empty: the chain as a whole
	Why    string // for a person
}

func (e *Error) Error() string {
	if e.Place == "" {
		return fmt.Sprintf("certificate chain: %s (%s)", e.Why, e.Reason)
	}
	return fmt.Sprintf("%s certificate: %s (%s)", e.Place, e.Why, e.Reason)
}

// Is makes errors.Is compare by reason alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Place == "" && t.Why == ""
}

// place names what stands at i in a chain.
func place(i int) string {
	switch i {
	case 0:
		return "device"
	case 1:
		return "account"
	}
	return "authority"
}

func refuse(i int, r Reason, why string, args ...any) *Error {
	return &Error{Reason: r, Place: place(i), Why: fmt.Sprintf(why, args...)}
}

// who names a certificate to a person; names come from strangers and are cut.
func who(c *x509.Certificate) string { return fmt.Sprintf("%.64q", c.Subject.CommonName) }
