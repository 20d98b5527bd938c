package leg

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/parley-jami/parley/services/media/ice"
	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
)

// Request asks for a leg.
type Request struct {
	ID, Room        string
	Epoch           uint64
	WebRTC          bool
	Jami            bool
	Offer           string     // SDP; empty: the host makes the offer, but to no browser
	Was             string     // SDP of the far end's leg before, of a phone: its keys go on to be used where they fit
	Remote          netip.Addr // where the signalling came from; may be invalid
	Unproved        bool       // Remote may be forged: nothing is sent before [Host.Set] says otherwise
	CanSpeak, Muted bool
}

// Opened is what the far end must be told.
type Opened struct{ SDP, Transport, Codec string }

// Open makes a leg. Repeated for the same leg it answers the same; with another
// offer it negotiates again. Commands about legs are served one at a time.
func (h *Host) Open(r Request) (Opened, error) {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	if l, ok := h.Leg(r.ID); ok {
		return h.reopen(l, r)
	}
	var far *sdp.Remote
	var err error
	switch {
	case r.Offer != "":
		if far, err = sdp.Parse(r.Offer, r.kind()); err != nil {
			return Opened{}, err
		}
		if r.Jami && far.Ufrag == "" {
			return Opened{}, fmt.Errorf("%w: a Jami call begins with a=ice-ufrag and a=ice-pwd in the session", sdp.ErrSecurity)
		}
	case r.WebRTC:
		return Opened{}, ErrOffer
	}
	l, err := h.newLeg(r)
	if err != nil {
		return Opened{}, err
	}
	var o Opened
	if far != nil {
		l.keepKeys(r.Was, far)
		o, err = l.answer(r.Offer, far, r.Remote)
	} else {
		o, err = l.offer()
	}
	if err != nil {
		h.close(l, true, "refused")
		return Opened{}, err
	}
	return o, nil
}

func (h *Host) reopen(l *Leg, r Request) (Opened, error) {
	l.mu.Lock()
	st := l.st
	l.mu.Unlock()
	switch {
	case r.Epoch < st.Epoch:
		return Opened{}, ErrStale
	case st.Room != r.Room:
		return Opened{}, ErrRoom
	case st.WebRTC != r.WebRTC || st.Jami != r.Jami:
		return Opened{}, ErrKind
	}
	l.mu.Lock()
	l.st.Epoch = r.Epoch
	l.mu.Unlock()
	l.set(&r.CanSpeak, &r.Muted)
	if r.Offer == st.Offer || r.Offer == "" {
		return l.opened(st.Answer), nil
	}
	return l.negotiate(r.Offer, r.Remote)
}

// keepKeys has a phone's new leg send with the keys of the one before, under an SSRC of its own: phones
// are there that take no others in a call (baresip 1.0). Where what they were told before says no keys
// that fit, new ones are made.
func (l *Leg) keepKeys(was string, far *sdp.Remote) {
	if was == "" || far.Crypto == nil || l.st.WebRTC || l.st.Jami {
		return
	}
	before, err := sdp.Parse(was, sdp.Phone)
	if err != nil || before.Crypto == nil || before.Crypto.Keys.Profile != far.Crypto.Keys.Profile {
		return
	}
	l.mu.Lock()
	l.st.Out, l.st.In = &before.Crypto.Keys, &far.Crypto.Keys
	l.mu.Unlock()
}

// newLeg makes an empty leg with its place in the table of counters.
func (h *Host) newLeg(r Request) (*Leg, error) {
	var b [24]byte
	rand.Read(b[:])
	l := &Leg{h: h, id: r.ID, cname: base64.RawURLEncoding.EncodeToString(b[12:]), ssrc: binary.BigEndian.Uint32(b[:])}
	local := ice.NewCredentials()
	tag := binary.BigEndian.Uint64(b[4:]) | 1
	slot, at, err := h.cfg.Table.Take(tag)
	if err != nil {
		return nil, err
	}
	l.slot = slot
	l.st = State{
		ID: r.ID, Room: r.Room, Epoch: r.Epoch, WebRTC: r.WebRTC, Jami: r.Jami, Pair: -1, Slot: at, Tag: tag,
		CanSpeak: r.CanSpeak, Muted: r.Muted, SSRC: l.ssrc, CName: l.cname, Session: tag >> 2,
		Ufrag: local.Ufrag, Pwd: local.Pwd, Source: r.Remote.Unmap().WithZone(""), Unproved: r.Unproved && !r.WebRTC && !r.Jami,
	}
	// A start in the lower half keeps the far end's guess of the roll-over counter
	// right (RFC 3711 §3.3.1); timestamps start at random (RFC 3550 §5.1).
	l.out.index = uint64(binary.BigEndian.Uint16(b[4:]) >> 2)
	l.out.ts = binary.BigEndian.Uint32(b[6:])
	return l, h.admit(l)
}

// admit makes the leg known to the host and its room.
func (h *Host) admit(l *Leg) error {
	l.room = h.Room(l.st.Room)
	l.heard.Store(mix.Now())
	if l.st.WebRTC {
		l.port = h.ports[0]
	}
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.legs[l.id] = l
	}
	h.mu.Unlock()
	if closed {
		h.Release(l.room)
		h.cfg.Table.Free(l.st.Slot)
		return ErrClosed
	}
	if l.st.WebRTC || l.st.Jami {
		h.ufrags.Store(l.st.Ufrag, l)
	}
	return nil
}

// Negotiate takes a new offer and returns the answer. remote is where signalling
// comes from now; it may be invalid.
func (h *Host) Negotiate(id string, epoch uint64, offer string, remote netip.Addr) (Opened, error) {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	l, err := h.ordered(id, epoch)
	if err != nil {
		return Opened{}, err
	}
	return l.negotiate(offer, remote)
}

// Answer takes the answer to the offer that [Host.Open] returned. remote is where its
// signalling came from; it may be invalid.
func (h *Host) Answer(id string, epoch uint64, answer string, remote netip.Addr) (Opened, error) {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	l, err := h.ordered(id, epoch)
	if err != nil {
		return Opened{}, err
	}
	l.mu.Lock()
	repeated, ours, kind := l.st.Negotiated && l.st.Offer == answer, l.st.Out, l.st.kind()
	l.mu.Unlock()
	far, err := sdp.Parse(answer, kind)
	switch {
	case err != nil:
		return Opened{}, err
	case kind == sdp.Jami && far.Ufrag == "":
		return Opened{}, fmt.Errorf("%w: the answer of a Jami peer has no a=ice-ufrag and a=ice-pwd in the session", sdp.ErrSecurity)
	}
	if repeated {
		return l.opened(""), nil
	}
	if far.Crypto != nil && (ours == nil || ours.Profile != far.Crypto.Keys.Profile) {
		return Opened{}, fmt.Errorf("%w: the answer has a key for %s, which was not offered", sdp.ErrSecurity, far.Crypto.Keys.Profile)
	}
	l.mu.Lock()
	l.takeLocked(far, remote)
	switch {
	case kind == sdp.Jami:
		l.st.FarUfrag, l.st.In = far.Ufrag, &far.Crypto.Keys
	case far.Crypto == nil:
		l.st.Out = nil
	}
	l.st.Offer, l.st.Also = answer, slices.Clone(far.Codecs[1:])
	l.mu.Unlock()
	if err := l.apply(); err != nil {
		return Opened{}, err
	}
	l.save()
	if kind == sdp.Jami {
		l.probe(far)
	}
	return l.opened(""), nil
}

// ordered returns the leg for a command of that epoch.
func (h *Host) ordered(id string, epoch uint64) (*Leg, error) {
	l, ok := h.Leg(id)
	if !ok {
		return nil, ErrNoLeg
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch < l.st.Epoch {
		return nil, ErrStale
	}
	l.st.Epoch = epoch
	return l, nil
}

// Set changes what is not nil. With proved, the far end has shown that it is where
// its signalling says it is.
func (h *Host) Set(id string, epoch uint64, canSpeak, muted *bool, proved bool) (*Leg, error) {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	l, err := h.ordered(id, epoch)
	if err != nil {
		return nil, err
	}
	l.set(canSpeak, muted)
	if proved {
		err = l.prove()
	}
	return l, err
}

// CloseLeg ends a leg. Nil also when there is none.
func (h *Host) CloseLeg(id string, epoch uint64, reason string) error {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	l, err := h.ordered(id, epoch)
	switch {
	case err == ErrNoLeg:
		return nil
	case err != nil:
		return err
	}
	h.close(l, true, reason)
	return nil
}

func (l *Leg) negotiate(offer string, remote netip.Addr) (Opened, error) {
	l.mu.Lock()
	st := l.st
	l.mu.Unlock()
	if offer == st.Offer && st.Answer != "" {
		return l.opened(st.Answer), nil
	}
	far, err := sdp.Parse(offer, st.kind())
	if err != nil {
		return Opened{}, err
	}
	return l.answer(offer, far, remote)
}

// opened describes what was negotiated.
func (l *Leg) opened(text string) Opened {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := Opened{SDP: text, Transport: l.transportLocked()}
	if l.st.Negotiated {
		o.Codec = l.st.Codec.String()
	}
	return o
}

// answer takes an offer and writes the answer.
func (l *Leg) answer(offer string, far *sdp.Remote, remote netip.Addr) (Opened, error) {
	l.mu.Lock()
	fresh := l.st.Jami && far.Ufrag != "" && far.Ufrag != l.st.FarUfrag
	switch {
	case l.st.Jami:
		l.renewLocked(far)
	case far.Crypto != nil:
		l.st.Tag4568 = far.Crypto.Tag
		if l.st.Out == nil || l.st.Out.Profile != far.Crypto.Keys.Profile || l.st.In == nil || !l.st.In.Equal(far.Crypto.Keys) {
			k := newKeys(far.Crypto.Keys.Profile)
			l.st.Out = &k
		}
	case !l.st.WebRTC:
		l.st.Out = nil
	}
	if l.st.WebRTC && l.st.FarUfrag != "" && l.st.FarUfrag != far.Ufrag { // ICE restart (RFC 8839 §4.4.3)
		l.restartLocked()
	}
	l.takeLocked(far, remote)
	l.st.Offer = offer
	l.mu.Unlock()
	if err := l.apply(); err != nil {
		return Opened{}, err
	}
	l.mu.Lock()
	l.st.Version++
	if l.st.WebRTC || l.st.Jami && far.Ufrag != "" {
		l.relayLocked()
	}
	local := l.localLocked()
	if l.st.Jami && far.Ufrag == "" {
		local.Ufrag, local.Pwd = "", ""
	}
	if l.st.Out != nil && !l.st.WebRTC {
		local.Crypto = &sdp.Crypto{Tag: l.st.Tag4568, Keys: *l.st.Out}
	}
	l.st.Answer = far.Answer(local)
	text := l.st.Answer
	l.mu.Unlock()
	l.save()
	switch {
	case fresh:
		l.probe(far)
	case far.Kind == sdp.Browser:
		l.permit(offer, remote)
	}
	return l.opened(text), nil
}

// offer writes an offer for a call that came without one, or that we make.
func (l *Leg) offer() (Opened, error) {
	if err := l.place(); err != nil {
		return Opened{}, err
	}
	l.mu.Lock()
	k := newKeys(srtp.CM80)
	l.st.Out, l.st.Tag4568 = &k, "1"
	l.st.Version++
	if l.st.Jami {
		l.relayLocked()
	}
	local := l.localLocked()
	local.Crypto = &sdp.Crypto{Tag: "1", Keys: k}
	l.st.Answer = offerOf(l.st.kind())(local)
	text := l.st.Answer
	l.mu.Unlock()
	l.save()
	return l.opened(text), nil
}

func offerOf(k sdp.Kind) func(*sdp.Local) string {
	if k == sdp.Jami {
		return sdp.OfferJami
	}
	return sdp.Offer
}

// takeLocked notes what the far end described, and for a new address where its
// signalling comes from. The caller holds l.mu.
func (l *Leg) takeLocked(far *sdp.Remote, remote netip.Addr) {
	st := &l.st
	c := far.Codec()
	st.Negotiated, st.Codec, st.PT, st.DTMF, st.DTMFClock, st.Level = true, c.ID, c.PT, far.DTMF, far.DTMFClock(), far.Level
	st.MaxPtime = far.MaxPtime
	st.Far, st.Mux, st.Also = far.Dir, far.Mux, nil
	if st.Jami {
		st.Secure = true
		if remote.IsValid() {
			st.Source = remote.Unmap().WithZone("")
		}
		return
	}
	if st.WebRTC {
		st.Secure, st.Mux = true, true
		if !slices.Equal(st.Fingerprints, far.Fingerprints) { // another peer, or one that began anew
			st.In, st.Out = nil, nil
			l.dtls.reset()
		}
		st.FarUfrag, st.Fingerprints = far.Ufrag, far.Fingerprints
		return
	}
	st.Secure = far.Crypto != nil
	if st.In = nil; st.Secure {
		st.In = &far.Crypto.Keys
	}
	if far.Addr.IsValid() && far.Addr != st.Told {
		if l.port != nil {
			l.port.forget(l)
			l.rtcp.forget(l)
		}
		if remote.IsValid() {
			st.Source = remote.Unmap().WithZone("")
		}
		st.Told, st.ToldRTCP, st.Remote, st.Latched = far.Addr, far.RTCP, netip.AddrPort{}, false
	}
}

// apply puts what was negotiated to work.
func (l *Leg) apply() error {
	if err := l.place(); err != nil {
		return err
	}
	l.mu.Lock()
	err := l.configureLocked()
	ready := !l.st.WebRTC || l.st.In != nil
	l.mu.Unlock()
	if err != nil || !ready {
		return err // a browser joins the mix when it has keys: half a join costs little
	}
	return l.join()
}

// localLocked is our side of a description.
func (l *Leg) localLocked() *sdp.Local {
	st := &l.st
	s := &sdp.Local{Session: st.Session, Version: st.Version, SSRC: st.SSRC, CName: st.CName, Dir: sdp.SendRecv}
	bound := l.port.sock.Local()
	if st.WebRTC {
		for _, a := range l.h.addrs.all(bound.Addr(), l.port.sock.Dual()) {
			s.Candidates = append(s.Candidates, sdp.Candidate{Type: sdp.Host, RTP: netip.AddrPortFrom(a, bound.Port())})
		}
		if l.relay != nil {
			s.Candidates = append(s.Candidates, sdp.Candidate{Type: sdp.Relay, RTP: l.relay.pair[0].Addr()})
		}
		s.Ufrag, s.Pwd = st.Ufrag, st.Pwd
		s.Fingerprint = sdp.Fingerprint{Hash: "sha-256", Digest: l.h.print}
		return s
	}
	toward := st.Source
	if !toward.IsValid() {
		toward = st.Told.Addr()
	}
	s.Addr = netip.AddrPortFrom(l.h.addrs.toward(toward, bound.Addr()), bound.Port())
	if st.Jami {
		s.Ufrag, s.Pwd = st.Ufrag, st.Pwd
		s.Candidates = l.candidatesLocked(s.Addr)
	}
	s.RTCPPort = l.rtcp.sock.Local().Port()
	return s
}

func newKeys(p srtp.Profile) srtp.Keys {
	k := srtp.Keys{Profile: p, Key: make([]byte, srtp.KeyLen), Salt: make([]byte, p.SaltLen())}
	rand.Read(k.Key)
	rand.Read(k.Salt)
	return k
}
