package leg

import (
	"bytes"
	"crypto/tls"
	"encoding/gob"
	"net/netip"

	"github.com/pion/dtls/v2"

	"github.com/parley-jami/parley/services/media/sdp"
)

// Path is how a leg's packets travel. Addresses that are not known are not valid.
type Path struct {
	Local, Remote netip.AddrPort
	// Types of candidates (RFC 8445 §5.1.1); of a phone "sdp", where its description says, or
	// "latched", where its packets come from.
	LocalType, RemoteType string
	RTCP                  netip.AddrPort // where reports go, if not to Remote
	DTLS, Suite           string         // empty: without DTLS, or not yet
}

// Path describes the leg's path. It reads the far end's description again, and may ask the
// kernel for a route: nothing of it is done before somebody asks.
func (l *Leg) Path() Path {
	l.mu.Lock()
	st, port, relay := l.st, l.port, l.relay
	l.mu.Unlock()
	var p Path
	p.Remote = unmapped(st.Remote)
	ice := st.WebRTC || st.Jami
	if port != nil {
		bound := port.sock.Local()
		p.Local = netip.AddrPortFrom(l.h.addrs.toward(p.Remote.Addr(), bound.Addr().Unmap()), bound.Port())
		if p.LocalType = "sdp"; ice {
			p.LocalType = string(sdp.Host) // to browsers we are a lite agent, which has no others (RFC 8445 §2.5)
			if st.Jami && l.h.addrs.isLearned(p.Local.Addr()) {
				p.LocalType = string(sdp.ServerReflexive)
			}
		}
		if st.Relayed && relay != nil {
			p.Local, p.LocalType = relay.pair[0].Addr(), string(sdp.Relay)
		}
	}
	switch {
	case !p.Remote.IsValid():
	case ice:
		p.RemoteType = string(sdp.TypeOf(st.Offer, p.Remote))
	case p.Remote == unmapped(st.Told):
		p.RemoteType = "sdp"
	default:
		p.RemoteType = "latched"
	}
	if rtcp := unmapped(st.RemoteRTCP); st.Jami && rtcp != p.Remote {
		p.RTCP = rtcp
	}
	if st.WebRTC && st.In != nil {
		p.DTLS, p.Suite = "DTLS 1.2", st.Suite // the library speaks no other
	}
	return p
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// suiteOf is the suite of a handshake, by its IANA name. The library tells it in what it
// writes of a state alone.
func suiteOf(s *dtls.State) string {
	b, err := s.MarshalBinary()
	if err != nil {
		return ""
	}
	defer clear(b) // it has the master secret
	var known struct{ CipherSuiteID uint16 }
	if gob.NewDecoder(bytes.NewReader(b)).Decode(&known) != nil {
		return ""
	}
	return tls.CipherSuiteName(known.CipherSuiteID)
}
