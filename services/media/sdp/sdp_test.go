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

func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n" }

const key30 = "inline:AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwN"

func phone(m ...string) string {
	return lines(append([]string{"v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0"}, m...)...)
}

func local() *Local {
	return &Local{Session: 7, Version: 1, Addr: netip.MustParseAddrPort("192.0.2.1:40002"), RTCPPort: 40003, SSRC: 9, CName: "c", Dir: SendRecv}
}

func TestPhoneOffers(t *testing.T) {
	for _, c := range []struct {
		name  string
		offer string
		check func(t *testing.T, r *Remote)
		has   []string
		hasNo []string
	}{
		{name: "preference", offer: phone("m=audio 4000 RTP/AVP 8 0 9 96 101", "a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000"),
			check: func(t *testing.T, r *Remote) {
				if r.Codec().ID != codec.Opus || r.Codec().PT != 96 || len(r.Codecs) != 4 || r.Codecs[2].ID != codec.PCMA || r.DTMF != 101 {
					t.Errorf("%+v", r)
				}
				if r.Addr.String() != "192.0.2.7:4000" || r.RTCP.Port() != 4001 {
					t.Errorf("%s %s", r.Addr, r.RTCP)
				}
			}, has: []string{"m=audio 40002 RTP/AVP 96 101\r\n", "useinbandfec=1", "a=sendrecv", "c=IN IP4 192.0.2.1", "a=ptime:20"}, hasNo: []string{"crypto", "rtcp-mux"}},
		{name: "static types", offer: phone("m=audio 4000 RTP/AVP 0"), has: []string{"a=rtpmap:0 PCMU/8000"}},
		{name: "best key", offer: phone("m=audio 4000 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_32 "+key30, "a=crypto:2 AES_CM_128_HMAC_SHA1_80 "+key30+"|2^20"),
			check: func(t *testing.T, r *Remote) {
				if r.Crypto == nil || r.Crypto.Tag != "2" || r.Crypto.Keys.Profile != srtp.CM80 {
					t.Errorf("%+v", r.Crypto)
				}
			}, has: []string{"RTP/SAVP 0"}},
		{name: "secure of two", offer: phone("m=audio 4000 RTP/AVP 0", "m=audio 4002 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 "+key30),
			check: func(t *testing.T, r *Remote) {
				if r.Crypto == nil || r.Addr.Port() != 4002 {
					t.Errorf("%+v", r)
				}
			}, has: []string{"m=audio 0 RTP/AVP 0\r\n", "m=audio 40002 RTP/SAVP 0"}},
		{name: "where possible", offer: phone("m=audio 4000 RTP/AVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 "+key30),
			check: func(t *testing.T, r *Remote) {
				if r.Crypto == nil {
					t.Error("key passed over")
				}
			}},
		{name: "video refused", offer: phone("m=video 5000 RTP/AVP 99", "a=rtpmap:99 H264/90000", "m=audio 4000 RTP/AVP 0"),
			has: []string{"m=video 0 RTP/AVP 99\r\n"}},
		{name: "hold, old", offer: strings.Replace(phone("m=audio 4000 RTP/AVP 0"), "c=IN IP4 192.0.2.7", "c=IN IP4 0.0.0.0", 1),
			check: func(t *testing.T, r *Remote) {
				if !r.Hold || r.Dir&Recv != 0 {
					t.Errorf("%+v", r)
				}
			}, has: []string{"a=recvonly"}},
		{name: "hold", offer: phone("m=audio 4000 RTP/AVP 0", "a=sendonly"), has: []string{"a=recvonly"}},
		{name: "session direction", offer: phone("a=inactive", "m=audio 4000 RTP/AVP 0"), has: []string{"a=inactive"}},
		{name: "mux", offer: phone("m=audio 4000 RTP/AVP 0", "a=rtcp-mux"), has: []string{"a=rtcp-mux"}},
		{name: "rtcp port", offer: phone("m=audio 4000 RTP/AVP 0", "a=rtcp:4444"),
			check: func(t *testing.T, r *Remote) {
				if r.RTCP.Port() != 4444 {
					t.Errorf("%s", r.RTCP)
				}
			}},
		{name: "host name", offer: strings.Replace(phone("m=audio 4000 RTP/AVP 0"), "c=IN IP4 192.0.2.7", "c=IN IP4 phone.example", 1),
			check: func(t *testing.T, r *Remote) {
				if r.Addr.IsValid() {
					t.Errorf("%s", r.Addr)
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Parse(c.offer, Phone)
			if err != nil {
				t.Fatal(err)
			}
			if c.check != nil {
				c.check(t, r)
			}
			got := r.Answer(local())
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
			if strings.Count(got, "m=") != strings.Count(c.offer, "m=") {
				t.Errorf("media lines of\n%s", got)
			}
		})
	}
}

// A fingerprint and a password of the right form.
const (
	print32 = "0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9:0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9"
	pwd22   = "abcdefghijklmnopqrstuv"
)

func browser(ufrag, pwd, fingerprint string) string {
	return phone("m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:"+ufrag, "a=ice-pwd:"+pwd, "a=fingerprint:"+fingerprint)
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		kind       Kind
		want       error
	}{
		{"too long", strings.Repeat("a", MaxSize+1), Phone, ErrSize},
		{"nonsense", "hello", Phone, ErrMalformed},
		{"no media", phone(), Phone, ErrMalformed},
		{"no audio", phone("m=video 5 RTP/AVP 99"), Phone, ErrNoAudio},
		{"no codec", phone("m=audio 5 RTP/AVP 3 18"), Phone, ErrNoCodec},
		{"no key", phone("m=audio 5 RTP/SAVP 0"), Phone, ErrSecurity},
		{"short key", phone("m=audio 5 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA"), Phone, ErrSecurity},
		{"key with MKI", phone("m=audio 5 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 "+key30+"|2^20|1:4"), Phone, ErrSecurity},
		{"unencrypted", phone("m=audio 5 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 "+key30+" UNENCRYPTED_SRTP"), Phone, ErrSecurity},
		{"multicast", strings.ReplaceAll(phone("m=audio 5 RTP/AVP 0"), "192.0.2.7", "224.0.0.1"), Phone, ErrMalformed},
		{"port 0", phone("m=audio 0 RTP/AVP 0"), Phone, ErrNoAudio},
		{"browser without keys", phone("m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2"), Browser, ErrSecurity},
		{"browser with a short password", browser("ufrag", "p", "sha-256 "+print32), Browser, ErrSecurity},
		{"browser with a long fragment", browser(strings.Repeat("u", 257), pwd22, "sha-256 "+print32), Browser, ErrSecurity},
		{"browser with a NUL", browser("uf\x00rag", pwd22, "sha-256 "+print32), Browser, ErrSecurity},
		{"half a fingerprint", browser("ufrag", pwd22, "sha-256 "+print32[:47]), Browser, ErrSecurity},
		{"fingerprint without colons", browser("ufrag", pwd22, "sha-256 "+strings.ReplaceAll(print32, ":", "")), Browser, ErrSecurity},
		{"fingerprint of an unknown hash", browser("ufrag", pwd22, "sha-1 "+print32[:59]), Browser, ErrSecurity},
		{"browser's line on a phone", phone("m=audio 9 UDP/TLS/RTP/SAVPF 0"), Phone, ErrNoAudio},
	} {
		if _, err := Parse(c.text, c.kind); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestBundleOnly(t *testing.T) {
	r, err := Parse(lines("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE v a", "a=fingerprint:md5 AA", "a=fingerprint:sha-256 "+strings.ToLower(print32),
		"m=video 9 UDP/TLS/RTP/SAVPF 96", "a=mid:v", "a=ice-ufrag:ufrag", "a=ice-pwd:"+pwd22, "a=setup:actpass",
		"m=audio 0 UDP/TLS/RTP/SAVPF 111", "a=mid:a", "a=bundle-only", "a=rtpmap:111 OPUS/48000/2", "a=extmap:3/sendrecv "+LevelURI), Browser)
	if err != nil {
		t.Fatal(err)
	}
	if r.Ufrag != "ufrag" || r.Level != 3 || len(r.Fingerprints) != 1 || r.Fingerprints[0].Digest != print32 {
		t.Errorf("%+v", r)
	}
	l := local()
	l.Candidates = []Candidate{ours(Host, "192.0.2.1", 40000), ours(Host, "2001:db8::1", 40000), ours(Relay, "203.0.113.1", 50000)}
	l.Ufrag, l.Pwd, l.Fingerprint = "lu", "lp", Fingerprint{"sha-256", "AA"}
	got := r.Answer(l)
	for _, want := range []string{"a=group:BUNDLE a\r\n", "m=video 0 ", "a=ice-lite", "a=setup:passive", "a=extmap:3 ", "2001:db8::1 40000 typ host\r\n", " 203.0.113.1 50000 typ relay raddr "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestOwnOffer: what we offer we also understand.
func TestOwnOffer(t *testing.T) {
	l := local()
	l.Crypto = &Crypto{Tag: "1", Keys: srtp.Keys{Profile: srtp.CM80, Key: make([]byte, 16), Salt: make([]byte, 14)}}
	r, err := Parse(Offer(l), Phone)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Codecs) != 4 || r.Crypto == nil || !r.Mux || r.DTMFClock() != 48000 {
		t.Errorf("%+v", r)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(phone("m=audio 4000 RTP/AVP 8 0 9 96 101", "a=rtpmap:96 opus/48000/2"), uint8(Phone))
	f.Add(phone("m=audio 4000 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 "+key30), uint8(Phone))
	f.Add(phone("m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:ufrag", "a=ice-pwd:"+pwd22, "a=fingerprint:sha-256 "+print32), uint8(Browser))
	for _, o := range []string{stockOffer, stockVideo, stockHold} {
		f.Add(strings.ReplaceAll(o, "\n", "\r\n"), uint8(Jami))
	}
	f.Fuzz(func(t *testing.T, text string, kind uint8) {
		r, err := Parse(text, Kind(kind%3))
		if err != nil {
			return
		}
		got := r.Answer(local())
		if n := strings.Count("\n"+got, "\nm="); n != len(r.lines) {
			t.Fatalf("%d media lines for %d:\n%s", n, len(r.lines), got)
		}
		if strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") {
			t.Fatalf("a bare line feed in\n%q", got)
		}
		_ = fmt.Sprint(r.Codec())
	})
}
