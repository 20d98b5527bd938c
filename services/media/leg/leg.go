// Package leg carries a participant's audio between the network and the mixer of
// a room: browsers over ICE and DTLS-SRTP, phones over plain RTP or SDES-SRTP, Jami
// peers over ICE and SDES-SRTP.
//
// A [Host] owns the sockets, which all legs share, and a goroutine for reading
// each. A packet's way in: port.run → Leg.rtp (opened in place) → mix.Member.Push;
// out: mix → Leg.WriteFrame in the goroutine of the room → one sendmmsg batch for
// each socket at the end of the tick. Neither way allocates.
//
// Lock order: Host.mu, Leg.mu, port.mu, then out.mu or in.mu; no lock is held
// while the mixer is asked to close a member, as that waits for WriteFrame.
package leg

import (
	"errors"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/resume"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
)

// Errors of opening and negotiating, beside those of package sdp.
var (
	ErrBusy   = errors.New("leg: no port is free for a far end behind this address; try again in some seconds")
	ErrRoom   = errors.New("leg: it is in another room; close it first")
	ErrOffer  = errors.New("leg: the leg of a browser or a Jami peer needs its offer")
	ErrNoLeg  = errors.New("leg: there is none of this id")
	ErrStale  = errors.New("leg: somebody newer has taken over")
	ErrKind   = errors.New("leg: it has another transport; close it first")
	ErrClosed = errors.New("leg: the host is closing")
)

// State is what a leg needs to outlive its process. It holds keys.
type State struct {
	ID, Room        string
	Epoch           uint64
	WebRTC          bool
	Jami            bool
	Pair, Slot      int
	Tag             uint64 // names the file and the slot
	CanSpeak, Muted bool

	SSRC             uint32
	CName            string
	Session, Version uint64
	Offer, Answer    string // the last ones, for repeated commands

	Ufrag, Pwd   string // ours
	FarUfrag     string
	Fingerprints []sdp.Fingerprint

	Negotiated bool
	Codec      codec.ID
	PT, DTMF   uint8
	Also       []sdp.Codec // that the far end may send as well, when the offer was ours
	DTMFClock  int
	Level      uint8
	MaxPtime   int           // ms, 0: not told
	Far        sdp.Direction // what the far end does
	Mux        bool
	Secure     bool
	In, Out    *srtp.Keys
	Tag4568    string

	Source   netip.Addr     // where signalling came from
	Unproved bool           // Source may be forged
	Told     netip.AddrPort // RTP address in the SDP
	ToldRTCP netip.AddrPort
	Latched  bool
	Remote   netip.AddrPort   // where RTP goes
	Valid    []netip.AddrPort // addresses proved by ICE
	// Of a Jami peer: the same for its RTCP.
	RemoteRTCP netip.AddrPort
	ValidRTCP  []netip.AddrPort
	// Remote, or RemoteRTCP, is reached by a relay of ours, which ends with the process.
	Relayed, RelayedRTCP bool
	Connected            bool
	Suite                string // of the DTLS handshake
}

// Leg is one participant's transport.
type Leg struct {
	// Fixed after it was made.
	h     *Host
	id    string
	room  *Room
	port  *port // RTP, or everything of a browser
	rtcp  *port // the odd one of a pair; of a browser nil
	slot  *resume.Slot
	cname string
	ssrc  uint32

	mu      sync.Mutex
	st      State
	closed  bool
	joined  bool                // is, or is being made, a member
	sends   bool                // the member has a sink
	relay   *relay              // of a Jami peer's leg, nil: none
	relayed [2][]netip.AddrPort // as Valid and ValidRTCP, by the relay
	direct  [2]bool             // a path without it was nominated

	saving sync.Mutex

	out  outbound
	in   inbound
	dtls handshake

	heard     atomic.Int64 // mix.Now of the last authentic packet
	connected atomic.Bool
	lost      atomic.Bool
	latched   atomic.Bool  // the far end's address is known
	bye       atomic.Int64 // mix.Now of an RTCP BYE
	media     atomic.Bool  // RTP or RTCP came, so a browser's handshake is over
	remote    atomic.Pointer[hop]
	probing   atomic.Pointer[probe] // of a Jami peer that leaves the controlling side to us
	report    report
	nextRTCP  int64 // clock goroutine
}

// hop is where packets go, and by which port.
type hop struct {
	port *port
	at   netip.AddrPort
}

// ID returns the participant's id.
func (l *Leg) ID() string { return l.id }

// Room returns the name of the room.
func (l *Leg) Room() string { return l.room.name }

// Info is a leg as it is now.
type Info struct {
	ID, Room, Transport, Codec, Remote, Cipher string
	Connected, CanSpeak, Muted                 bool
	Mix                                        mix.Stats
	Out, Received, Lost                        uint64
	LostPct, FarLostPct, JitterMs, RTTMs       float64
}

// Info describes the leg.
func (l *Leg) Info() Info {
	i := l.described()
	i.Connected = l.connected.Load()
	i.Mix.Level = 127
	l.in.mu.Lock()
	if l.in.member != nil {
		i.Mix = l.in.member.Stats()
	}
	i.Received, i.Lost, i.LostPct = l.in.rx.received, l.in.rx.lost(), 100*l.in.rx.lastFraction
	i.JitterMs = l.in.rx.jitterMs(l.in.clock)
	l.in.mu.Unlock()
	l.out.mu.Lock()
	i.Out = l.out.packets
	l.out.mu.Unlock()
	i.FarLostPct, i.RTTMs = l.report.get()
	return i
}

// described is what was negotiated and ordered.
func (l *Leg) described() Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := Info{ID: l.id, Room: l.room.name, Transport: l.transportLocked(), CanSpeak: l.st.CanSpeak, Muted: l.st.Muted}
	if l.st.Negotiated {
		i.Codec = l.st.Codec.String()
	}
	if l.st.Remote.IsValid() {
		i.Remote = l.st.Remote.String()
	}
	if l.st.Out != nil {
		i.Cipher = l.st.Out.Profile.String()
	}
	return i
}

func (l *Leg) transportLocked() string {
	switch {
	case l.st.WebRTC:
		return "webrtc"
	case l.st.Jami:
		return "jami"
	case l.st.Secure:
		return "srtp"
	}
	return "rtp"
}

// touch notes an authentic packet from the far end.
func (l *Leg) touch(now int64) {
	l.heard.Store(now)
	if !l.media.Load() {
		l.media.Store(true)
	}
	if !l.connected.Load() || l.lost.Load() {
		l.alive()
	}
}

// alive reports the first packet, or the first one after silence.
func (l *Leg) alive() {
	l.lost.Store(false)
	l.bye.Store(0)
	l.connected.Store(true)
	l.mu.Lock()
	first := !l.st.Connected
	l.st.Connected = true
	l.mu.Unlock()
	if first {
		l.h.dirty(l)
	}
	l.h.events.Change(l.id, l.room.name, "connected", "")
}

// maxFrames is how many frames of 20 ms a packet to the far end may have.
func (s *State) maxFrames() int {
	if s.MaxPtime == 0 {
		return math.MaxInt32 // RFC 3551 §4.2 has receivers take 200 ms
	}
	return s.MaxPtime / 20
}

// join makes the leg a member of the mix, or one with the codecs and the
// direction that were negotiated last.
func (l *Leg) join() error {
	l.mu.Lock()
	if l.closed || !l.st.Negotiated {
		l.mu.Unlock()
		return nil
	}
	sends := l.st.Far&sdp.Recv != 0
	again := l.joined && sends == l.sends
	st := l.st
	l.in.mu.Lock()
	old := l.in.member
	if !again {
		l.in.member = nil
	}
	l.in.mu.Unlock()
	l.joined, l.sends = true, sends
	l.mu.Unlock()

	if again && old != nil {
		old.SetMaxFrames(st.maxFrames())
		return old.SetCodecs(st.Codec, st.Codec)
	}
	if old != nil {
		old.Close()
	}
	var sink mix.Sink
	if sends {
		sink = l
	}
	m, err := l.room.Mix.Add(l.id, st.Codec, st.Codec, sink, st.CanSpeak, st.Muted)
	if err != nil {
		return err
	}
	m.SetMaxFrames(st.maxFrames())
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.in.mu.Lock()
		l.in.member = m
		l.in.mu.Unlock()
		m.SetMuted(l.st.Muted) // it may have changed meanwhile
		m.SetCanSpeak(l.st.CanSpeak)
	}
	l.mu.Unlock()
	if closed {
		m.Close()
	}
	return nil
}

// set changes what is not nil.
func (l *Leg) set(canSpeak, muted *bool) {
	l.mu.Lock()
	if canSpeak != nil {
		l.st.CanSpeak = *canSpeak
	}
	if muted != nil {
		l.st.Muted = *muted
	}
	can, mute := l.st.CanSpeak, l.st.Muted
	l.in.mu.Lock()
	m := l.in.member
	l.in.mu.Unlock()
	l.mu.Unlock()
	if m != nil {
		m.SetCanSpeak(can)
		m.SetMuted(mute)
	}
	l.h.dirty(l)
}
