package sdp

import (
	"fmt"
	"slices"
	"strings"

	pion "github.com/pion/sdp/v3"

	"github.com/parley-jami/parley/services/media/codec"
)

// jami reads the audio line of a Jami peer: SDES keys in the line, ICE in the session alone
// (connect-and-calls §3.3).
func (r *Remote) jami(sd *pion.SessionDescription, md *pion.MediaDescription, proto string) error {
	if proto != "RTP/SAVP" && proto != "RTP/SAVPF" {
		return fmt.Errorf("%w: protocol %s", ErrNoAudio, proto)
	}
	if r.Crypto = bestCrypto(md.Attributes); r.Crypto == nil {
		return ErrSecurity
	}
	r.Ufrag, r.Pwd = attr(sd.Attributes, "ice-ufrag"), attr(sd.Attributes, "ice-pwd")
	if r.Ufrag == "" && r.Pwd == "" {
		return nil
	}
	for _, a := range md.Attributes {
		if a.Key == "candidate" {
			r.candidate(a.Value)
		}
	}
	return r.passwords()
}

// MaxCandidates bounds those of a component.
const MaxCandidates = 8

// candidate notes a candidate. One that can't be used is passed over: others may be.
func (r *Remote) candidate(line string) {
	c, ok := parseCandidate(line)
	if !ok || !c.at.Addr().IsGlobalUnicast() && !c.at.Addr().IsLoopback() || c.at.Port() == 0 {
		return
	}
	// Components are counted over all media lines: those of RTP are odd (§3.3).
	list := &r.Candidates[(c.component+1)&1]
	if len(*list) < MaxCandidates && !slices.Contains(*list, c.at) {
		*list = append(*list, c.at)
	}
}

// passwords checks the form of the far end's ICE credentials.
func (r *Remote) passwords() error {
	if !iceChars(r.Ufrag, 4) || !iceChars(r.Pwd, 22) {
		return fmt.Errorf("%w: a=ice-ufrag needs 4 to 256 and a=ice-pwd 22 to 256 letters, digits, + or / (RFC 8839 §5.4)", ErrSecurity)
	}
	return nil
}

// answerJami writes the answer for a Jami peer: ICE in the session, components counted over
// all media lines, RTP and RTCP always apart (§3.3).
func (r *Remote) answerJami(l *Local) string {
	var b strings.Builder
	addr := l.Addr.Addr()
	if len(l.Candidates) > 0 {
		addr = l.Candidates[0].RTP.Addr()
	}
	l.head(&b, addr)
	fmt.Fprintf(&b, "c=IN %s %s\r\nt=0 0\r\n", family(addr), addr.Unmap())
	if l.Ufrag != "" {
		fmt.Fprintf(&b, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\n", l.Ufrag, l.Pwd)
	}
	for i, m := range r.lines {
		if i != r.at {
			reject(&b, m)
			b.WriteString("a=inactive\r\n")
			continue
		}
		c := r.Codec()
		pts := fmt.Sprint(c.PT)
		if r.DTMF != 0 {
			pts += fmt.Sprintf(" %d", r.DTMF)
		}
		fmt.Fprintf(&b, "m=audio %d %s %s\r\n", l.Addr.Port(), m.proto, pts)
		fmt.Fprintf(&b, "a=rtpmap:%d %s\r\n", c.PT, rtpmap(c))
		if r.DTMF != 0 {
			fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/%d\r\na=fmtp:%d 0-15\r\n", r.DTMF, r.DTMFClock(), r.DTMF)
		}
		fmt.Fprintf(&b, "a=rtcp:%d IN %s %s\r\na=%s\r\n", l.RTCPPort, family(addr), addr.Unmap(), l.Dir&r.Dir.Reverse())
		if l.Crypto != nil {
			writeCrypto(&b, l.Crypto)
		}
		if l.Ufrag != "" {
			l.components(&b, 2*i+1)
		}
	}
	return b.String()
}

// OfferJami writes an offer as a stock caller does: one line of sound with all codecs, ICE in
// the session (§3.3). A callee takes no notice of a=ice-lite, so it is not there.
func OfferJami(l *Local) string {
	var b strings.Builder
	addr := l.Addr.Addr()
	if len(l.Candidates) > 0 {
		addr = l.Candidates[0].RTP.Addr()
	}
	l.head(&b, addr)
	fmt.Fprintf(&b, "c=IN %s %s\r\nt=0 0\r\na=ice-ufrag:%s\r\na=ice-pwd:%s\r\n", family(addr), addr.Unmap(), l.Ufrag, l.Pwd)
	fmt.Fprintf(&b, "m=audio %d RTP/SAVP %d 9 0 8 %d\r\n", l.Addr.Port(), ptJamiOpus, ptDTMF8)
	for _, c := range []Codec{{ID: codec.Opus, PT: ptJamiOpus}, {ID: codec.G722, PT: 9}, {ID: codec.PCMU, PT: 0}, {ID: codec.PCMA, PT: 8}} {
		fmt.Fprintf(&b, "a=rtpmap:%d %s\r\n", c.PT, rtpmap(c))
	}
	fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\n", ptDTMF8, ptDTMF8)
	fmt.Fprintf(&b, "a=rtcp:%d IN %s %s\r\na=%s\r\n", l.RTCPPort, family(addr), addr.Unmap(), l.Dir)
	writeCrypto(&b, l.Crypto)
	l.components(&b, 1)
	return b.String()
}

// ptJamiOpus is the payload type that stock peers give to Opus.
const ptJamiOpus = 104

// components writes the candidates of RTP and of RTCP, its second component, as stock does:
// without what is related.
func (l *Local) components(b *strings.Builder, first int) {
	for k := range 2 {
		for i, c := range l.Candidates {
			at := c.RTP
			if k == 1 {
				at = c.RTCP
			}
			fmt.Fprintf(b, "a=candidate:%s %d UDP %d %s %d typ %s\r\n", c.foundation(), first+k, c.Type.priority(i, first+k), at.Addr().Unmap(), at.Port(), c.Type)
		}
	}
}
