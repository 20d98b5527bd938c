package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

const (
	tokenLife  = time.Hour
	tokensMax  = 100_000
	tokensUser = 256 // of one user; the oldest go first
)

// token is what a bearer may do. The device is zero for a user.
type token struct {
	user   string
	device jami.LongID
	until  time.Time
}

func (t *token) isUser() bool { return t.device == jami.LongID{} }

// tokens are those that were given out, by the hash of each: who reads the memory of
// this process finds none. A restart ends them, whereupon clients log in again.
type tokens struct {
	mu sync.Mutex
	by map[[32]byte]token
	of map[string][][32]byte // by user, oldest first; may name some that are gone
}

func newTokens() *tokens {
	return &tokens{by: map[[32]byte]token{}, of: map[string][][32]byte{}}
}

func (s *tokens) add(t token, now time.Time) string {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails: crypto/rand ends the process instead
	text := base64.RawURLEncoding.EncodeToString(raw)
	h := sha256.Sum256([]byte(text))
	t.until = now.Add(tokenLife)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.by) >= tokensMax {
		for k, x := range s.by {
			if now.After(x.until) {
				delete(s.by, k)
			}
		}
		if len(s.by) >= tokensMax {
			clear(s.by) // all log in again
		}
		clear(s.of)
		for k, x := range s.by {
			s.of[x.user] = append(s.of[x.user], k)
		}
	}
	s.by[h] = t
	list := append(s.of[t.user], h)
	for len(list) > tokensUser {
		delete(s.by, list[0])
		list = list[1:]
	}
	s.of[t.user] = list
	return text
}

func (s *tokens) get(text string, now time.Time) (token, bool) {
	h := sha256.Sum256([]byte(text))
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.by[h]
	if ok && now.After(t.until) {
		delete(s.by, h)
		ok = false
	}
	return t, ok
}

func (s *tokens) drop(which func(token) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, t := range s.by {
		if which(t) {
			delete(s.by, k)
		}
	}
}
