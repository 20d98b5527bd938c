package leg

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/ice"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// jamiPeer is the media of a stock caller: a controlling ICE agent with two components,
// SDES keys, RTCP in clear.
type jamiPeer struct {
	t          *testing.T
	conns      [2]*net.UDPConn
	mu         sync.Mutex // of what the next three lines have, where they are written
	creds, far ice.Credentials
	took       bool // the answer, for creds
	keys       srtp.Keys
	out        *srtp.Out
	in         atomic.Pointer[srtp.In]
	heard      atomic.Int64
	undeciph   atomic.Int64
	reports    atomic.Int64
	answered   [2]atomic.Int64 // checks
	to         [2]netip.AddrPort
	seq        uint16
	controlled bool                           // as which it checks
	conflicts  atomic.Int64                   // 487
	checked    [2]atomic.Int64                // how often it was
	answers    bool                           // the checks of the node
	by         string                         // the type of the candidates that it sends to; "": host
	deaf       func(from netip.AddrPort) bool // nothing comes from there
}

func newJamiPeer(t *testing.T) *jamiPeer {
	p := &jamiPeer{t: t}
	p.fresh()
	return p
}

// fresh begins with other sockets, keys and credentials, as a new offer of ICE does.
func (p *jamiPeer) fresh() {
	p.mu.Lock()
	p.creds, p.keys, p.took = ice.NewCredentials(), newKeys(srtp.CM80), false
	p.mu.Unlock()
	var err error
	if p.out, err = srtp.NewOut(p.keys); err != nil {
		p.t.Fatal(err)
	}
	for i := range p.conns {
		c := listen(p.t)
		p.conns[i] = c
		done := make(chan struct{})
		go func() { defer close(done); p.read(i, c) }()
		p.t.Cleanup(func() { c.Close(); <-done })
	}
}

func (p *jamiPeer) offer(withICE bool, keys srtp.Keys) string {
	session, cands := "", ""
	if withICE {
		session = fmt.Sprintf("a=ice-ufrag:%s\r\na=ice-pwd:%s\r\n", p.creds.Ufrag, p.creds.Pwd)
		for i, c := range p.conns {
			cands += fmt.Sprintf("a=candidate:H7f000001 %d UDP 2130706431 127.0.0.1 %d typ host\r\n", i+1, addrOf(c).Port())
		}
	}
	return fmt.Sprintf("v=0\r\no=peer 1 0 IN IP4 127.0.0.1\r\ns=Call ID 1\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n%sm=audio %d RTP/SAVP 104 101\r\na=rtpmap:104 opus/48000/2\r\n"+
		"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\na=crypto:1 %s inline:%s\r\n%s", session, addrOf(p.conns[0]).Port(), keys.Profile,
		base64.StdEncoding.EncodeToString(append(append([]byte{}, keys.Key...), keys.Salt...)), cands)
}

var candidateRE = regexp.MustCompile(`a=candidate:\S+ ([12]) UDP \d+ (\S+) (\d+) typ (\S+)`)

// takes reads the answer.
func (p *jamiPeer) takes(text string) {
	p.t.Helper()
	far, err := sdp.Parse(text, sdp.Jami)
	if err != nil {
		p.t.Fatalf("%v in\n%s", err, text)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.far, p.took = ice.Credentials{Ufrag: far.Ufrag, Pwd: far.Pwd}, true
	in, err := srtp.NewIn(far.Crypto.Keys)
	if err != nil {
		p.t.Fatal(err)
	}
	p.in.Store(in)
	for _, m := range candidateRE.FindAllStringSubmatch(text, -1) {
		if m[4] != cmp.Or(p.by, "host") {
			continue
		}
		p.to[m[1][0]-'1'] = netip.MustParseAddrPort(m[2] + ":" + m[3])
	}
	if !p.to[0].IsValid() || !p.to[1].IsValid() || p.to[0] == p.to[1] {
		p.t.Fatalf("components at %v", p.to)
	}
}

// check sends a connectivity check of a component.
func (p *jamiPeer) check(component int, nominate bool) {
	p.t.Helper()
	role := stun.AttrICEControlling
	if p.controlled {
		role = stun.AttrICEControlled
	}
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(p.far.Ufrag + ":" + p.creds.Ufrag),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{110, 255, 255, 255}}, stun.RawAttribute{Type: role, Value: make([]byte, 8)}}
	if nominate {
		set = append(set, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	m, err := stun.Build(append(set, stun.NewShortTermIntegrity(p.far.Pwd), stun.Fingerprint)...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.send(component, m.Raw)
}

func (p *jamiPeer) send(component int, b []byte) {
	if _, err := p.conns[component].WriteToUDPAddrPort(b, p.to[component]); err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Errorf("component %d: %v", component+1, err)
	}
}

func (p *jamiPeer) read(component int, c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		deaf := p.deaf != nil && p.deaf(from)
		p.mu.Unlock()
		if deaf {
			continue
		}
		b := buf[:n]
		var h wire.Header
		switch k := wire.Classify(b); {
		case k == wire.STUN:
			m := &stun.Message{Raw: b}
			var code stun.ErrorCodeAttribute
			switch err := m.Decode(); {
			case err == nil && m.Type == stun.BindingRequest:
				p.isChecked(component, m)
			case err != nil || stun.NewShortTermIntegrity(p.password()).Check(m) != nil || stun.Fingerprint.Check(m) != nil:
				p.t.Errorf("component %d: %v: %x", component+1, err, b)
			case code.GetFrom(m) == nil && code.Code == stun.CodeRoleConflict:
				p.conflicts.Add(1)
			default:
				p.answered[component].Add(1)
			}
		case k == wire.RTCP && component == 1:
			if _, err := rtcp.Unmarshal(b); err != nil {
				p.t.Errorf("RTCP: %v", err)
			}
			p.reports.Add(1)
		case k == wire.RTP && component == 0 && h.Parse(b):
			if _, _, err := p.in.Load().RTP(b, h.Size); err != nil {
				p.undeciph.Add(1)
				continue
			}
			p.heard.Add(1)
		default:
			p.t.Errorf("component %d: packet of kind %d", component+1, k)
		}
	}
}

// isChecked takes a check of the node, which claims the controlling role and nominates.
func (p *jamiPeer) isChecked(component int, m *stun.Message) {
	p.checked[component].Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.took {
		return
	}
	var name stun.Username
	if name.GetFrom(m) != nil || name.String() != p.creds.Ufrag+":"+p.far.Ufrag || stun.NewShortTermIntegrity(p.creds.Pwd).Check(m) != nil ||
		stun.Fingerprint.Check(m) != nil || !m.Contains(stun.AttrICEControlling) || !m.Contains(stun.AttrUseCandidate) {
		p.t.Errorf("component %d is checked by %s", component+1, m)
	}
	if !p.answers {
		return
	}
	res, err := stun.Build(m, stun.BindingSuccess, &stun.XORMappedAddress{IP: p.to[component].Addr().AsSlice(), Port: int(p.to[component].Port())},
		stun.NewShortTermIntegrity(p.creds.Pwd), stun.Fingerprint)
	if err != nil {
		p.t.Error(err)
		return
	}
	p.send(component, res.Raw)
}

func (p *jamiPeer) password() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.far.Pwd
}

// nominates checks both components as pjnath does: first without, then with USE-CANDIDATE.
func (p *jamiPeer) nominates() {
	p.t.Helper()
	for i := range p.conns {
		for _, use := range []bool{false, true} {
			was := p.answered[i].Load()
			p.check(i, use)
			eventually(p.t, "an answer to the check", func() bool { return p.answered[i].Load() > was })
		}
	}
}

// speaks sends a few frames of sound.
func (p *jamiPeer) speaks(n int) {
	p.t.Helper()
	enc, err := codec.NewEncoder(codec.Opus)
	if err != nil {
		p.t.Fatal(err)
	}
	var pcm [codec.FrameSamples]float32
	for i := range pcm {
		pcm[i] = 0.3 * float32(i%96-48) / 48
	}
	var buf [1200]byte
	for range n {
		p.seq++
		wire.PutHeader(buf[:], 104, false, p.seq, 960*uint32(p.seq), 0x7654321)
		k, err := enc.Encode(buf[wire.HeaderSize:], pcm[:])
		if err != nil {
			p.t.Fatal(err)
		}
		p.send(0, buf[:p.out.RTP(buf[:], wire.HeaderSize+k, wire.HeaderSize, 0)])
	}
}

func jamiJoins(t *testing.T, n *node, id string) *jamiPeer {
	t.Helper()
	p := newJamiPeer(t)
	o, err := n.Open(Request{ID: id, Room: "main", Epoch: 1, Jami: true, Offer: p.offer(true, p.keys), Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	if o.Transport != "jami" || o.Codec != "opus" {
		t.Errorf("opened %+v", o)
	}
	p.takes(o.SDP)
	p.nominates()
	return p
}

func TestJamiPeers(t *testing.T) {
	n := newNode(t)
	a, b := jamiJoins(t, n, "a"), jamiJoins(t, n, "b")
	eventually(t, "both hear", func() bool { a.speaks(1); b.speaks(1); return a.heard.Load() > 20 && b.heard.Load() > 20 })
	eventually(t, "connected", n.saw("a connected"))
	eventually(t, "reports in clear", func() bool { a.speaks(1); return a.reports.Load() > 0 })
	if a.undeciph.Load() != 0 {
		t.Errorf("%d packets with other keys", a.undeciph.Load())
	}
	raw, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{SSRC: leg(t, n, "a").ssrc, FractionLost: 64}}}})
	if err != nil {
		t.Fatal(err)
	}
	a.send(1, raw)
	eventually(t, "our loss as the peer reports it", func() bool { return leg(t, n, "a").Info().FarLostPct == 25 })
}

func state(l *Leg) State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st
}

func leg(t *testing.T, n *node, id string) *Leg {
	t.Helper()
	l, ok := n.Leg(id)
	if !ok {
		t.Fatalf("no leg %s", id)
	}
	return l
}

// New keys without new ICE are not taken (connect-and-calls §3.4, §8): the peer goes on with
// the old ones.
func TestJamiRenegotiation(t *testing.T) {
	n := newNode(t)
	a, b := jamiJoins(t, n, "a"), jamiJoins(t, n, "b")
	hears := func(what string, p *jamiPeer) {
		t.Helper()
		was := p.heard.Load()
		eventually(t, what, func() bool { a.speaks(1); b.speaks(1); return p.heard.Load() > was+10 })
	}
	hears("a hears", a)
	before := leg(t, n, "a").Info().Received
	o, err := n.Negotiate("a", 1, a.offer(false, newKeys(srtp.CM80)), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(o.SDP, "ice-") || strings.Contains(o.SDP, "candidate") {
		t.Errorf("the answer renews the transport:\n%s", o.SDP)
	}
	hears("a hears with the old keys", a)
	hears("b hears a", b)
	if got := leg(t, n, "a").Info().Received; got <= before {
		t.Errorf("received %d, then %d", before, got)
	}

	old := state(leg(t, n, "a")).Ufrag
	a.fresh()
	if o, err = n.Negotiate("a", 1, a.offer(true, a.keys), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	a.takes(o.SDP)
	if a.far.Ufrag == old {
		t.Error("the user fragment is the old one")
	}
	a.nominates()
	a.undeciph.Store(0)
	hears("a hears with new keys", a)
	before = leg(t, n, "a").Info().Received
	hears("b hears a again", b)
	if got := leg(t, n, "a").Info().Received; got <= before || a.undeciph.Load() != 0 {
		t.Errorf("received %d, then %d; %d packets with other keys", before, got, a.undeciph.Load())
	}
}

// What a check is for, its port tells; one for another leg's port has no effect.
func TestJamiChecks(t *testing.T) {
	n := newNode(t)
	a := jamiJoins(t, n, "a")
	st := state(leg(t, n, "a"))
	if st.Remote != addrOf(a.conns[0]) || st.RemoteRTCP != addrOf(a.conns[1]) {
		t.Errorf("RTP goes to %s, RTCP to %s", st.Remote, st.RemoteRTCP)
	}
	b := newJamiPeer(t)
	o, err := n.Open(Request{ID: "b", Room: "main", Epoch: 1, Jami: true, Offer: b.offer(true, b.keys), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	b.takes(o.SDP)
	right := b.to
	b.to = a.to // another pair of ports
	b.check(0, true)
	b.to = right
	b.check(1, true)
	eventually(t, "the check of component 2", func() bool { return b.answered[1].Load() == 1 })
	if st := state(leg(t, n, "b")); st.Remote.IsValid() || b.answered[0].Load() != 0 {
		t.Errorf("RTP goes to %s after a check at the wrong port", st.Remote)
	}
	b.send(1, append([]byte{0, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)) // a keep-alive
	for name, r := range map[string]Request{
		"no ICE":        {ID: "c", Room: "main", Jami: true, Offer: b.offer(false, b.keys)},
		"a phone again": {ID: "b", Room: "main", Epoch: 1, Offer: b.offer(true, b.keys)},
	} {
		if _, err := n.Open(r); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A leg outlives its process: the peer hears it go on without any signalling.
func TestJamiResumes(t *testing.T) {
	n := newNode(t)
	a, b := jamiJoins(t, n, "a"), jamiJoins(t, n, "b")
	eventually(t, "both hear", func() bool { a.speaks(1); b.speaks(1); return a.heard.Load() > 10 && b.heard.Load() > 10 })
	eventually(t, "connected", func() bool { return n.saw("a connected")() && n.saw("b connected")() })
	leg(t, n, "a").save()
	leg(t, n, "b").save()
	n.Abandon()
	n.start()
	was := a.heard.Load()
	eventually(t, "a hears on", func() bool { a.speaks(1); b.speaks(1); return a.heard.Load() > was+20 })
	if a.undeciph.Load() != 0 {
		t.Errorf("%d packets do not open", a.undeciph.Load())
	}
	was = a.reports.Load()
	eventually(t, "reports go on", func() bool { a.speaks(1); return a.reports.Load() > was })
}

// calls opens a leg whose offer goes to a peer.
func calls(t *testing.T, n *node, id string) string {
	t.Helper()
	o, err := n.Open(Request{ID: id, Room: "main", Epoch: 1, Jami: true, CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	return o.SDP
}

// Who is called takes itself for the controlled side, as stock peers do, and is told that it
// is not; of two devices that answer only one is heard.
func TestJamiIsCalled(t *testing.T) {
	n := newNode(t)
	a := jamiJoins(t, n, "a")
	offer := calls(t, n, "b")
	b, late := newJamiPeer(t), newJamiPeer(t)
	for _, p := range []*jamiPeer{b, late} {
		p.controlled = true
		p.takes(offer)
	}
	b.check(0, false) // before its answer is here
	if _, err := n.Answer("b", 1, late.offer(false, late.keys), netip.Addr{}); err == nil {
		t.Error("an answer without ICE was taken")
	}
	o, err := n.Answer("b", 1, b.offer(true, b.keys), netip.MustParseAddr("127.0.0.1"))
	if err != nil || o.Codec != "opus" {
		t.Fatalf("%+v, %v", o, err)
	}
	late.check(0, true)
	eventually(t, "487, when it has not answered our checks", func() bool { b.check(0, false); return b.conflicts.Load() > 0 })
	b.controlled = false
	b.nominates()
	eventually(t, "both hear", func() bool { a.speaks(1); b.speaks(1); return a.heard.Load() > 20 && b.heard.Load() > 20 })
	if late.answered[0].Load() != 0 || b.undeciph.Load() != 0 {
		t.Errorf("%d answers to the device that is too late; %d packets with other keys", late.answered[0].Load(), b.undeciph.Load())
	}
}

// A peer is checked at once, and what it answers to is where its sound goes: it need not check
// itself, and whether it calls or is called takes no role conflict.
func TestJamiIsChecked(t *testing.T) {
	n := newNode(t)
	a := jamiJoins(t, n, "a")
	caller := newJamiPeer(t)
	caller.answers = true
	o, err := n.Open(Request{ID: "b", Room: "main", Epoch: 1, Jami: true, Offer: caller.offer(true, caller.keys), Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	caller.takes(o.SDP)
	called := newJamiPeer(t)
	called.answers, called.controlled = true, true
	called.takes(calls(t, n, "c"))
	if _, err := n.Answer("c", 1, called.offer(true, called.keys), netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*jamiPeer{"b": caller, "c": called} {
		eventually(t, name+" hears", func() bool { a.speaks(1); return p.heard.Load() > 20 })
		eventually(t, "its addresses", func() bool {
			st := state(leg(t, n, name))
			return st.Remote == addrOf(p.conns[0]) && st.RemoteRTCP == addrOf(p.conns[1])
		})
	}
	called.check(1, false)
	eventually(t, "an answer to its check", func() bool { return called.answered[1].Load() == 1 })
	if called.conflicts.Load() != 0 {
		t.Error("487 to who is controlled")
	}
	eventually(t, "the checks end", func() bool {
		left := 0
		n.asked.Range(func(_, v any) bool {
			if v.(asked).l.id != "a" { // which does not answer
				left++
			}
			return true
		})
		return left == 0
	})
}

// Answers of strangers, to other checks, from elsewhere or with another key, tell nothing.
func TestJamiFalseAnswers(t *testing.T) {
	n := newNode(t)
	p := newJamiPeer(t)
	o, err := n.Open(Request{ID: "a", Room: "main", Epoch: 1, Jami: true, Offer: p.offer(true, p.keys), Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	p.takes(o.SDP)
	var txid [12]byte
	n.asked.Range(func(k, v any) bool {
		if v.(asked).component == 0 {
			txid = k.([12]byte)
		}
		return true
	})
	stranger := listen(t)
	answer := func(id [12]byte, pwd string) []byte {
		m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess, stun.NewShortTermIntegrity(pwd), stun.Fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		return m.Raw
	}
	for _, b := range [][]byte{answer(txid, p.creds.Pwd), answer(txid, p.creds.Pwd)[:24]} {
		if _, err := stranger.WriteToUDPAddrPort(b, p.to[0]); err != nil {
			t.Fatal(err)
		}
	}
	p.send(0, answer(txid, p.far.Pwd))
	p.send(0, answer([12]byte{1}, p.creds.Pwd))
	p.send(1, answer(txid, p.creds.Pwd))
	was := n.stats.drops[dropCheck].Load()
	eventually(t, "they are dropped", func() bool { return n.stats.drops[dropCheck].Load() >= 5 || n.stats.drops[dropCheck].Load() > was+4 })
	if st := state(leg(t, n, "a")); st.Remote.IsValid() {
		t.Errorf("sound goes to %s", st.Remote)
	}
	p.send(0, answer(txid, p.creds.Pwd))
	eventually(t, "the true one counts", func() bool { return state(leg(t, n, "a")).Remote == addrOf(p.conns[0]) })
}
