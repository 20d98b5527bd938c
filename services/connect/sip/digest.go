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

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

// Realm of the digest challenges.
const Realm = "parley"

// nonceLife is how long a challenge may be answered.
const nonceLife = 60 * time.Second

// challenger makes nonces that need no memory: time and an HMAC over it and what
// it is bound to, the Call-ID and the source, so that an answer is worth nothing in
// another call or from elsewhere.
type challenger struct {
	key        [32]byte
	algorithms []string // in the order in which they are offered
	now        func() time.Time
}

func newChallenger(sha256 bool, now func() time.Time) (*challenger, error) {
	c := &challenger{now: now, algorithms: []string{"MD5"}}
	if sha256 {
		c.algorithms = []string{"SHA-256", "MD5"} // the stronger first (RFC 8760 §2.4)
	}
	if _, err := rand.Read(c.key[:]); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *challenger) nonce(bound string) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(c.now().UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(b[:], c.mac(b[:], bound)...))
}

func (c *challenger) mac(at []byte, bound string) []byte {
	m := hmac.New(sha256.New, c.key[:])
	m.Write(at)
	m.Write([]byte(bound))
	return m.Sum(nil)[:16]
}

// fresh reports whether the nonce is ours, for this caller and not too old.
func (c *challenger) fresh(nonce, bound string) bool {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != 24 || !hmac.Equal(b[8:], c.mac(b[:8], bound)) {
		return false
	}
	age := c.now().Sub(time.Unix(0, int64(binary.BigEndian.Uint64(b))))
	return age >= 0 && age <= nonceLife
}

// challenges returns the WWW-Authenticate values.
func (c *challenger) challenges(bound string, stale bool) []string {
	out := make([]string, 0, len(c.algorithms))
	for _, alg := range c.algorithms {
		ch := digest.Challenge{Realm: Realm, Nonce: c.nonce(bound), Algorithm: alg, QOP: []string{"auth"}, Stale: stale}
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

// boundTo is what the nonces for a request are bound to.
func boundTo(req *sip.Request) string {
	return callID(req) + "\x00" + sourceKey(req.Source()).String()
}

// answers returns the Authorization values for our realm. It is false when there
// is more than one for an algorithm: no phone does that, each is a guess.
func answers(req *sip.Request) ([]*digest.Credentials, bool) {
	values := req.GetHeaders("Authorization")
	if len(values) > 8 { // for all realms
		return nil, false
	}
	var out []*digest.Credentials
	for _, h := range values {
		cred, err := digest.ParseCredentials(h.Value())
		if err != nil || cred.Realm != Realm {
			continue
		}
		for _, o := range out {
			if isSHA256(o) == isSHA256(cred) {
				return nil, false
			}
		}
		out = append(out, cred)
	}
	return out, true
}

func isSHA256(c *digest.Credentials) bool { return strings.EqualFold(c.Algorithm, "SHA-256") }

// check verifies credentials for method; user and uri must name the room.
func (c *challenger) check(cred *digest.Credentials, method, bound, room, ha1md5, ha1sha string) verdict {
	if !c.fresh(cred.Nonce, bound) {
		return verdictStale
	}
	var uri sip.Uri
	// A proxy may change the host, not the room.
	if err := sip.ParseUri(cred.URI, &uri); err != nil || !strings.EqualFold(uri.User, room) {
		return verdictWrong
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
