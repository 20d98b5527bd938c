package users

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a new entry costs: 64 MiB for about a fifth of a second (RFC 9106 §4, its
// second recommendation, with one lane as several logins share the cores).
const (
	hashTime   = 3
	hashMemory = 64 << 10 // KiB
	hashLanes  = 1
	hashSalt   = 16
	hashLen    = 32
)

// Bounds of an entry that others made.
const (
	maxHashTime   = 32
	maxHashMemory = 1 << 20
	maxHashLanes  = 16
)

// hash is an argon2id hash of a password.
type hash struct {
	time, memory uint32
	lanes        uint8
	salt, sum    []byte
}

// HashPassword makes an entry for a users' file, in the form that argon2's own tools
// write ($argon2id$v=19$m=…,t=…,p=…$salt$hash).
func HashPassword(password string) string {
	h := hash{time: hashTime, memory: hashMemory, lanes: hashLanes, salt: make([]byte, hashSalt)}
	rand.Read(h.salt) // never fails: crypto/rand ends the process instead
	h.sum = h.of(password, hashLen)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.lanes, b64.EncodeToString(h.salt), b64.EncodeToString(h.sum))
}

// parseHash reads an entry. Its text is a secret: it is in no error.
func parseHash(s string) (h hash, err error) {
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return hash{}, fmt.Errorf("not an argon2id hash of version %d; make one with \"parley jams user passwd\"", argon2.Version)
	}
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.lanes); err != nil || n != 3 ||
		f[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.lanes) {
		return hash{}, fmt.Errorf("the parameters of a hash are not m=…,t=…,p=…")
	}
	if h.time < 1 || h.time > maxHashTime || h.lanes < 1 || h.lanes > maxHashLanes || h.memory < 8*uint32(h.lanes) || h.memory > maxHashMemory {
		return hash{}, fmt.Errorf("the parameters of a hash are out of bounds (m to %d, t to %d, p to %d)", maxHashMemory, maxHashTime, maxHashLanes)
	}
	b64 := base64.RawStdEncoding.Strict()
	var err2 error
	h.salt, err = b64.DecodeString(f[4])
	h.sum, err2 = b64.DecodeString(f[5])
	if err != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64 {
		return hash{}, fmt.Errorf("salt or hash is not base64 of 8 to 64 and 16 to 64 bytes")
	}
	return h, nil
}

func (h *hash) of(password string, n uint32) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.lanes, n)
}

func (h *hash) is(password string) bool {
	return subtle.ConstantTimeCompare(h.of(password, uint32(len(h.sum))), h.sum) == 1
}

// nobody is compared where there is no such user, so that this takes as long.
var nobody = hash{time: hashTime, memory: hashMemory, lanes: hashLanes, salt: make([]byte, hashSalt), sum: make([]byte, hashLen)}
