package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// sessionLife is how long a token is taken; a page that is longer in a room gets
// a new one each time it resumes.
const sessionLife = 24 * time.Hour

// maxSession bounds a token's length in bytes.
const maxSession = 256

// sessions makes and checks session tokens: base64url(room "." participant "."
// expiry) "." base64url(HMAC-SHA256 of what stands before). Nothing is kept, so
// a token outlives the process that made it.
type sessions struct{ key []byte }

// session is what a token names.
type session struct{ room, participant string }

func (s sessions) issue(v session, now time.Time) string {
	claim := base64.RawURLEncoding.EncodeToString([]byte(
		v.room + "." + v.participant + "." + strconv.FormatInt(now.Add(sessionLife).Unix(), 10)))
	return claim + "." + s.mac(claim)
}

func (s sessions) mac(claim string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte("parley session "))
	h.Write([]byte(claim))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// open returns what a token names, or false when it was not issued with this
// key or has expired.
func (s sessions) open(token string, now time.Time) (session, bool) {
	if len(token) > maxSession {
		return session{}, false
	}
	claim, mac, ok := strings.Cut(token, ".")
	if !ok || !hmac.Equal([]byte(mac), []byte(s.mac(claim))) {
		return session{}, false
	}
	text, err := base64.RawURLEncoding.DecodeString(claim)
	if err != nil {
		return session{}, false
	}
	parts := strings.Split(string(text), ".")
	if len(parts) != 3 || !validRoom(parts[0]) || !validID(parts[1]) {
		return session{}, false
	}
	until, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || now.Unix() >= until {
		return session{}, false
	}
	return session{parts[0], parts[1]}, true
}

// newID returns a participant id: 80 random bits as 16 of a-z and 2-7, a valid
// token of a subject.
func newID() string {
	var b [10]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// validRoom reports whether s is a room name: 1 to 64 of a-z, 0-9 and -. What
// it lets through is safe as a token of a subject and in a path.
func validRoom(s string) bool { return validWord(s, false) }

// validID reports whether s can be a participant's or a bot's id.
func validID(s string) bool { return validWord(s, true) }

func validWord(s string, wide bool) bool {
	if len(s) < 1 || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
		case wide && (c >= 'A' && c <= 'Z' || c == '_'):
		default:
			return false
		}
	}
	return true
}
