package turn

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the form of the credentials says so; HMAC-SHA1 is not broken
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Bounds of a user name, in bytes: RFC 8489 §14.3 allows 508.
const maxUsername = 508

// MaxLife is the longest credential that [Open] takes, so that one with an absurd
// expiry can't come of a mistake elsewhere.
const MaxLife = 7 * 24 * time.Hour

var (
	// ErrForm says that a user name is not of the form above.
	ErrForm = errors.New("the user name is not EXPIRY:WHO")
	// ErrExpired says that the credential was good once.
	ErrExpired = errors.New("the credential has expired")
)

// Credential is a user name and its password.
type Credential struct{ Username, Password string }

// Issue makes a credential that is good for life.
func Issue(secret []byte, who string, life time.Duration, now time.Time) Credential {
	name := strconv.FormatInt(now.Add(life).Unix(), 10) + ":" + who
	return Credential{name, Password(secret, name)}
}

// Password is the password of a user name.
func Password(secret []byte, username string) string {
	h := hmac.New(sha1.New, secret)
	h.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// Open returns for whom a user name was made. With [ErrExpired] who is returned too,
// and for how long it has been expired.
func Open(username string, now time.Time) (who string, ago time.Duration, err error) {
	until, who, ok := strings.Cut(username, ":")
	if !ok || who == "" || len(username) > maxUsername {
		return "", 0, ErrForm
	}
	sec, err := strconv.ParseInt(until, 10, 64)
	switch {
	case err != nil, sec < 0, strconv.FormatInt(sec, 10) != until, sec > now.Add(MaxLife).Unix():
		return "", 0, ErrForm
	case now.Unix() >= sec:
		return who, now.Sub(time.Unix(sec, 0)), ErrExpired
	}
	return who, 0, nil
}
