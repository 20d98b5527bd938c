// Package tls13 protects the records of TLS 1.3 (RFC 8446 §5) from the traffic secrets of a handshake
// that crypto/tls has made. What it needs to go on is a secret and a number, which may be kept: crypto/tls
// gives its own state to nobody.
//
// A record is
//
//	type     byte    23, whatever is in it
//	version  uint16  0x0303
//	length   uint16  of what follows, at most 2^14+256
//	sealed   the plaintext, its type, and zeros; then the tag
package tls13

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// Types of what is in a record.
const (
	Alert     = 21
	Handshake = 22
	Data      = 23
)

// Sizes in bytes.
const (
	Header       = 5
	MaxPlaintext = 1 << 14
	MaxSealed    = MaxPlaintext + 256
	MaxSecret    = sha512.Size384
	// Overhead is what a record is longer than what is in it, where nothing is padded.
	Overhead = Header + 1 + 16
)

// MaxRecords is how many records one key may seal: 2^24.5 with AES-GCM (RFC 8446 §5.5). More ask for
// the next key.
const MaxRecords = 1 << 24

// Errors of records.
var (
	ErrRecord = errors.New("not a record of TLS 1.3")
	ErrTag    = errors.New("a record that was not sealed with this key")
	ErrSuite  = errors.New("not a cipher suite of TLS 1.3")
)

// suites are those of RFC 8446 §B.4 that crypto/tls has.
var suites = map[uint16]struct {
	hash func() hash.Hash
	size int // of a secret
	key  int
	aead func(key []byte) (cipher.AEAD, error)
}{
	tls.TLS_AES_128_GCM_SHA256:       {sha256.New, sha256.Size, 16, gcm},
	tls.TLS_AES_256_GCM_SHA384:       {sha512.New384, sha512.Size384, 32, gcm},
	tls.TLS_CHACHA20_POLY1305_SHA256: {sha256.New, sha256.Size, chacha20poly1305.KeySize, chacha20poly1305.New},
}

func gcm(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// SecretSize is the length of a suite's secrets in bytes; 0: there is no such suite.
func SecretSize(suite uint16) int { return suites[suite].size }

// Key seals or opens the records of one direction, in order. It is for one goroutine at a time.
type Key struct {
	suite  uint16
	secret []byte
	aead   cipher.AEAD
	iv     [12]byte
	seq    uint64
}

// NewKey returns the key of a traffic secret, for the record of that number.
func NewKey(suite uint16, secret []byte, seq uint64) (*Key, error) {
	s, ok := suites[suite]
	if !ok || len(secret) != s.size {
		return nil, fmt.Errorf("%w: %#x with a secret of %d bytes", ErrSuite, suite, len(secret))
	}
	k := &Key{suite: suite, secret: append([]byte(nil), secret...), seq: seq}
	key, err := expand(s.hash, secret, "key", s.key)
	if err != nil {
		return nil, err
	}
	iv, err := expand(s.hash, secret, "iv", len(k.iv))
	if err != nil {
		return nil, err
	}
	copy(k.iv[:], iv)
	k.aead, err = s.aead(key)
	return k, err
}

// expand is HKDF-Expand-Label with no context (RFC 8446 §7.1).
func expand(h func() hash.Hash, secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(append(info, byte(len(label))), label...), 0)
	return hkdf.Expand(h, secret, string(info), n)
}

// Next is the key after a KeyUpdate (RFC 8446 §7.2).
func (k *Key) Next() (*Key, error) {
	s := suites[k.suite]
	next, err := expand(s.hash, k.secret, "traffic upd", s.size)
	if err != nil {
		return nil, err
	}
	return NewKey(k.suite, next, 0)
}

// Secret is what the key was made from; it is not to be changed.
func (k *Key) Secret() []byte { return k.secret }

// Seq is the number of the next record.
func (k *Key) Seq() uint64 { return k.seq }

func (k *Key) nonce() (n [12]byte) {
	n = k.iv
	for i := range 8 {
		n[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	return n
}

// Seal appends the record of a plaintext of at most [MaxPlaintext] bytes.
func (k *Key) Seal(dst []byte, typ byte, plain []byte) []byte {
	at := len(dst)
	n := len(plain) + Overhead - Header
	dst = slices.Grow(dst, Header+n) // it is sealed in place
	dst = append(dst, Data, 3, 3, byte(n>>8), byte(n))
	dst = append(append(dst, plain...), typ)
	nonce := k.nonce()
	body := dst[at+Header:]
	k.seq++
	return dst[:at+Header+len(k.aead.Seal(body[:0], nonce[:], body, dst[at:at+Header]))]
}

// Length is how long a record is, header and all, that begins with head; an error if none does.
func Length(head [Header]byte) (int, error) {
	n := int(binary.BigEndian.Uint16(head[3:]))
	if head[0] < 20 || head[0] > 23 || head[1] != 3 || n == 0 || n > MaxSealed {
		return 0, fmt.Errorf("%w: it begins with %x", ErrRecord, head)
	}
	return Header + n, nil
}

// Open opens a whole record in place.
func (k *Key) Open(record []byte) (typ byte, plain []byte, err error) {
	if len(record) < Header+k.aead.Overhead()+1 || record[0] != Data {
		return 0, nil, ErrRecord
	}
	nonce := k.nonce()
	p, err := k.aead.Open(record[Header:Header], nonce[:], record[Header:], record[:Header])
	if err != nil {
		return 0, nil, ErrTag
	}
	for len(p) > 0 && p[len(p)-1] == 0 {
		p = p[:len(p)-1]
	}
	if len(p) == 0 || len(p) > MaxPlaintext+1 {
		return 0, nil, ErrRecord
	}
	k.seq++
	return p[len(p)-1], p[:len(p)-1], nil
}
