package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/srtp"
)

// What stock Jami offers (connect-and-calls §0, §3.3): audio alone as Debian's build has it,
// audio and video of the whole list of codecs, and a re-INVITE without new ICE.
const (
	jamiHead = "v=0\no=peer 3973478400 0 IN IP4 10.77.0.2\ns=Call ID 7215403958340\nc=IN IP4 10.77.0.2\nt=0 0\n"
	jamiICE  = "a=ice-ufrag:36bc14f9\na=ice-pwd:7c8f7c2665eef4e1567c7d31\n"
	jamiKey  = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 " + key30 + "\n"

	stockOffer = jamiHead + jamiICE + "m=audio 16384 RTP/SAVP 104 101\na=rtpmap:104 opus/48000/2\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n" +
		"a=rtcp:16385 IN IP4 10.77.0.2\na=sendrecv\n" + jamiKey +
		"a=candidate:Ha4d0002 1 UDP 2130706431 10.77.0.2 16384 typ host\na=candidate:Ha4d0002 2 UDP 2130706430 10.77.0.2 16385 typ host\n" +
		"a=candidate:Hc6e0fe2d 1 UDP 2130706175 fe80::1c2d:3eff:fe4f:5a6b 16384 typ host\n"
	stockVideo = jamiHead + jamiICE + "m=audio 16384 RTP/SAVP 104 9 2 112 111 110 8 0 101\na=rtpmap:104 opus/48000/2\na=rtpmap:9 G722/8000\na=rtpmap:2 G726-32/8000\n" +
		"a=rtpmap:112 speex/32000\na=rtpmap:111 speex/16000\na=rtpmap:110 speex/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:0 PCMU/8000\na=rtpmap:101 telephone-event/8000\n" +
		"a=fmtp:101 0-15\na=rtcp:16385 IN IP4 10.77.0.2\na=sendrecv\n" + jamiKey + "a=candidate:Ha4d0002 1 UDP 2130706431 10.77.0.2 16384 typ host\n" +
		"m=video 16386 RTP/SAVP 96 97\na=rtpmap:96 H264/90000\na=fmtp:96 profile-level-id=428029\na=rtpmap:97 VP8/90000\na=rtcp:16387 IN IP4 10.77.0.2\na=sendrecv\n" +
		jamiKey + "a=candidate:Ha4d0002 3 UDP 2130706429 10.77.0.2 16386 typ host\n"
	stockHold = jamiHead + "m=audio 16390 RTP/SAVP 104 101\na=rtpmap:104 opus/48000/2\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n" +
		"a=rtcp:16391 IN IP4 10.77.0.2\na=sendrecv\n" + jamiKey
)

// Checks go to addresses alone that they can reach.
func TestJamiCandidates(t *testing.T) {
	text := stockOffer
	for i := range 20 {
		text += fmt.Sprintf("a=candidate:X 1 UDP 1 192.0.2.%d 5000 typ srflx\n", i)
	}
	for _, bad := range []string{"1 TCP 1 192.0.2.99 9 typ host tcptype active", "1 UDP 1 0.0.0.0 5 typ host", "1 UDP 1 224.0.0.1 5 typ host", "2 UDP 1 192.0.2.1 0 typ host",
		"2 UDP 1 host.local 5 typ host", "2 UDP 1 192.0.2.1 70000 typ host", "0 UDP 1 192.0.2.1 5 typ host", "2 UDP 1 fe80::1%eth0 5 typ host", "2 UDP 1 255.255.255.255 5 typ host", "2", ""} {
		text += "a=candidate:X " + bad + "\n"
	}
	r, err := Parse(strings.ReplaceAll(text, "\n", "\r\n"), Jami)
	if err != nil {
		t.Fatal(err)
	}
	c := r.Candidates
	if len(c[0]) != MaxCandidates || c[0][0] != netip.MustParseAddrPort("10.77.0.2:16384") || len(c[1]) != 1 || c[1][0] != netip.MustParseAddrPort("10.77.0.2:16385") {
		t.Errorf("%v", c)
	}
}

func ours(t CandidateType, ip string, port uint16) Candidate {
	a := netip.MustParseAddr(ip)
	return Candidate{t, netip.AddrPortFrom(a, port), netip.AddrPortFrom(a, port+1)}
}

func jamiLocal() *Local {
	return &Local{Session: 7, Version: 1, Addr: netip.MustParseAddrPort("192.0.2.1:40002"), RTCPPort: 40003, Dir: SendRecv, Ufrag: "ourfrag1", Pwd: "ourpasswordourpassword24",
		Candidates: []Candidate{ours(Host, "192.0.2.1", 40002), ours(Host, "2001:db8::1", 40002), ours(ServerReflexive, "198.51.100.1", 40002), ours(Relay, "203.0.113.1", 50000)},
		Crypto:     &Crypto{Tag: "1", Keys: srtp.Keys{Profile: srtp.CM80, Key: make([]byte, 16), Salt: make([]byte, 14)}}}
}

func TestJamiOffers(t *testing.T) {
	for _, c := range []struct {
		name, offer string
		has, hasNo  []string
	}{
		{"audio", stockOffer, []string{"a=ice-ufrag:ourfrag1\r\na=ice-pwd:ourpasswordourpassword24\r\nm=audio 40002 RTP/SAVP 104 101\r\na=rtpmap:104 opus/48000/2\r\n",
			"a=rtpmap:101 telephone-event/8000\r\n", "a=rtcp:40003 IN IP4 192.0.2.1\r\na=sendrecv\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
			"a=candidate:Hc0000201 1 UDP 2130706431 192.0.2.1 40002 typ host\r\n", "a=candidate:Hc0000201 2 UDP 2130706430 192.0.2.1 40003 typ host\r\n",
			" 2 UDP 2130706174 2001:db8::1 40003 typ host\r\n",
			"a=candidate:Sc6336401 1 UDP 1694498303 198.51.100.1 40002 typ srflx\r\n", "a=candidate:Rcb007101 2 UDP 16776446 203.0.113.1 50001 typ relay\r\n"}, []string{"rtcp-mux", "ptime", "fmtp:104", "ice-lite", "mid"}},
		{"audio and video", stockVideo, []string{"m=audio 40002 RTP/SAVP 104 101\r\n", "m=video 0 RTP/SAVP 96\r\na=rtpmap:96 H264/90000\r\na=inactive\r\n"}, []string{" 3 UDP", "G722"}},
		{"no new transport", stockHold, []string{"m=audio 40002 RTP/SAVP 104 101\r\n", "a=crypto:1"}, []string{"ice-", "candidate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Parse(strings.ReplaceAll(c.offer, "\n", "\r\n"), Jami)
			if err != nil {
				t.Fatal(err)
			}
			if r.Codec().ID != codec.Opus || r.Codec().PT != 104 || r.DTMF != 101 || r.Mux || r.Crypto == nil {
				t.Errorf("%+v", r)
			}
			l := jamiLocal()
			if r.Ufrag == "" {
				l.Ufrag, l.Pwd = "", ""
			}
			got := r.Answer(l)
			for _, want := range c.has {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			for _, no := range c.hasNo {
				if strings.Contains(got, no) {
					t.Errorf("%q in\n%s", no, got)
				}
			}
			back, err := Parse(got, Jami)
			if err != nil || back.Ufrag != l.Ufrag || !back.Crypto.Keys.Equal(l.Crypto.Keys) {
				t.Errorf("our answer reads as %+v, %v", back, err)
			}
		})
	}
}

func TestJamiRefused(t *testing.T) {
	for _, c := range []struct {
		name, offer string
		want        error
	}{
		{"no key", strings.ReplaceAll(stockOffer, jamiKey, ""), ErrSecurity},
		{"plain RTP", strings.ReplaceAll(stockOffer, "RTP/SAVP", "RTP/AVP"), ErrNoAudio},
		{"half of ICE", strings.ReplaceAll(stockOffer, "a=ice-pwd:7c8f7c2665eef4e1567c7d31\n", ""), ErrSecurity},
		{"no codec", strings.ReplaceAll(stockOffer, "opus/48000/2", "speex/16000"), ErrNoCodec},
		{"video alone", jamiHead + jamiICE + "m=video 16386 RTP/SAVP 96\na=rtpmap:96 H264/90000\n" + jamiKey, ErrNoAudio},
	} {
		if _, err := Parse(strings.ReplaceAll(c.offer, "\n", "\r\n"), Jami); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// What we offer to a Jami peer is what stock callers offer, and shorter than its buffer.
func TestOwnJamiOffer(t *testing.T) {
	l := local()
	l.Ufrag, l.Pwd = "ufrag123", pwd22
	l.Crypto = &Crypto{Tag: "1", Keys: srtp.Keys{Profile: srtp.CM80, Key: make([]byte, 16), Salt: make([]byte, 14)}}
	for i := range 8 {
		l.Candidates = append(l.Candidates, ours(Host, fmt.Sprintf("2001:db8:0:ffff:ffff:ffff:ffff:%x", i), 40002))
	}
	text := OfferJami(l)
	r, err := Parse(text, Jami)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Codecs) != 4 || r.Codec().PT != 104 || r.Crypto == nil || r.Ufrag != l.Ufrag || r.Pwd != l.Pwd || r.DTMF != 101 || r.Mux || len(text) > 3000 {
		t.Errorf("%+v of %d bytes", r, len(text))
	}
	for _, no := range []string{"ice-lite", "rtcp-mux", "a=mid"} {
		if strings.Contains(text, no) {
			t.Errorf("%s in\n%s", no, text)
		}
	}
}
