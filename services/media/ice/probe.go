package ice

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 8489 §14.5 names it
	"encoding/binary"
)

// MaxRequest is the longest check that Probe.Append makes, of a user fragment of 256 bytes.
const MaxRequest = headSize + 4 + 268 + 8 + 12 + 4 + 24 + 8

// Probe is a check of ours (RFC 8445 §7.2): it claims the controlling role, with the highest
// tie-breaker that there is, and nominates.
type Probe struct {
	TxID      [12]byte
	Component int // 1 or 2
}

// NewProbe makes one with a random transaction id.
func NewProbe(component int) Probe {
	p := Probe{Component: component}
	rand.Read(p.TxID[:])
	return p
}

// Append appends the request. user is "theirs:ours", pwd the far end's.
func (p *Probe) Append(dst []byte, user, pwd string) []byte {
	be := binary.BigEndian
	start := len(dst)
	dst = head(dst, bindRequest, p.TxID)
	dst = be.AppendUint16(dst, attrUsername)
	dst = be.AppendUint16(dst, uint16(len(user)))
	dst = append(dst, user...)
	for len(dst)&3 != start&3 {
		dst = append(dst, 0)
	}
	dst = be.AppendUint16(dst, attrPriority)
	dst = be.AppendUint16(dst, 4)
	dst = be.AppendUint32(dst, 110<<24|65535<<8|uint32(256-p.Component)) // peer-reflexive (§7.1.1)
	dst = be.AppendUint16(dst, attrControlling)
	dst = be.AppendUint16(dst, 8)
	dst = be.AppendUint64(dst, 1<<64-1)
	dst = be.AppendUint16(dst, attrUseCandidate)
	dst = be.AppendUint16(dst, 0)
	return seal(dst, start, pwd)
}

// Answered returns the transaction id of a success response; false when it is something else.
func Answered(b []byte) (txid [12]byte, ok bool) {
	if len(b) < headSize || binary.BigEndian.Uint16(b) != bindSuccess || binary.BigEndian.Uint32(b[4:]) != magic {
		return txid, false
	}
	copy(txid[:], b[8:])
	return txid, true
}

// AuthenticAnswer checks the form and the MESSAGE-INTEGRITY of a response against the far end's
// password.
func AuthenticAnswer(b []byte, pwd string) bool {
	be := binary.BigEndian
	if len(b) < headSize || int(be.Uint16(b[2:])) != len(b)-headSize || len(b)%4 != 0 {
		return false
	}
	for at := headSize; at+4 <= len(b); {
		typ, n := be.Uint16(b[at:]), int(be.Uint16(b[at+2:]))
		if at+4+n > len(b) {
			return false
		}
		if typ == attrIntegrity {
			return n == sha1.Size && authentic(b, at, pwd)
		}
		at += 4 + (n+3)&^3
	}
	return false
}
