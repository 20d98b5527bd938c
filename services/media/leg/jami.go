package leg

import (
	"net/netip"
	"slices"

	"github.com/parley-jami/parley/services/media/ice"
	"github.com/parley-jami/parley/services/media/sdp"
)

// maxCandidates bounds the addresses that an answer names: a SIP message of a Jami channel
// stays below 8,000 bytes (connect-and-calls §3.1).
const maxCandidates = 8

func kindOf(webrtc, jami bool) sdp.Kind {
	switch {
	case webrtc:
		return sdp.Browser
	case jami:
		return sdp.Jami
	}
	return sdp.Phone
}

func (r *Request) kind() sdp.Kind { return kindOf(r.WebRTC, r.Jami) }
func (st *State) kind() sdp.Kind  { return kindOf(st.WebRTC, st.Jami) }

// pairLocked gives a Jami peer's leg one of the shared pairs of ports: component 1 comes to
// the RTP port, component 2 to the RTCP port, so that a check tells by its port what it is
// for. Whose it is, its user fragment tells: any number of legs share a pair. The caller
// holds l.mu.
func (l *Leg) pairLocked() {
	if l.port != nil {
		return
	}
	h := l.h
	h.next = (h.next + 1) % sharedPairs
	l.st.Pair, l.port, l.rtcp = h.next, h.rtpPort(h.next), h.rtcpPort(h.next)
}

// renewLocked takes the keys of a Jami peer's offer, and makes ours, where it comes with new
// ICE credentials. Without them the transport and the keys stay what they were, whatever
// the line says (§3.4). The caller holds l.mu.
func (l *Leg) renewLocked(far *sdp.Remote) {
	st := &l.st
	st.Tag4568 = far.Crypto.Tag
	if far.Ufrag == "" || far.Ufrag == st.FarUfrag {
		return
	}
	if st.FarUfrag != "" {
		l.restartLocked()
		l.port.forget(l)
		l.rtcp.forget(l)
		l.unrelayLocked()
		st.Valid, st.ValidRTCP, st.Remote, st.RemoteRTCP = nil, nil, netip.AddrPort{}, netip.AddrPort{}
		st.Relayed, st.RelayedRTCP, l.direct = false, false, [2]bool{}
	}
	k := newKeys(far.Crypto.Keys.Profile)
	st.FarUfrag, st.In, st.Out = far.Ufrag, &far.Crypto.Keys, &k
}

// restartLocked makes new ICE credentials. The caller holds l.mu.
func (l *Leg) restartLocked() {
	l.h.ufrags.Delete(l.st.Ufrag)
	fresh := ice.NewCredentials()
	l.st.Ufrag, l.st.Pwd = fresh.Ufrag, fresh.Pwd
	l.h.ufrags.Store(l.st.Ufrag, l)
}

// candidatesLocked are where a Jami peer may send its checks; first is what the route to its
// signalling starts from. The caller holds l.mu.
func (l *Leg) candidatesLocked(first netip.AddrPort) []sdp.Candidate {
	sock, rtcp := l.port.sock, l.rtcp.sock.Local().Port()
	list := []netip.Addr{first.Addr()}
	for _, a := range l.h.addrs.all(sock.Local().Addr(), sock.Dual()) {
		if len(list) < maxCandidates && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	out := make([]sdp.Candidate, 0, len(list)+1)
	for _, a := range list {
		c := sdp.Candidate{Type: sdp.Host, RTP: netip.AddrPortFrom(a, first.Port()), RTCP: netip.AddrPortFrom(a, rtcp)}
		if l.h.addrs.isLearned(a) {
			c.Type = sdp.ServerReflexive
		}
		out = append(out, c)
	}
	if l.relay != nil {
		out = append(out, sdp.Candidate{Type: sdp.Relay, RTP: l.relay.pair[0].Addr(), RTCP: l.relay.pair[1].Addr()})
	}
	return out
}
