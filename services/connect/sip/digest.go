package sip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/icholy/digest"
)

// Realm of the digest challenges.
const Realm = "parley"

// nonceLife is how long a challenge may be answered.
const nonceLife = 60 * time.Second

// challenger makes nonces that need no memory: time and an HMAC over it and the
// Call-ID, so that an answer is worth nothing in another call.
type challenger struct {
	key [32]byte
	now func() time.Time
}

func newChallenger(now func() time.Time) (*challenger, error) {
	c := &challenger{now: now}
	if _, err := rand.Read(c.key[:]); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *challenger) nonce(callID string) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(c.now().UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(b[:], c.mac(b[:], callID)...))
}

func (c *challenger) mac(at []byte, callID string) []byte {
	m := hmac.New(sha256.New, c.key[:])
	m.Write(at)
	m.Write([]byte(callID))
	return m.Sum(nil)[:16]
}

// fresh reports whether the nonce is ours, for this call and not too old.
func (c *challenger) fresh(nonce, callID string) bool {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != 24 || !hmac.Equal(b[8:], c.mac(b[:8], callID)) {
		return false
	}
	age := c.now().Sub(time.Unix(0, int64(binary.BigEndian.Uint64(b))))
	return age >= 0 && age <= nonceLife
}

// challenges returns the WWW-Authenticate values, the stronger first (RFC 8760 §2.4).
func (c *challenger) challenges(callID string, stale bool) []string {
	out := make([]string, 0, 2)
	for _, alg := range []string{"SHA-256", "MD5"} {
		ch := digest.Challenge{Realm: Realm, Nonce: c.nonce(callID), Algorithm: alg, QOP: []string{"auth"}, Stale: stale}
		out = append(out, ch.String())
	}
	return out
}

// verdict of an Authorization header.
type verdict int

const (
	verdictNone  verdict = iota // no answer for us in it
	verdictStale                // right form, old nonce: ask again
	verdictWrong
	verdictRight
)

// check verifies an Authorization value for method; user must be the room.
func (c *challenger) check(value, method, callID, room, ha1md5, ha1sha string) verdict {
	cred, err := digest.ParseCredentials(value)
	if err != nil || cred.Realm != Realm {
		return verdictNone
	}
	if !c.fresh(cred.Nonce, callID) {
		return verdictStale
	}
	a1 := ha1md5
	switch strings.ToUpper(cred.Algorithm) {
	case "", "MD5":
	case "SHA-256":
		a1 = ha1sha
	default:
		return verdictWrong
	}
	if !strings.EqualFold(cred.Username, room) || a1 == "" {
		return verdictWrong
	}
	ch := &digest.Challenge{Realm: Realm, Nonce: cred.Nonce, Algorithm: cred.Algorithm}
	if cred.QOP != "" {
		if cred.QOP != "auth" {
			return verdictWrong
		}
		ch.QOP = []string{"auth"}
	}
	want, err := digest.Digest(ch, digest.Options{Method: method, URI: cred.URI, Count: cred.Nc, Cnonce: cred.Cnonce, Username: cred.Username, A1: a1})
	if err != nil || subtle.ConstantTimeCompare([]byte(want.Response), []byte(strings.ToLower(cred.Response))) != 1 {
		return verdictWrong
	}
	return verdictRight
}
