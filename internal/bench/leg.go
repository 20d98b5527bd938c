package bench

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pion/srtp/v2"
)

// payloadType is Opus in our offers, levelID the RFC 6464 extension.
const (
	payloadType = 96
	levelID     = 1
)

const levelURI = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

// keyLen is the length of the keys of both suites.
const keyLen = 16

// suite is a way to protect packets, as SDES names it (RFC 4568 §6.2, RFC 7714 §14.2).
type suite struct {
	name    string
	profile srtp.ProtectionProfile // also of DTLS-SRTP (RFC 5764 §4.1.2)
	saltLen int
}

var (
	suiteCM  = suite{"AES_CM_128_HMAC_SHA1_80", srtp.ProtectionProfileAes128CmHmacSha1_80, 14}
	suiteGCM = suite{"AEAD_AES_128_GCM", srtp.ProtectionProfileAeadAes128Gcm, 12}
)

// transport is how a leg's packets travel.
type transport struct {
	suite *suite // nil: plain RTP
	dtls  bool   // keys by ICE and DTLS, as browsers have them; else by SDES
}

var transports = map[string]transport{
	RTP: {}, SRTP: {&suiteCM, false}, SRTPGCM: {&suiteGCM, false}, DTLS: {&suiteGCM, true}, DTLSCM: {&suiteCM, true},
}

// leg is one participant.
type leg struct {
	id     string
	addr   netip.Addr
	index  int
	speaks bool
	plain  bool // says no level
	asked  bool // to join
	transport
	key     [keyLen + 14]byte // SDES
	way     atomic.Pointer[way]
	dialing atomic.Pointer[checks] // of the way that is being connected, beside the one that is there
	home    netip.Addr             // of the node's worker at which it joined
	moving  atomic.Bool

	sending sync.Mutex // guards what a packet is made of: the next one, and the keys of the way
	seq     uint16
	ts      uint32
	ssrc    uint32

	// Of the goroutine that sends.
	voice  []voiceFrame // of who sends: again and again
	shift  int          // where in the voice it begins, in frames
	marked bool         // the voice has the chirps
	next   int          // tick of the next packet of who only listens; 0: it was not yet planned
	begun  bool         // a first one was sent

	got    received
	gaps   gaps
	mixers mixers
	run    series // instead of got, where legs come and go
}

// way is how a leg's packets go to the node and come from there. Who moves has another one.
type way struct {
	to     netip.AddrPort // the node's port
	level  byte           // id of the extension, 0: not taken
	out    *srtp.Context
	in     *srtp.Context
	ice    *checks // of DTLS
	answer string  // the node's SDP
}

// loopback is where legs are on the node's own machine: 127.77.0.0/16.
var loopback = [2]byte{127, 77}

// address spreads legs over a /16, avoiding .0 and .255.
func address(net [2]byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{net[0], net[1], byte(i / 250), byte(1 + i%250)})
}

// indexOf is the inverse of address.
func indexOf(a [4]byte) int { return int(a[2])*250 + int(a[3]) - 1 }

func newLeg(i int, addr netip.Addr, name string, speaks bool, t transport) (*leg, error) {
	l := &leg{id: name, addr: addr, index: i, speaks: speaks, transport: t}
	var b [8]byte
	if _, err := rand.Read(l.key[:]); err != nil {
		return nil, err
	}
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	l.seq, l.ssrc = binary.BigEndian.Uint16(b[:])&0x7fff, binary.BigEndian.Uint32(b[2:])
	return l, nil
}

// newWay begins a way that is not negotiated yet.
func (l *leg) newWay() *way {
	w := new(way)
	if l.dtls {
		w.ice = newChecks()
	}
	return w
}

// checks are those that a packet from an address of the node's is for; nil: for none.
func (l *leg) checks(from netip.AddrPort) *checks {
	if c := l.dialing.Load(); c != nil && c.to == from {
		return c
	}
	if w := l.way.Load(); w != nil {
		return w.ice
	}
	return nil
}

// offer writes the leg's description.
func (l *leg) offer(w *way, port int) string {
	profile, crypto := "RTP/AVP", ""
	switch {
	case l.dtls:
		profile = "UDP/TLS/RTP/SAVPF"
		crypto = w.ice.offer()
	case l.suite != nil:
		profile = "RTP/SAVP"
		crypto = "a=crypto:1 " + l.suite.name + " inline:" + base64.StdEncoding.EncodeToString(l.key[:keyLen+l.suite.saltLen]) + "\r\n"
	}
	level := fmt.Sprintf("a=extmap:%d %s\r\n", levelID, levelURI)
	if l.plain {
		level = ""
	}
	dir := "recvonly"
	if l.speaks {
		dir = "sendrecv"
	}
	return fmt.Sprintf("v=0\r\no=- %d 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d %s %d\r\n"+
		"a=rtpmap:%d opus/48000/2\r\na=fmtp:%d useinbandfec=1\r\n%s%sa=ptime:20\r\na=maxptime:20\r\na=rtcp-mux\r\na=%s\r\n",
		1000+l.index, l.addr, l.addr, port, profile, payloadType, payloadType, payloadType, level, crypto, dir)
}

// accept reads the node's answer, or its offer to go another way.
func (l *leg) accept(w *way, answer string) error {
	host := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var far []byte // SDES key
	for line := range strings.SplitSeq(answer, "\n") {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "c=IN IP4 ") && len(f) > 2:
			if a, err := netip.ParseAddr(f[2]); err == nil && a.Is4() && !a.IsUnspecified() {
				host = a
			}
		case strings.HasPrefix(line, "m=audio ") && len(f) > 1:
			port, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil || port == 0 {
				return fmt.Errorf("the answer has no port: %q", line)
			}
			w.to = netip.AddrPortFrom(host, uint16(port))
		case strings.HasPrefix(line, "a=extmap:") && strings.Contains(line, levelURI):
			w.level = levelID
		case strings.HasPrefix(line, "a=crypto:") && len(f) >= 3 && l.suite != nil && !l.dtls:
			raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.Split(f[2], "|")[0], "inline:"))
			if err != nil || f[1] != l.suite.name || len(raw) != keyLen+l.suite.saltLen {
				return fmt.Errorf("the answer's key isn't one of %s", l.suite.name)
			}
			far = raw
		case l.dtls:
			w.ice.answer(line)
		}
	}
	if !w.to.IsValid() {
		return fmt.Errorf("the answer takes no audio: %q", answer)
	}
	w.to = netip.AddrPortFrom(host, w.to.Port()) // c= of the medium follows m=
	w.answer = answer
	switch {
	case l.suite == nil:
		return nil
	case l.dtls:
		return w.ice.complete(w.to)
	case far == nil:
		return fmt.Errorf("the answer has no key")
	}
	return w.protect(l.suite, l.key[:keyLen+l.suite.saltLen], far)
}

// protect takes the keys of both directions, each with its salt.
func (w *way) protect(by *suite, own, far []byte) (err error) {
	if w.in, err = srtp.CreateContext(far[:keyLen], far[keyLen:], by.profile); err != nil {
		return fmt.Errorf("the node's key: %w", err)
	}
	if w.out, err = srtp.CreateContext(own[:keyLen], own[keyLen:], by.profile); err != nil {
		return fmt.Errorf("own key: %w", err)
	}
	return nil
}

// packet builds the next RTP packet (RFC 3550 §5.1) in buf.
func (l *leg) packet(w *way, buf []byte, payload []byte, level byte) ([]byte, error) {
	l.sending.Lock()
	defer l.sending.Unlock()
	l.seq++
	l.ts += frameSamples
	b := append(buf[:0], 0x80, payloadType)
	b = binary.BigEndian.AppendUint16(b, l.seq)
	b = binary.BigEndian.AppendUint32(b, l.ts)
	b = binary.BigEndian.AppendUint32(b, l.ssrc)
	if w.level != 0 {
		b[0] |= 0x10
		voice := byte(0)
		if level < 50 {
			voice = 0x80
		}
		b = append(b, 0xbe, 0xde, 0, 1, w.level<<4, level|voice, 0, 0) // RFC 8285 §4.2
	}
	b = append(b, payload...)
	if w.out == nil {
		return b, nil
	}
	return w.out.EncryptRTP(b[len(b):], b, nil)
}

// report builds a receiver report without a block (RFC 3550 §6.4.2) in buf.
func (l *leg) report(w *way, buf []byte) ([]byte, error) {
	l.sending.Lock()
	defer l.sending.Unlock()
	b := append(buf[:0], 0x80, 201, 0, 1)
	b = binary.BigEndian.AppendUint32(b, l.ssrc)
	return w.out.EncryptRTCP(b[len(b):], b, nil)
}
