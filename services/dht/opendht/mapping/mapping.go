// Package mapping says what a value of the overlay is in OpenDHT, for every overlay whose
// network is OpenDHT's.
//
// OpenDHT's values have an owner only when they are signed, and only signed ones can be
// replaced. So a value is put in one of three forms:
//
//   - Data is a packed OpenDHT value (dht-and-identity §1.4), signed, encrypted or plain:
//     it travels as it is, under Value.ID and with the type that it shows, which is 0 when
//     it is encrypted. Announcements of devices, trust requests and
//     connection requests are put so.
//   - Type 8, a certificate: a plain value with Data in it, under Value.ID. Nodes accept
//     it for its key alone, and a newer one of the same key in its place (§2).
//   - All else: a value of Type and Data that is signed with the node's key. Its user
//     type is "parley." and Value.ID in decimal; the id on the wire is the first 8 bytes
//     of SHA-256("parley." | key id of the signer | Value.ID as 8 bytes), so that writers
//     don't take one another's ids. A revocation list (§3.7) is put so: stock nodes read
//     its data as they do from a plain value.
//
// Reading is the reverse. A value that a node of ours signed has its Type, Data and ID,
// and the key id of its signer as Writer. Any other signed value is returned packed, its
// Writer the key id of the signer; an encrypted one is returned packed, with no Writer;
// a plain one as its Type and Data, with no Writer. Signatures that don't verify are
// dropped.
//
// Cancel replaces a value of the third form by one without data whose user type ends in
// ".gone", which readers of ours leave out; the other forms end with their lifetime
// where they are, as in OpenDHT. Values that are read have no age on the wire: Expires
// is a lifetime from now at most.
package mapping

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// User types of values that a node of ours signed.
const (
	userType = "parley."
	goneType = ".gone"
)

// TypeCertificate is the type of values that hold a certificate (§1.7).
const TypeCertificate = 8

// Form is how a value of the overlay is put.
type Form uint8

// The forms.
const (
	Signed Form = iota // by this node
	Packed             // as it is
	Plain
)

// FormOf finds it. For Packed it returns the value, whose id may be 0.
func FormOf(v *overlay.Value) (Form, *jami.Value) {
	if p, err := jami.ParseValue(v.Data); err == nil {
		return Packed, p
	}
	if v.Type == TypeCertificate {
		return Plain, nil
	}
	return Signed, nil
}

// WireID is the id of a value that a writer signed.
func WireID(writer jami.ID, id uint64) uint64 {
	b := append([]byte(userType), writer[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, id))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// Signer makes values of the third form.
type Signer struct {
	key *rsa.PrivateKey
	ID  jami.ID // of the key; the Writer of what it signs
}

// NewSigner makes one of a node's key.
func NewSigner(k *rsa.PrivateKey) (Signer, error) {
	id, _, err := jami.PublicIDs(&k.PublicKey)
	if err != nil {
		return Signer{}, fmt.Errorf("node key: %w", err)
	}
	return Signer{k, id}, nil
}

// Sign makes one; gone makes the one that cancels it.
func (s *Signer) Sign(v *overlay.Value, seq uint16, gone bool) (*jami.Value, error) {
	x := jami.Value{ID: WireID(s.ID, v.ID), Seq: seq, Type: v.Type, Data: v.Data, UserType: userType + strconv.FormatUint(v.ID, 10)}
	if gone {
		x.Data, x.UserType = nil, x.UserType+goneType
	}
	if err := x.Sign(s.key); err != nil {
		return nil, fmt.Errorf("put: %w", err)
	}
	return &x, nil
}

// Found is what a value on the wire is in the overlay.
type Found struct {
	overlay.Value
	Seq  uint16
	Gone bool
}

// Read turns a value around. packed is its smallest form; its signature is known to be
// good.
func Read(key overlay.Key, v *jami.Value, packed []byte, now time.Time) Found {
	f := Found{Value: overlay.Value{Key: key, ID: v.ID, Type: v.Type, Expires: now.Add(overlay.Lifetime(v.Type)), Packed: packed}}
	switch {
	case v.Encrypted():
		f.Data = packed
	case !v.Signed():
		f.Data = v.Data
	default:
		writer := v.Signer()
		f.Writer, f.Seq, f.Data = writer.String(), v.Seq, packed
		text, ok := strings.CutPrefix(v.UserType, userType)
		text, gone := strings.CutSuffix(text, goneType)
		id, err := strconv.ParseUint(text, 10, 64)
		if ok && err == nil && v.ID == WireID(writer, id) {
			f.ID, f.Data, f.Gone = id, v.Data, gone
		}
	}
	return f
}

// CertificateOf reports whether data is a chain whose leaf has the key as its id (§2);
// newer nodes also put it at the hash of the long id.
func CertificateOf(key jami.ID, data []byte) bool {
	pem, err := jami.ParseBin(data)
	if err != nil {
		pem = data
	}
	certs, err := jami.ParseCerts(pem)
	if err != nil {
		return false
	}
	short, long := jami.CertIDs(certs[0])
	return short == key || jami.HashKey(string(long[:])) == key
}
