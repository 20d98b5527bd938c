package sdp

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	pion "github.com/pion/sdp/v3"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/srtp"
)

// Parse reads an offer or an answer of a far end of that kind; an audio line of
// another kind is not used.
func Parse(text string, kind Kind) (*Remote, error) {
	if len(text) > MaxSize {
		return nil, ErrSize
	}
	var sd pion.SessionDescription
	if err := sd.Unmarshal([]byte(text)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(sd.MediaDescriptions) == 0 || len(sd.MediaDescriptions) > maxLines {
		return nil, fmt.Errorf("%w: %d media lines", ErrMalformed, len(sd.MediaDescriptions))
	}
	var lines []line
	var best *Remote
	failed := ErrNoAudio
	for i, md := range sd.MediaDescriptions {
		lines = append(lines, line{
			media: md.MediaName.Media, proto: strings.Join(md.MediaName.Protos, "/"),
			mid: attr(md.Attributes, "mid"), format: firstFormat(md),
		})
		if md.MediaName.Media != "audio" {
			continue
		}
		// A bundled line may have port 0 and still be offered (RFC 8843 §6).
		if md.MediaName.Port.Value == 0 && !has(md.Attributes, "bundle-only") {
			continue
		}
		r, err := parseAudio(&sd, md, kind)
		if err != nil {
			if failed == ErrNoAudio {
				failed = err
			}
			continue
		}
		r.at = i
		if best == nil || (best.Crypto == nil && r.Crypto != nil) {
			best = r
		}
	}
	if best == nil {
		return nil, failed
	}
	best.lines = lines
	for _, a := range sd.Attributes {
		if a.Key == "group" && strings.HasPrefix(a.Value, "BUNDLE") {
			best.bundle = slices.Contains(strings.Fields(a.Value), best.lines[best.at].mid)
		}
	}
	return best, nil
}

// firstFormat returns what stands for all formats of a line that is refused: the
// first one, with its rtpmap, which some want to see there too.
func firstFormat(md *pion.MediaDescription) (f [2]string) {
	if len(md.MediaName.Formats) == 0 {
		return [2]string{"0"}
	}
	f[0] = md.MediaName.Formats[0]
	for _, a := range md.Attributes {
		if pt, _, _ := strings.Cut(a.Value, " "); a.Key == "rtpmap" && pt == f[0] {
			f[1] = a.Value
		}
	}
	return f
}

func attr(as []pion.Attribute, key string) string {
	for _, a := range as {
		if a.Key == key {
			return strings.TrimSpace(a.Value)
		}
	}
	return ""
}

func has(as []pion.Attribute, key string) bool {
	return slices.ContainsFunc(as, func(a pion.Attribute) bool { return a.Key == key })
}

func parseAudio(sd *pion.SessionDescription, md *pion.MediaDescription, kind Kind) (*Remote, error) {
	proto := strings.Join(md.MediaName.Protos, "/")
	r := &Remote{Kind: kind, Dir: SendRecv, Mux: kind != Jami && has(md.Attributes, "rtcp-mux")}
	for _, as := range [][]pion.Attribute{sd.Attributes, md.Attributes} {
		for _, a := range as {
			if i := slices.Index(directions[:], a.Key); i >= 0 {
				r.Dir = Direction(i)
			}
		}
	}
	for _, a := range md.Attributes {
		if a.Key != "extmap" {
			continue
		}
		f := strings.Fields(a.Value)
		if len(f) < 2 || f[1] != LevelURI {
			continue
		}
		id, _, _ := strings.Cut(f[0], "/")
		if n, err := strconv.ParseUint(id, 10, 8); err == nil && n > 0 && n != 15 {
			r.Level = uint8(n)
		}
	}
	if n, err := strconv.ParseUint(attr(md.Attributes, "maxptime"), 10, 16); err == nil {
		r.MaxPtime = int(n)
	}
	if err := r.codecs(md); err != nil {
		return nil, err
	}
	secure := strings.Contains(proto, "SAVP")
	switch kind {
	case Jami:
		return r, r.jami(sd, md, proto)
	case Browser:
		if !secure {
			return nil, fmt.Errorf("%w: browsers' audio is UDP/TLS/RTP/SAVPF, not %s", ErrSecurity, proto)
		}
		return r, r.ice(sd, md)
	}
	if !slices.Contains([]string{"RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF"}, proto) {
		return nil, fmt.Errorf("%w: protocol %s", ErrNoAudio, proto)
	}
	r.Crypto = bestCrypto(md.Attributes)
	if secure && r.Crypto == nil {
		return nil, ErrSecurity
	}
	return r, r.address(sd, md)
}

// ice reads what a browser's line needs: it may stand in the line itself, in
// the session or, for a bundled line, in another one.
func (r *Remote) ice(sd *pion.SessionDescription, md *pion.MediaDescription) error {
	places := [][]pion.Attribute{md.Attributes, sd.Attributes}
	for _, m := range sd.MediaDescriptions {
		places = append(places, m.Attributes)
	}
	setup := ""
	for _, as := range places {
		if r.Ufrag == "" {
			r.Ufrag, r.Pwd = attr(as, "ice-ufrag"), attr(as, "ice-pwd")
		}
		setup = cmp.Or(setup, attr(as, "setup"))
		if len(r.Fingerprints) > 0 {
			continue
		}
		for _, a := range as {
			if f, ok := fingerprint(a); ok {
				r.Fingerprints = append(r.Fingerprints, f)
			}
		}
	}
	if err := r.passwords(); err != nil {
		return err
	}
	if len(r.Fingerprints) == 0 {
		return fmt.Errorf("%w: no a=fingerprint of SHA-256, SHA-384 or SHA-512 (RFC 8122 §5)", ErrSecurity)
	}
	if setup == "passive" || setup == "holdconn" {
		return fmt.Errorf("%w: a=setup:%s; the node takes the passive part itself", ErrSecurity, setup)
	}
	return nil
}

// digests are the lengths in bytes of the hashes that a fingerprint may use.
var digests = map[string]int{"sha-256": 32, "sha-384": 48, "sha-512": 64}

// fingerprint reads one that can be compared; others are passed over, as a peer may
// offer several (RFC 8122 §5).
func fingerprint(a pion.Attribute) (Fingerprint, bool) {
	h, d, ok := strings.Cut(strings.TrimSpace(a.Value), " ")
	if a.Key != "fingerprint" || !ok {
		return Fingerprint{}, false
	}
	f := Fingerprint{strings.ToLower(h), strings.ToUpper(strings.TrimSpace(d))}
	raw, err := hex.DecodeString(strings.ReplaceAll(f.Digest, ":", ""))
	return f, err == nil && len(raw) == digests[f.Hash] && len(f.Digest) == 3*len(raw)-1
}

// iceChars reports whether s has the form of an ICE user fragment or password.
func iceChars(s string, least int) bool {
	return len(s) >= least && len(s) <= 256 && strings.IndexFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/'
	}) < 0
}

// address reads c=, the port and a=rtcp.
func (r *Remote) address(sd *pion.SessionDescription, md *pion.MediaDescription) error {
	ci := cmp.Or(md.ConnectionInformation, sd.ConnectionInformation)
	if ci == nil || ci.Address == nil {
		return fmt.Errorf("%w: no c= line", ErrMalformed)
	}
	port := md.MediaName.Port.Value
	if port < 1 || port > 65535 {
		return fmt.Errorf("%w: port %d", ErrMalformed, port)
	}
	ip, err := netip.ParseAddr(ci.Address.Address)
	if err != nil {
		return nil // a host name: the leg learns the address from the packets
	}
	ip = ip.Unmap()
	if ip.IsUnspecified() {
		r.Hold = true
		r.Dir &^= Recv
		return nil
	}
	if ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%w: %s is not one host's address", ErrMalformed, ip)
	}
	r.Addr = netip.AddrPortFrom(ip, uint16(port))
	rtcp := port + 1
	if f := strings.Fields(attr(md.Attributes, "rtcp")); len(f) > 0 {
		if n, err := strconv.ParseUint(f[0], 10, 16); err == nil && n > 0 {
			rtcp = int(n)
		}
	}
	if r.Mux {
		rtcp = port
	}
	if rtcp <= 65535 {
		r.RTCP = netip.AddrPortFrom(ip, uint16(rtcp))
	}
	return nil
}

// codecs reads the payload types in common, the best first.
func (r *Remote) codecs(md *pion.MediaDescription) error {
	maps := map[string]string{"0": "pcmu/8000", "8": "pcma/8000", "9": "g722/8000"} // RFC 3551 §6
	for _, a := range md.Attributes {
		if pt, m, ok := strings.Cut(strings.TrimSpace(a.Value), " "); a.Key == "rtpmap" && ok {
			maps[pt] = strings.ToLower(strings.TrimSpace(m))
		}
	}
	dtmf := map[string]uint8{}
	for _, f := range md.MediaName.Formats {
		pt, err := strconv.ParseUint(f, 10, 7)
		if err != nil {
			continue
		}
		c := Codec{PT: uint8(pt), name: maps[f]}
		switch {
		case c.name == "opus/48000/2":
			c.ID = codec.Opus
		case c.name == "g722/8000", c.name == "g722/8000/1":
			c.ID = codec.G722
		case c.name == "pcmu/8000", c.name == "pcmu/8000/1":
			c.ID = codec.PCMU
		case c.name == "pcma/8000", c.name == "pcma/8000/1":
			c.ID = codec.PCMA
		default:
			if clock, ok := strings.CutPrefix(c.name, "telephone-event/"); ok && pt > 0 {
				dtmf[clock] = c.PT
			}
			continue
		}
		if !slices.ContainsFunc(r.Codecs, func(o Codec) bool { return o.ID == c.ID }) {
			r.Codecs = append(r.Codecs, c)
		}
	}
	if len(r.Codecs) == 0 {
		return ErrNoCodec
	}
	rank := func(c Codec) int { return min(int(c.ID), int(codec.PCMU)) } // of PCMU and PCMA the far end's first
	slices.SortStableFunc(r.Codecs, func(a, b Codec) int { return rank(a) - rank(b) })
	// Events share the clock of the audio (RFC 4733 §2.1).
	r.DTMF = dtmf["8000"]
	if pt := dtmf["48000"]; r.Codecs[0].ID == codec.Opus && pt != 0 {
		r.DTMF, r.dtmf48 = pt, true
	}
	return nil
}

var suites = []srtp.Profile{srtp.GCM, srtp.CM80, srtp.CM32}

// bestCrypto chooses among the a=crypto lines (RFC 4568 §9.1); lines with an MKI
// or session parameters that change the packets are passed over.
func bestCrypto(as []pion.Attribute) *Crypto {
	var best *Crypto
	rank := len(suites)
	for _, a := range as {
		if a.Key != "crypto" {
			continue
		}
		f := strings.Fields(a.Value)
		if len(f) < 3 || len(f[0]) > 9 {
			continue
		}
		if slices.ContainsFunc(f[3:], func(p string) bool { return !strings.HasPrefix(p, "WSH=") && p != "KDR=0" }) {
			continue
		}
		i := slices.IndexFunc(suites, func(p srtp.Profile) bool { return p.String() == f[1] })
		if i < 0 || i >= rank {
			continue
		}
		inline, ok := strings.CutPrefix(f[2], "inline:")
		parts := strings.Split(inline, "|")
		if !ok || len(parts) > 3 || slices.ContainsFunc(parts[1:], func(p string) bool { return strings.Contains(p, ":") }) {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(parts[0])
		if err != nil {
			raw, err = base64.RawStdEncoding.DecodeString(parts[0])
		}
		if err != nil || len(raw) != srtp.KeyLen+suites[i].SaltLen() {
			continue
		}
		rank = i
		best = &Crypto{Tag: f[0], Keys: srtp.Keys{Profile: suites[i], Key: raw[:srtp.KeyLen], Salt: raw[srtp.KeyLen:]}}
	}
	return best
}
