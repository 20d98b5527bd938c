package wire

import "encoding/binary"

// Kind is what the first bytes of a datagram say it is (RFC 7983 §7, RFC 5761
// §4):
//
//	first byte   kind
//	0..3         STUN
//	20..63       DTLS
//	128..191     RTP, or RTCP when the second byte is 192..223
//	192          a trunk between workers
//	others       junk (ZRTP, TURN channels, QUIC are not ours)
type Kind uint8

// The kinds.
const (
	Junk Kind = iota
	STUN
	DTLS
	RTP
	RTCP
	Trunk
)

// Classify tells the kind of a datagram from its first bytes and its least
// length; it does not look further.
func Classify(b []byte) Kind {
	if len(b) < 2 {
		return Junk
	}
	switch c := b[0]; {
	case c <= 3 && len(b) >= 20:
		return STUN
	case c >= 20 && c <= 63 && len(b) >= 13:
		return DTLS
	case c == 192 && len(b) >= 20:
		return Trunk
	case c >= 128 && c <= 191:
		if b[1] >= 192 && b[1] <= 223 {
			if len(b) >= 8 {
				return RTCP
			}
			return Junk
		}
		if len(b) >= 12 {
			return RTP
		}
	}
	return Junk
}

// Header is what the receive path needs of an RTP header (RFC 3550 §5.1).
type Header struct {
	PayloadType uint8
	Marker      bool
	Seq         uint16
	Timestamp   uint32
	SSRC        uint32
	Size        int    // bytes up to the payload
	Padding     bool   // the last byte of the payload counts padding
	Ext         []byte // extension elements, without their 4-byte head; nil: none
	TwoByte     bool   // Ext has two-byte heads (RFC 8285 §4.3)
}

// HeaderSize is the length of an RTP header without CSRC and extension.
const HeaderSize = 12

// Parse reads an RTP header; false when it is not one.
func (h *Header) Parse(b []byte) bool {
	if len(b) < HeaderSize || b[0]>>6 != 2 {
		return false
	}
	h.PayloadType, h.Marker = b[1]&0x7f, b[1]&0x80 != 0
	h.Seq = binary.BigEndian.Uint16(b[2:])
	h.Timestamp = binary.BigEndian.Uint32(b[4:])
	h.SSRC = binary.BigEndian.Uint32(b[8:])
	h.Padding = b[0]&0x20 != 0
	h.Ext, h.TwoByte = nil, false
	h.Size = HeaderSize + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < h.Size+4 {
			return false
		}
		profile, n := binary.BigEndian.Uint16(b[h.Size:]), 4*int(binary.BigEndian.Uint16(b[h.Size+2:]))
		start := h.Size + 4
		if len(b) < start+n {
			return false
		}
		switch {
		case profile == 0xBEDE:
			h.Ext = b[start : start+n]
		case profile&0xfff0 == 0x1000:
			h.Ext, h.TwoByte = b[start:start+n], true
		}
		h.Size = start + n
	}
	return len(b) >= h.Size
}

// Element returns the data of extension element id (RFC 8285), nil when it is
// not there.
func (h *Header) Element(id uint8) []byte {
	b := h.Ext
	for len(b) > 0 {
		if b[0] == 0 { // padding between elements
			b = b[1:]
			continue
		}
		var eid uint8
		var n, head int
		if h.TwoByte {
			if len(b) < 2 {
				return nil
			}
			eid, n, head = b[0], int(b[1]), 2
		} else {
			eid, n, head = b[0]>>4, int(b[0]&0x0f)+1, 1
			if eid == 15 { // RFC 8285 §4.2: stop here
				return nil
			}
		}
		if len(b) < head+n {
			return nil
		}
		if eid == id {
			return b[head : head+n]
		}
		b = b[head+n:]
	}
	return nil
}

// Level reads the audio level element id (RFC 6464): -dBov 0..127 and voice
// activity. ok is false when the packet has none.
func (h *Header) Level(id uint8) (level int8, voice, ok bool) {
	if id == 0 || h.Ext == nil {
		return -1, false, false
	}
	e := h.Element(id)
	if len(e) == 0 {
		return -1, false, false
	}
	return int8(e[0] & 0x7f), e[0]&0x80 != 0, true
}

// Unpad cuts RTP padding off a decrypted payload; false when the count is
// impossible.
func Unpad(payload []byte) ([]byte, bool) {
	if len(payload) == 0 {
		return nil, false
	}
	n := int(payload[len(payload)-1])
	if n == 0 || n > len(payload) {
		return nil, false
	}
	return payload[:len(payload)-n], true
}

// PutHeader writes a header without CSRC and extension into b.
func PutHeader(b []byte, pt uint8, marker bool, seq uint16, ts, ssrc uint32) {
	_ = b[HeaderSize-1]
	b[0] = 0x80
	b[1] = pt & 0x7f
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
}
