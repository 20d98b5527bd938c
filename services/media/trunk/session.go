package trunk

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

const (
	// maxSpeakers bounds who is known of one peer at a time; who was silent longest gives way.
	maxSpeakers = 64
	// forgetAfter is the silence after which a speaker is forgotten: he may be gone.
	forgetAfter = 10 * time.Second
	// maxID bounds a participant's id, in bytes.
	maxID = 128
)

// Elements of the header extension; see the package comment.
const (
	elementStream, streamLen = 1, 7
	elementID                = 2
	twoByte                  = 0x1000
)

// head is the most that stands before the payload.
const head = SessionIDLen + wire.HeaderSize + 4 + 2 + streamLen + 2 + maxID + 3

// SessionIDLen is the length of what stands before SRTP.
const SessionIDLen = 8

// Errors of [Session.Receive]. All mean: drop the packet and count it.
var (
	ErrMalformed = errors.New("trunk: malformed packet")
	ErrRefused   = errors.New("trunk: packet not authentic, or seen before")
)

// session is a room's trunk to one peer. Sending and receiving may overlap.
type session struct {
	set  *Set
	peer Peer
	to   wire.Sockaddr

	outID, inID uint64

	outMu sync.Mutex
	out   *srtp.Out
	index uint64 // roll-over counter and sequence number of the last packet

	inMu     sync.Mutex
	in       *srtp.In
	closed   bool
	speakers map[string]*speaker
	header   wire.Header // scratch
	pkt      mix.Packet  // scratch

	sent, received atomic.Uint64 // packets
}

// speaker is a member of the room who speaks at the peer.
type speaker struct {
	member *mix.Member
	codec  mix.CodecID
	heard  int64 // [mix.Now]
}

func newSession(s *Set, room string, key *Key, p *Peer, to wire.Sockaddr) (*session, error) {
	out, in, err := key.halves(room, p)
	if err != nil {
		return nil, err
	}
	x := &session{set: s, peer: *p, to: to, outID: out.id, inID: in.id, speakers: map[string]*speaker{}}
	if x.out, err = srtp.NewOut(out.keys); err != nil {
		return nil, err
	}
	if x.in, err = srtp.NewIn(in.keys); err != nil {
		return nil, err
	}
	return x, nil
}

// wants reports whether a member's packets go to the peer: nobody is given back what came
// from him, and hubs tell each other directly.
func (x *session) wants(from *session) bool {
	return from == nil || from != x && (from.peer.Leaf || x.peer.Leaf)
}

// seal writes a packet into b and returns its length; 0 when it does not fit.
func (x *session) seal(b []byte, speaker string, id mix.CodecID, p *mix.Packet) int {
	if len(speaker) == 0 || len(speaker) > maxID || len(b) < head+len(p.Payload)+srtp.Overhead {
		return 0
	}
	x.outMu.Lock()
	defer x.outMu.Unlock()
	x.index++
	binary.BigEndian.PutUint64(b, x.outID)
	h := b[SessionIDLen:]
	wire.PutHeader(h, uint8(id), p.Marker, uint16(x.index), p.Timestamp, 0)
	h[0] |= 0x10
	e := h[wire.HeaderSize+4:]
	e[0], e[1] = elementStream, streamLen
	e[2] = byte(max(p.Level, 0)) & 0x7f
	if p.Voice {
		e[2] |= 0x80
	}
	binary.BigEndian.PutUint16(e[3:], p.Seq)
	binary.BigEndian.PutUint32(e[5:], p.SSRC)
	n := 2 + streamLen
	e[n], e[n+1] = elementID, byte(len(speaker))
	n += 2 + copy(e[n+2:], speaker)
	for n%4 != 0 {
		e[n] = 0
		n++
	}
	binary.BigEndian.PutUint16(h[wire.HeaderSize:], twoByte)
	binary.BigEndian.PutUint16(h[wire.HeaderSize+2:], uint16(n/4))
	size := wire.HeaderSize + 4 + n
	end := size + copy(h[size:], p.Payload)
	x.sent.Add(1)
	return SessionIDLen + x.out.RTP(h, end, size, uint32(x.index>>16))
}

// receive takes a datagram of the session, whose bytes it changes.
func (x *session) receive(b []byte, now int64) error {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	h := &x.header
	if x.closed || len(b) < SessionIDLen || !h.Parse(b[SessionIDLen:]) {
		return ErrMalformed
	}
	payload, _, err := x.in.RTP(b[SessionIDLen:], h.Size)
	if err != nil {
		return ErrRefused
	}
	stream, id := h.Element(elementStream), h.Element(elementID)
	if len(stream) != streamLen || len(id) == 0 || len(id) > maxID || mix.CodecID(h.PayloadType) >= codec.Count || len(payload) == 0 {
		return ErrMalformed
	}
	s := x.speakers[string(id)]
	if s == nil {
		if s, err = x.add(string(id), mix.CodecID(h.PayloadType)); err != nil {
			return err
		}
	}
	if c := mix.CodecID(h.PayloadType); c != s.codec {
		if err := s.member.SetCodecs(c, mix.Opus); err != nil {
			return err
		}
		s.codec = c
	}
	s.heard = now
	p := &x.pkt
	p.SSRC, p.Seq, p.Timestamp, p.Marker = binary.BigEndian.Uint32(stream[3:]), binary.BigEndian.Uint16(stream[1:]), h.Timestamp, h.Marker
	p.Level, p.Voice, p.Payload, p.Arrival = int8(stream[0]&0x7f), stream[0]&0x80 != 0, payload, now
	s.member.Push(p)
	p.Payload = nil
	x.received.Add(1)
	return nil
}

// add takes a speaker in. The caller holds inMu.
func (x *session) add(id string, c mix.CodecID) (*speaker, error) {
	if len(x.speakers) >= maxSpeakers {
		oldest := ""
		for k, s := range x.speakers {
			if oldest == "" || s.heard < x.speakers[oldest].heard {
				oldest = k
			}
		}
		x.drop(oldest)
	}
	m, err := x.set.room.AddRemote(x.peer.Worker, id, c)
	if err != nil {
		return nil, err
	}
	s := &speaker{member: m, codec: c}
	x.speakers[id] = s
	x.set.from.Store(m, x)
	return s, nil
}

// drop forgets a speaker. The caller holds inMu.
func (x *session) drop(id string) {
	s := x.speakers[id]
	delete(x.speakers, id)
	x.set.from.Delete(s.member)
	s.member.Close()
}

// expire forgets those who were silent for long.
func (x *session) expire(now int64) {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	for id, s := range x.speakers {
		if now-s.heard > int64(forgetAfter) {
			x.drop(id)
		}
	}
}

func (x *session) close() {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	x.closed = true
	for id := range x.speakers {
		x.drop(id)
	}
}
