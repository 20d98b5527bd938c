// Package ice is ICE as bytes (RFC 8445, RFC 8489): the checks of a browser or a Jami peer and
// their answers, and the checks that are sent to a Jami peer. It has no socket and no clock.
//
// A STUN message (RFC 8489 §5):
//
//	0      2      4                8                          20
//	| type | len  | magic 2112A442 | transaction id (12 bytes) | attributes…
//	attribute: type (2) | length (2) | value | padding to 4 bytes
package ice

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 8489 §14.5 names it
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

const (
	magic          = 0x2112A442
	headSize       = 20
	bindRequest    = 0x0001
	bindIndication = 0x0011
	bindSuccess    = 0x0101
	bindError      = 0x0111
	fingerprint    = 0x5354554e // RFC 8489 §14.7

	attrUsername     = 0x0006
	attrIntegrity    = 0x0008
	attrError        = 0x0009
	attrXORAddress   = 0x0020
	attrUseCandidate = 0x0025
	attrFingerprint  = 0x8028
	attrPriority     = 0x0024
	attrControlled   = 0x8029
	attrControlling  = 0x802a
)

// Indication reports whether a packet is a binding indication, by which a peer keeps its
// way open (RFC 8445 §11).
func Indication(b []byte) bool {
	return len(b) >= headSize && binary.BigEndian.Uint16(b) == bindIndication && binary.BigEndian.Uint32(b[4:]) == magic
}

// MaxResponse is the longest answer that Append and AppendConflict make.
const MaxResponse = headSize + 24 + 24 + 8

// Credentials are one side's ufrag and password (RFC 8445 §5.3). The password is
// secret.
type Credentials struct{ Ufrag, Pwd string }

// ice-char without "+/" (RFC 8839 §5.4), 64 of them so that a byte maps evenly.
const chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// NewCredentials makes random ones: 48 bits of ufrag, 144 of password.
func NewCredentials() Credentials {
	var b [32]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = chars[b[i]&63]
	}
	return Credentials{Ufrag: string(b[:8]), Pwd: string(b[8:])}
}

// Check is a parsed binding request; the slices point into the packet.
type Check struct {
	Local        []byte // our ufrag
	Remote       []byte // the peer's
	UseCandidate bool
	Controlled   bool // the peer claims the controlled role, which a lite agent has itself
	txid         [12]byte
	integrity    int // offset of MESSAGE-INTEGRITY
}

// Parse reads a binding request; false when it is something else, lacks what a
// check must have, or its fingerprint is wrong. Integrity is not checked yet.
func (c *Check) Parse(b []byte) bool {
	be := binary.BigEndian
	*c = Check{}
	if len(b) < headSize || be.Uint16(b) != bindRequest || be.Uint32(b[4:]) != magic ||
		int(be.Uint16(b[2:])) != len(b)-headSize || len(b)%4 != 0 {
		return false
	}
	copy(c.txid[:], b[8:20])
	for at := headSize; at < len(b); {
		if at+4 > len(b) {
			return false
		}
		typ, n := be.Uint16(b[at:]), int(be.Uint16(b[at+2:]))
		if at+4+n > len(b) {
			return false
		}
		v := b[at+4 : at+4+n]
		switch {
		case typ == attrFingerprint:
			if n != 4 || be.Uint32(v) != crc32.ChecksumIEEE(b[:at])^fingerprint || at+8 != len(b) {
				return false
			}
		case c.integrity != 0: // what follows integrity is not protected: ignored
		case typ == attrUsername:
			local, remote, ok := bytes.Cut(v, []byte{':'})
			if !ok || len(local) == 0 {
				return false
			}
			c.Local, c.Remote = local, remote
		case typ == attrUseCandidate:
			c.UseCandidate = true
		case typ == attrControlled:
			c.Controlled = true
		case typ == attrIntegrity:
			if n != sha1.Size {
				return false
			}
			c.integrity = at
		}
		at += 4 + (n+3)&^3
	}
	return c.integrity != 0 && c.Local != nil
}

// Authentic checks MESSAGE-INTEGRITY of the packet that Parse read against our
// password (short-term credentials, RFC 8489 §9.1).
func (c *Check) Authentic(b []byte, pwd string) bool { return authentic(b, c.integrity, pwd) }

func authentic(b []byte, integrity int, pwd string) bool {
	mac := hmac.New(sha1.New, []byte(pwd))
	var head [headSize]byte
	copy(head[:], b)
	// The length counts up to the end of MESSAGE-INTEGRITY (§14.5).
	binary.BigEndian.PutUint16(head[2:], uint16(integrity+4+sha1.Size-headSize))
	mac.Write(head[:])
	mac.Write(b[headSize:integrity])
	return hmac.Equal(mac.Sum(nil), b[integrity+4:integrity+4+sha1.Size])
}

// Append appends the success response for a check that came from addr.
func (c *Check) Append(dst []byte, addr netip.AddrPort, pwd string) []byte {
	be := binary.BigEndian
	start := len(dst)
	dst = head(dst, bindSuccess, c.txid)
	var key [16]byte // what an address is xored with: magic and transaction id
	be.PutUint32(key[:], magic)
	copy(key[4:], c.txid[:])
	ip := addr.Addr().Unmap()
	raw := ip.AsSlice()
	family := byte(1)
	if ip.Is6() {
		family = 2
	}
	dst = be.AppendUint16(dst, attrXORAddress)
	dst = be.AppendUint16(dst, uint16(4+len(raw)))
	dst = append(dst, 0, family)
	dst = be.AppendUint16(dst, addr.Port()^(magic>>16))
	for i, x := range raw {
		dst = append(dst, x^key[i])
	}
	return seal(dst, start, pwd)
}

// AppendConflict appends the error response 487, after which the peer takes the controlling
// role and checks again (RFC 8445 §7.2.5.1).
func (c *Check) AppendConflict(dst []byte, pwd string) []byte {
	start := len(dst)
	dst = head(dst, bindError, c.txid)
	const reason = "Role Conflict   " // padded with what the length leaves out
	dst = binary.BigEndian.AppendUint16(dst, attrError)
	dst = binary.BigEndian.AppendUint16(dst, 4+13)
	dst = append(append(dst, 0, 0, 4, 87), reason...)
	return seal(dst, start, pwd)
}

// head begins a message.
func head(dst []byte, typ uint16, txid [12]byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, typ)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, magic)
	return append(dst, txid[:]...)
}

// seal ends a message that begins at start with integrity and fingerprint.
func seal(dst []byte, start int, pwd string) []byte {
	be := binary.BigEndian
	be.PutUint16(dst[start+2:], uint16(len(dst)-start-headSize+24))
	mac := hmac.New(sha1.New, []byte(pwd))
	mac.Write(dst[start:])
	dst = be.AppendUint16(dst, attrIntegrity)
	dst = be.AppendUint16(dst, sha1.Size)
	dst = mac.Sum(dst)

	be.PutUint16(dst[start+2:], uint16(len(dst)-start-headSize+8))
	sum := crc32.ChecksumIEEE(dst[start:]) ^ fingerprint
	dst = be.AppendUint16(dst, attrFingerprint)
	dst = be.AppendUint16(dst, 4)
	return be.AppendUint32(dst, sum)
}
