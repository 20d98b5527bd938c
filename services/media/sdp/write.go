package sdp

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/parley-jami/parley/services/media/codec"
)

// Payload types of our own offers; those of 0 to 95 are fixed by RFC 3551.
const (
	ptOpus   = 96
	ptDTMF48 = 100
	ptDTMF8  = 101
)

// Answer writes the answer to r. The caller has put into l what the transport of r
// needs; l.Dir is cut to what r allows.
func (r *Remote) Answer(l *Local) string {
	if r.Kind == Jami {
		return r.answerJami(l)
	}
	var b strings.Builder
	addr := l.Addr.Addr()
	if r.Kind == Browser && len(l.Candidates) > 0 {
		addr = l.Candidates[0].RTP.Addr()
	}
	l.head(&b, addr)
	if r.Kind != Browser {
		fmt.Fprintf(&b, "c=IN %s %s\r\n", family(addr), addr.Unmap())
	}
	b.WriteString("t=0 0\r\n")
	if r.Kind == Browser {
		if r.bundle {
			fmt.Fprintf(&b, "a=group:BUNDLE %s\r\n", r.lines[r.at].mid)
		}
		b.WriteString("a=ice-lite\r\na=msid-semantic: WMS parley\r\n")
	}
	for i, m := range r.lines {
		if i != r.at {
			reject(&b, m)
			continue
		}
		r.audio(&b, l, m)
	}
	return b.String()
}

func reject(b *strings.Builder, m line) {
	fmt.Fprintf(b, "m=%s 0 %s %s\r\n", m.media, m.proto, m.format[0])
	if m.mid != "" {
		fmt.Fprintf(b, "c=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:%s\r\n", m.mid)
	}
	if m.format[1] != "" {
		fmt.Fprintf(b, "a=rtpmap:%s\r\n", m.format[1])
	}
}

func (r *Remote) audio(b *strings.Builder, l *Local, m line) {
	c := r.Codec()
	pts := fmt.Sprint(c.PT)
	if r.DTMF != 0 {
		pts += fmt.Sprintf(" %d", r.DTMF)
	}
	port := l.Addr.Port()
	if r.Kind == Browser {
		port = 9
		if len(l.Candidates) > 0 {
			port = l.Candidates[0].RTP.Port()
		}
	}
	fmt.Fprintf(b, "m=audio %d %s %s\r\n", port, m.proto, pts)
	if r.Kind == Browser && len(l.Candidates) > 0 {
		a := l.Candidates[0].RTP.Addr()
		fmt.Fprintf(b, "c=IN %s %s\r\n", family(a), a.Unmap())
	}
	if m.mid != "" {
		fmt.Fprintf(b, "a=mid:%s\r\n", m.mid)
	}
	writeCodec(b, c)
	if r.DTMF != 0 {
		clock := 8000
		if r.dtmf48 {
			clock = 48000
		}
		fmt.Fprintf(b, "a=rtpmap:%d telephone-event/%d\r\na=fmtp:%d 0-15\r\n", r.DTMF, clock, r.DTMF)
	}
	b.WriteString("a=ptime:20\r\n")
	if r.Level != 0 {
		fmt.Fprintf(b, "a=extmap:%d %s\r\n", r.Level, LevelURI)
	}
	dir := l.Dir & r.Dir.Reverse()
	fmt.Fprintf(b, "a=%s\r\n", dir)
	if r.Mux {
		b.WriteString("a=rtcp-mux\r\n")
	} else if l.RTCPPort != 0 && l.RTCPPort != l.Addr.Port()+1 {
		fmt.Fprintf(b, "a=rtcp:%d\r\n", l.RTCPPort)
	}
	if r.Kind == Browser {
		l.transport(b)
	} else if l.Crypto != nil {
		writeCrypto(b, l.Crypto)
	}
	if dir&Send != 0 && r.Kind == Browser {
		fmt.Fprintf(b, "a=msid:parley audio\r\na=ssrc:%d cname:%s\r\na=ssrc:%d msid:parley audio\r\n", l.SSRC, l.CName, l.SSRC)
	}
}

// transport writes ICE and DTLS. The first candidate of each type has the highest preference.
func (l *Local) transport(b *strings.Builder) {
	fmt.Fprintf(b, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:%s %s\r\na=setup:passive\r\n",
		l.Ufrag, l.Pwd, l.Fingerprint.Hash, l.Fingerprint.Digest)
	for i, c := range l.Candidates {
		fmt.Fprintf(b, "a=candidate:%d 1 udp %d %s %d typ %s%s\r\n", i+1, c.Type.priority(i, 1), c.RTP.Addr().Unmap(), c.RTP.Port(), c.Type, c.Type.related())
	}
	b.WriteString("a=end-of-candidates\r\n")
}

func writeCodec(b *strings.Builder, c Codec) {
	fmt.Fprintf(b, "a=rtpmap:%d %s\r\n", c.PT, rtpmap(c))
	if c.ID == codec.Opus {
		fmt.Fprintf(b, "a=fmtp:%d minptime=10;useinbandfec=1;stereo=0;sprop-stereo=0\r\n", c.PT)
	}
}

// rtpmap is a codec's name and clock; Jami compares the names with their case.
func rtpmap(c Codec) string {
	switch c.ID {
	case codec.G722:
		return "G722/8000"
	case codec.PCMU:
		return "PCMU/8000"
	case codec.PCMA:
		return "PCMA/8000"
	}
	return "opus/48000/2"
}

func writeCrypto(b *strings.Builder, c *Crypto) {
	raw := slices.Concat(c.Keys.Key, c.Keys.Salt)
	fmt.Fprintf(b, "a=crypto:%s %s inline:%s\r\n", c.Tag, c.Keys.Profile, base64.StdEncoding.EncodeToString(raw))
}

// Offer writes an offer of plain RTP, with a key for those who encrypt where
// they can (RFC 8643).
func Offer(l *Local) string {
	var b strings.Builder
	l.head(&b, l.Addr.Addr())
	fmt.Fprintf(&b, "c=IN %s %s\r\nt=0 0\r\n", family(l.Addr.Addr()), l.Addr.Addr().Unmap())
	fmt.Fprintf(&b, "m=audio %d RTP/AVP %d 9 0 8 %d %d\r\n", l.Addr.Port(), ptOpus, ptDTMF48, ptDTMF8)
	for _, c := range []Codec{{ID: codec.Opus, PT: ptOpus}, {ID: codec.G722, PT: 9}, {ID: codec.PCMU, PT: 0}, {ID: codec.PCMA, PT: 8}} {
		writeCodec(&b, c)
	}
	fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/48000\r\na=fmtp:%d 0-15\r\n", ptDTMF48, ptDTMF48)
	fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\n", ptDTMF8, ptDTMF8)
	fmt.Fprintf(&b, "a=ptime:20\r\na=%s\r\n", l.Dir)
	if l.RTCPPort != 0 && l.RTCPPort != l.Addr.Port()+1 {
		fmt.Fprintf(&b, "a=rtcp:%d\r\n", l.RTCPPort)
	}
	b.WriteString("a=rtcp-mux\r\n")
	if l.Crypto != nil {
		writeCrypto(&b, l.Crypto)
	}
	return b.String()
}
