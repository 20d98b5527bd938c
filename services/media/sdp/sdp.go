// Package sdp negotiates the audio of a leg: it reads the description of the far
// end (RFC 8866), chooses what both can do and writes ours by the rules of offer
// and answer (RFC 3264): every media line is answered, what we do not take with
// port 0. It knows texts only.
package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/srtp"
)

// MaxSize is the longest description that is read, in bytes; browsers stay below
// 10 KiB.
const MaxSize = 64 << 10

// maxLines bounds the media lines of one description.
const maxLines = 64

// Errors of reading a description.
var (
	ErrSize      = errors.New("sdp: longer than 64 KiB")
	ErrMalformed = errors.New("sdp: malformed")
	ErrNoAudio   = errors.New("sdp: no audio line that can be used")
	ErrNoCodec   = errors.New("sdp: no codec in common; Opus, G.722, PCMU and PCMA are spoken")
	ErrSecurity  = errors.New("sdp: no usable key, fingerprint or ICE password")
)

// LevelURI is the header extension for audio levels (RFC 6464).
const LevelURI = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

// Direction is a set of what a side does.
type Direction uint8

// The directions.
const (
	Inactive Direction = 0
	Send     Direction = 1
	Recv     Direction = 2
	SendRecv           = Send | Recv
)

var directions = [...]string{"inactive", "sendonly", "recvonly", "sendrecv"}

func (d Direction) String() string { return directions[d&3] }

// Reverse returns the same flow as seen from the other side.
func (d Direction) Reverse() Direction { return (d&Send)<<1 | (d&Recv)>>1 }

// Kind is what the far end is, and so how its audio line is to be read.
type Kind uint8

// The kinds of far ends.
const (
	Phone   Kind = iota // plain RTP or SDES-SRTP
	Browser             // ICE and DTLS-SRTP on one port
	Jami                // ICE and SDES-SRTP, with RTCP in clear on a component of its own (connect-and-calls §3.3, §3.6)
)

// Codec is one that both sides speak, with the payload type it has in this call.
type Codec struct {
	ID   codec.ID
	PT   uint8
	name string // as written in rtpmap: "opus/48000/2"
}

// Crypto is a key of RFC 4568. It is secret.
type Crypto struct {
	Tag  string
	Keys srtp.Keys
}

// Fingerprint of a certificate: hash in lower case, digest in upper-case hex
// with colons.
type Fingerprint struct{ Hash, Digest string }

// line is one media line, as it must be answered.
type line struct {
	media, proto, mid string
	format            [2]string // payload type and its rtpmap
}

// Remote is the far end's audio.
type Remote struct {
	Kind   Kind
	Addr   netip.AddrPort // where it wants RTP; of a phone that names no host only
	RTCP   netip.AddrPort // where it wants RTCP
	Mux    bool           // RTP and RTCP on one port
	Hold   bool           // c= is 0.0.0.0 (RFC 3264 §8.4, old form)
	Dir    Direction      // what the far end does
	Codecs []Codec        // in common, the best first; never empty
	DTMF   uint8          // payload type of telephone-event, 0: none
	Level  uint8          // id of the audio level extension, 0: none
	// MaxPtime is how much sound a packet to it may hold, in ms; 0: it does not say.
	MaxPtime int

	Ufrag, Pwd   string // of a Jami peer empty: its transport and keys stay as they are (§3.4)
	Fingerprints []Fingerprint
	Crypto       *Crypto // the best of those given, nil: none
	// Candidates of a Jami peer's RTP and RTCP that checks may be sent to, at most
	// [MaxCandidates] each, as they are named.
	Candidates [2][]netip.AddrPort

	dtmf48 bool // DTMF counts at 48 kHz
	lines  []line
	at     int // index of the line that is used
	bundle bool
}

// Codec returns the best codec in common.
func (r *Remote) Codec() Codec { return r.Codecs[0] }

// DTMFClock returns the RTP clock of telephone-event, in Hz.
func (r *Remote) DTMFClock() int {
	if r.dtmf48 {
		return 48000
	}
	return 8000
}

// Candidate is one of ours.
type Candidate struct {
	Type CandidateType
	RTP  netip.AddrPort // of a browser: everything
	RTCP netip.AddrPort // of a Jami peer
}

// Local is our side of the audio.
type Local struct {
	Session  uint64 // o= id, constant for a leg
	Version  uint64 // o= version, +1 for each description that differs
	Addr     netip.AddrPort
	RTCPPort uint16 // 0: muxed
	SSRC     uint32
	CName    string
	Dir      Direction

	Candidates  []Candidate // with ICE, the best first
	Ufrag, Pwd  string      // for Jami empty: no new transport is answered
	Fingerprint Fingerprint
	Crypto      *Crypto
}

func family(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "IP4"
	}
	return "IP6"
}

func (l *Local) head(b *strings.Builder, addr netip.Addr) {
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	fmt.Fprintf(b, "v=0\r\no=parley %d %d IN %s %s\r\ns=-\r\n", l.Session, l.Version, family(addr), addr.Unmap())
}
