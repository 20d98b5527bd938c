// Package srtp protects and opens RTP and RTCP packets in place, without
// allocating: RFC 3711 with AES-CM and HMAC-SHA1, RFC 7714 with AES-GCM.
//
// It keeps no state per packet beyond the replay windows. The sender gives the
// 48-bit index itself (roll-over counter and sequence number), so that a process
// that takes over from a dead one can go on well ahead of it: an index must never
// be used twice with one key.
//
//	SRTP     header | encrypted payload        | tag (10, 4 or, for GCM, 16 bytes)
//	SRTCP    8 bytes | encrypted rest | E+index | tag          (AES-CM)
//	SRTCP    8 bytes | encrypted rest | tag     | E+index      (GCM)
package srtp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 3711 names it; HMAC does not need collision resistance
	"errors"
	"fmt"
	"hash"
)

// Profile is a protection profile; the values are those of use_srtp (RFC 5764
// §4.1.2, RFC 7714 §14.2).
type Profile uint16

// The profiles.
const (
	CM80 Profile = 0x0001 // AES128_CM_HMAC_SHA1_80
	CM32 Profile = 0x0002 // AES128_CM_HMAC_SHA1_32
	GCM  Profile = 0x0007 // AEAD_AES_128_GCM
)

// Overhead is the most bytes that protection adds to a packet (SRTCP in GCM).
const Overhead = 16 + 4

// KeyLen is the length of the master key of every profile here.
const KeyLen = 16

// Errors of opening a packet. All mean: drop it and count it.
var (
	ErrShort  = errors.New("srtp: packet too short")
	ErrAuth   = errors.New("srtp: authentication failed")
	ErrReplay = errors.New("srtp: replayed or too old")
	ErrClear  = errors.New("srtp: not encrypted")
)

// SaltLen returns the length of the master salt, 0 for a profile that is not ours.
func (p Profile) SaltLen() int {
	switch p {
	case CM80, CM32:
		return 14
	case GCM:
		return 12
	}
	return 0
}

func (p Profile) String() string {
	switch p {
	case CM80:
		return "AES_CM_128_HMAC_SHA1_80"
	case CM32:
		return "AES_CM_128_HMAC_SHA1_32"
	case GCM:
		return "AEAD_AES_128_GCM"
	}
	return "none"
}

func (p Profile) tagLen() int {
	switch p {
	case CM80:
		return 10
	case CM32:
		return 4
	}
	return 16
}

// Keys are the master key and salt of one direction. They are secret.
type Keys struct {
	Profile Profile
	Key     []byte
	Salt    []byte
}

// String keeps keys out of logs.
func (k Keys) String() string { return k.Profile.String() }

// Valid reports whether the lengths fit the profile.
func (k Keys) Valid() bool {
	return k.Profile.SaltLen() != 0 && len(k.Key) == KeyLen && len(k.Salt) == k.Profile.SaltLen()
}

// Equal reports whether both are the same keys.
func (k Keys) Equal(o Keys) bool {
	return k.Profile == o.Profile && bytes.Equal(k.Key, o.Key) && bytes.Equal(k.Salt, o.Salt)
}

// Labels of the key derivation (RFC 3711 §4.3.2).
const (
	labelRTPKey, labelRTPAuth, labelRTPSalt    = 0, 1, 2
	labelRTCPKey, labelRTCPAuth, labelRTCPSalt = 3, 4, 5
)

// derive is the AES-CM PRF of RFC 3711 §4.3.3 with a key derivation rate of 0.
func derive(block cipher.Block, salt []byte, label byte, n int) []byte {
	var x, out [aes.BlockSize]byte
	copy(x[:], salt)
	x[7] ^= label
	var key []byte
	for i := 0; len(key) < n; i++ {
		x[15] = byte(i) // at most two blocks
		block.Encrypt(out[:], x[:])
		key = append(key, out[:]...)
	}
	return key[:n]
}

// half holds the session keys of RTP or of RTCP in one direction and the
// scratch memory of its packets; it is not safe for concurrent use.
type half struct {
	tag   int
	block cipher.Block // CM
	mac   hash.Hash    // CM
	aead  cipher.AEAD  // GCM
	salt  [aes.BlockSize]byte

	iv, stream [aes.BlockSize]byte
	sum        [sha1.Size]byte
	word       [4]byte
	aad        [12]byte
}

func newHalves(k Keys) (rtp, rtcp *half, err error) {
	if !k.Valid() {
		return nil, nil, fmt.Errorf("srtp: key lengths %d and %d do not fit %s", len(k.Key), len(k.Salt), k.Profile)
	}
	master, err := aes.NewCipher(k.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("srtp: %w", err)
	}
	make1 := func(key, auth, salt byte, tag int) (*half, error) {
		b, err := aes.NewCipher(derive(master, k.Salt, key, KeyLen))
		if err != nil {
			return nil, fmt.Errorf("srtp: %w", err)
		}
		h := &half{tag: tag}
		copy(h.salt[:], derive(master, k.Salt, salt, k.Profile.SaltLen()))
		if k.Profile == GCM {
			if h.aead, err = cipher.NewGCM(b); err != nil {
				return nil, fmt.Errorf("srtp: %w", err)
			}
			return h, nil
		}
		h.block = b
		h.mac = hmac.New(sha1.New, derive(master, k.Salt, auth, sha1.Size))
		return h, nil
	}
	if rtp, err = make1(labelRTPKey, labelRTPAuth, labelRTPSalt, k.Profile.tagLen()); err != nil {
		return nil, nil, err
	}
	rtcpTag := k.Profile.tagLen()
	if k.Profile == CM32 {
		rtcpTag = 10 // RFC 4568 §6.2.2: SRTCP keeps the long tag
	}
	if rtcp, err = make1(labelRTCPKey, labelRTCPAuth, labelRTCPSalt, rtcpTag); err != nil {
		return nil, nil, err
	}
	return rtp, rtcp, nil
}
