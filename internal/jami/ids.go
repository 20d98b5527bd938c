package jami

import (
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// ErrID says that a text is not an id.
var ErrID = errors.New("not a Jami id")

// ID is a key id: SHA-1 of a public key, or any other key of the DHT.
type ID [sha1.Size]byte

// LongID is the SHA-256 of a public key.
type LongID [sha256.Size]byte

func (id ID) String() string     { return hex.EncodeToString(id[:]) }
func (id LongID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is all zero, which no key has.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads 40 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("%w: %d characters, want 40 hex digits", ErrID, len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrID, err)
	}
	return id, nil
}

// HashKey returns the DHT key of a text: its SHA-1.
func HashKey(text string) ID { return sha1.Sum([]byte(text)) }

// KeyID returns the key id of a public key in DER (SubjectPublicKeyInfo).
func KeyID(spki []byte) ID { return sha1.Sum(spki) }

// ParseLongID reads 64 hex digits.
func ParseLongID(s string) (LongID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(LongID{}) {
		return LongID{}, fmt.Errorf("long id %.70q: not 64 hex digits", s)
	}
	return LongID(b), nil
}

// MessageID is the number of a text as SIP and the bus have it: 16 hex digits (connect-and-calls
// §5.1).
func MessageID(n uint64) string { return fmt.Sprintf("%016x", n) }

// ParseMessageID reads up to 16 hex digits.
func ParseMessageID(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) > 16 {
		return 0, fmt.Errorf("id of a text %.30q: not up to 16 hex digits", s)
	}
	return n, nil
}

// KeyLongID returns the long id of a public key in DER.
func KeyLongID(spki []byte) LongID { return sha256.Sum256(spki) }

// PublicIDs returns both ids of a public key.
func PublicIDs(pub crypto.PublicKey) (ID, LongID, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ID{}, LongID{}, fmt.Errorf("public key: %w", err)
	}
	return KeyID(spki), KeyLongID(spki), nil
}

// CertIDs returns both ids of a certificate's key.
func CertIDs(c *x509.Certificate) (ID, LongID) {
	return KeyID(c.RawSubjectPublicKeyInfo), KeyLongID(c.RawSubjectPublicKeyInfo)
}

// InboxKey is where a device listens for trust requests, messages and device
// synchronisation (§3.3).
func InboxKey(device ID) ID { return HashKey("inbox:" + device.String()) }

// PeerKey is where a device listens for connection requests (§3.3).
func PeerKey(device ID) ID { return HashKey("peer:" + device.String()) }

// NodeID is the DHT node id of a device (§2).
func NodeID(device ID) ID { return HashKey("node:" + device.String()) }
