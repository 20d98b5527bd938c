package srtp

import (
	"crypto/hmac"
	"encoding/binary"
)

// maxStreams bounds the senders told apart under one key: a browser that starts
// its track again comes with a new SSRC. The one not heard for longest gives way.
const maxStreams = 4

// stream is the replay state of one SSRC (RFC 3711 §3.3).
type stream struct {
	ssrc   uint32
	index  uint64 // highest index that was authentic
	window uint64 // bit i: index-i was seen
	used   uint64 // In.clock at the last packet
}

// In opens what one peer sends under one key. It belongs to one goroutine.
type In struct {
	rtp, rtcp *half
	streams   [maxStreams]stream
	n         int
	clock     uint64

	rtcpIndex  uint32
	rtcpWindow uint64
}

// NewIn derives the session keys.
func NewIn(k Keys) (*In, error) {
	rtp, rtcp, err := newHalves(k)
	if err != nil {
		return nil, err
	}
	return &In{rtp: rtp, rtcp: rtcp}, nil
}

// Resume sets where a stream was: everything up to the index counts as seen.
func (in *In) Resume(ssrc uint32, index uint64) {
	in.streams[0] = stream{ssrc: ssrc, index: index, window: ^uint64(0)}
	in.n = 1
}

// find returns the state of ssrc, or a fresh one that is not kept yet.
func (in *In) find(ssrc uint32) (s *stream, known bool) {
	oldest := &in.streams[0]
	for i := range in.streams[:in.n] {
		s := &in.streams[i]
		if s.ssrc == ssrc {
			return s, true
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	if in.n < maxStreams {
		return &in.streams[in.n], false
	}
	return oldest, false
}

// guess returns the index that seq most likely has (RFC 3711 §3.3.1).
func (s *stream) guess(seq uint16) uint64 {
	roc := s.index >> 16
	switch d := int(seq) - int(uint16(s.index)); {
	case d > 1<<15 && roc > 0:
		roc--
	case d < -(1 << 15):
		roc++
	}
	return roc<<16 | uint64(seq)
}

// replayed tells whether index was seen or is too old to know.
func replayed(index, highest, window uint64) bool {
	if index > highest {
		return false
	}
	d := highest - index
	return d >= 64 || window&(1<<d) != 0
}

// accept marks index as seen.
func accept(index uint64, highest, window *uint64) {
	if index > *highest {
		*window = *window<<(index-*highest) | 1 // a shift of 64 or more clears it
		*highest = index
		return
	}
	*window |= 1 << (*highest - index)
}

// RTP opens a packet in place: pkt is the whole datagram, head the length of its
// header. It returns the payload, within pkt, and the packet's index.
func (in *In) RTP(pkt []byte, head int) (payload []byte, index uint64, err error) {
	h := in.rtp
	if len(pkt) < head+h.tag || head < 12 {
		return nil, 0, ErrShort
	}
	seq, ssrc := binary.BigEndian.Uint16(pkt[2:]), binary.BigEndian.Uint32(pkt[8:])
	s, known := in.find(ssrc)
	if known {
		index = s.guess(seq)
		if replayed(index, s.index, s.window) {
			return nil, 0, ErrReplay
		}
	} else {
		index = uint64(seq)
	}
	roc := uint32(index >> 16)
	if h.aead != nil {
		h.setNonce(ssrc, roc, seq)
		payload, err = h.aead.Open(pkt[head:head], h.iv[:12], pkt[head:], pkt[:head])
		if err != nil {
			return nil, 0, ErrAuth
		}
	} else {
		end := len(pkt) - h.tag
		h.authenticate(pkt[:end], roc)
		if !hmac.Equal(h.sum[:h.tag], pkt[end:]) {
			return nil, 0, ErrAuth
		}
		h.setIV(ssrc, index)
		payload = pkt[head:end]
		h.ctr(payload)
	}
	if !known {
		if in.n < maxStreams {
			in.n++
		}
		*s = stream{ssrc: ssrc, index: index, window: 1}
	} else {
		accept(index, &s.index, &s.window)
	}
	in.clock++
	s.used = in.clock
	return payload, index, nil
}

// RTCP opens a compound packet in place and returns it without what protection
// added.
func (in *In) RTCP(pkt []byte) ([]byte, error) {
	h := in.rtcp
	if len(pkt) < 8+4+h.tag {
		return nil, ErrShort
	}
	be := binary.BigEndian
	ssrc := be.Uint32(pkt[4:])
	at := len(pkt) - 4
	if h.aead == nil {
		at -= h.tag
	}
	word := be.Uint32(pkt[at:])
	index := word &^ (1 << 31)
	if word>>31 == 0 {
		return nil, ErrClear
	}
	if in.rtcpWindow != 0 && replayed(uint64(index), uint64(in.rtcpIndex), in.rtcpWindow) {
		return nil, ErrReplay
	}
	var plain []byte
	if h.aead != nil {
		h.setNonce(ssrc, index>>16, uint16(index))
		copy(h.aad[:8], pkt[:8])
		be.PutUint32(h.aad[8:], word)
		body, err := h.aead.Open(pkt[8:8], h.iv[:12], pkt[8:at], h.aad[:])
		if err != nil {
			return nil, ErrAuth
		}
		plain = pkt[:8+len(body)]
	} else {
		h.authenticate(pkt[:at], word)
		if !hmac.Equal(h.sum[:h.tag], pkt[at+4:]) {
			return nil, ErrAuth
		}
		h.setIV(ssrc, uint64(index))
		h.ctr(pkt[8:at])
		plain = pkt[:at]
	}
	if in.rtcpWindow == 0 {
		in.rtcpIndex, in.rtcpWindow = index, 1
		return plain, nil
	}
	highest := uint64(in.rtcpIndex)
	accept(uint64(index), &highest, &in.rtcpWindow)
	in.rtcpIndex = uint32(highest)
	return plain, nil
}
