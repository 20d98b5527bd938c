package srtp

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
)

// ctr encrypts or decrypts b with AES-CM from the counter block in h.iv.
func (h *half) ctr(b []byte) {
	for i := uint16(0); len(b) > 0; i++ {
		binary.BigEndian.PutUint16(h.iv[14:], i)
		h.block.Encrypt(h.stream[:], h.iv[:])
		n := subtle.XORBytes(b, b, h.stream[:min(aes.BlockSize, len(b))])
		b = b[n:]
	}
}

// setIV makes the AES-CM counter block: salt, SSRC and 48-bit index (RFC 3711
// §4.1.1).
func (h *half) setIV(ssrc uint32, index uint64) {
	h.iv = h.salt
	be := binary.BigEndian
	be.PutUint32(h.iv[4:], be.Uint32(h.iv[4:])^ssrc)
	be.PutUint32(h.iv[8:], be.Uint32(h.iv[8:])^uint32(index>>16))
	be.PutUint16(h.iv[12:], be.Uint16(h.iv[12:])^uint16(index))
}

// setNonce makes the GCM nonce 00 00 | SSRC | upper | lower, xor salt; SRTP puts
// ROC and sequence number there (RFC 7714 §8.1), SRTCP zeros and its index (§9.1).
func (h *half) setNonce(ssrc, upper uint32, lower uint16) {
	h.iv = h.salt
	be := binary.BigEndian
	be.PutUint32(h.iv[2:], be.Uint32(h.iv[2:])^ssrc)
	be.PutUint32(h.iv[6:], be.Uint32(h.iv[6:])^upper)
	be.PutUint16(h.iv[10:], be.Uint16(h.iv[10:])^lower)
}

// authenticate puts HMAC-SHA1 of b and word into h.sum.
func (h *half) authenticate(b []byte, word uint32) {
	binary.BigEndian.PutUint32(h.word[:], word)
	h.mac.Reset()
	h.mac.Write(b)
	h.mac.Write(h.word[:])
	h.mac.Sum(h.sum[:0])
}

// Out protects what one sender sends under one key. RTP and RTCP may run
// concurrently with each other, but neither with itself.
type Out struct{ rtp, rtcp *half }

// NewOut derives the session keys.
func NewOut(k Keys) (*Out, error) {
	rtp, rtcp, err := newHalves(k)
	if err != nil {
		return nil, err
	}
	return &Out{rtp, rtcp}, nil
}

// RTP protects the packet pkt[:n] in place and returns the new length. head is
// the length of the RTP header; roc is the roll-over counter of this packet, whose
// sequence number and SSRC are in the header. pkt must have room for n+16 bytes.
func (o *Out) RTP(pkt []byte, n, head int, roc uint32) int {
	h := o.rtp
	seq, ssrc := binary.BigEndian.Uint16(pkt[2:]), binary.BigEndian.Uint32(pkt[8:])
	if h.aead != nil {
		h.setNonce(ssrc, roc, seq)
		return head + len(h.aead.Seal(pkt[head:head], h.iv[:12], pkt[head:n], pkt[:head]))
	}
	h.setIV(ssrc, uint64(roc)<<16|uint64(seq))
	h.ctr(pkt[head:n])
	h.authenticate(pkt[:n], roc)
	return n + copy(pkt[n:n+h.tag], h.sum[:h.tag])
}

// RTCP protects the compound packet pkt[:n] in place under the 31-bit index and
// returns the new length. pkt must have room for n+[Overhead] bytes.
func (o *Out) RTCP(pkt []byte, n int, index uint32) int {
	h := o.rtcp
	be := binary.BigEndian
	ssrc := be.Uint32(pkt[4:])
	word := index | 1<<31
	if h.aead != nil {
		h.setNonce(ssrc, index>>16, uint16(index))
		copy(h.aad[:8], pkt[:8])
		be.PutUint32(h.aad[8:], word)
		end := 8 + len(h.aead.Seal(pkt[8:8], h.iv[:12], pkt[8:n], h.aad[:]))
		be.PutUint32(pkt[end:end+4], word)
		return end + 4
	}
	h.setIV(ssrc, uint64(index))
	h.ctr(pkt[8:n])
	be.PutUint32(pkt[n:n+4], word)
	h.authenticate(pkt[:n], word)
	return n + 4 + copy(pkt[n+4:n+4+h.tag], h.sum[:h.tag])
}
