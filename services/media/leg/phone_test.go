package leg

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// phone is a SIP phone's RTP side: PCMU, plain or with SDES.
type phone struct {
	t    *testing.T
	conn *net.UDPConn
	dst  netip.AddrPort
	keys srtp.Keys
	out  *srtp.Out
	in   *srtp.In
	stop chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	heads []wire.Header
	idx   []uint64
	at    []time.Time
}

func newPhone(t *testing.T, secure bool) *phone {
	p := &phone{t: t, conn: listen(t), stop: make(chan struct{})}
	if secure {
		p.keys = newKeys(srtp.CM80)
		var err error
		if p.out, err = srtp.NewOut(p.keys); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.hangUp)
	return p
}

func (p *phone) hangUp() {
	select {
	case <-p.stop:
		return
	default:
	}
	close(p.stop)
	p.conn.Close()
	p.wg.Wait()
}

func (p *phone) offer(host string, port uint16) string {
	proto, crypto := "RTP/AVP", ""
	if p.out != nil {
		proto = "RTP/SAVP"
		crypto = "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:" +
			base64.StdEncoding.EncodeToString(append(append([]byte{}, p.keys.Key...), p.keys.Salt...)) + "\r\n"
	}
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d %s 0 101\r\n"+
		"a=rtpmap:101 telephone-event/8000\r\n%sa=rtcp-mux\r\n", host, host, port, proto, crypto)
}

// answered takes the host's answer and begins to send and to read.
func (p *phone) answered(text string) {
	p.t.Helper()
	far, err := sdp.Parse(text, sdp.Phone)
	if err != nil {
		p.t.Fatalf("%v in\n%s", err, text)
	}
	p.dst = far.Addr
	if p.out != nil {
		if far.Crypto == nil || far.Crypto.Tag != "7" {
			p.t.Fatalf("no key in\n%s", text)
		}
		if p.in, err = srtp.NewIn(far.Crypto.Keys); err != nil {
			p.t.Fatal(err)
		}
	}
	p.wg.Go(p.read)
	p.wg.Go(p.speak)
}

func (p *phone) read() {
	buf := make([]byte, 2048)
	for {
		n, _, err := p.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		b := buf[:n]
		if wire.Classify(b) != wire.RTP {
			continue
		}
		var h wire.Header
		if !h.Parse(b) {
			p.t.Errorf("malformed RTP")
			continue
		}
		index := uint64(h.Seq)
		if p.in != nil {
			if _, index, err = p.in.RTP(b, h.Size); err != nil {
				p.t.Errorf("packet %d: %v", h.Seq, err)
				continue
			}
		}
		p.mu.Lock()
		p.heads, p.idx, p.at = append(p.heads, h), append(p.idx, index), append(p.at, time.Now())
		p.mu.Unlock()
	}
}

// speak sends a tone until the phone hangs up.
func (p *phone) speak() {
	enc, err := codec.NewEncoder(codec.PCMU)
	if err != nil {
		p.t.Error(err)
		return
	}
	var pcm [codec.FrameSamples]float32
	for i := range pcm {
		pcm[i] = float32(0.3 * math.Sin(2*math.Pi*400*float64(i)/codec.Rate))
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var buf [2048]byte
	for i := uint32(0); ; i++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		wire.PutHeader(buf[:], 0, i == 0, uint16(i), 160*i, 0x1234567)
		n, err := enc.Encode(buf[wire.HeaderSize:], pcm[:])
		if err != nil {
			p.t.Error(err)
			return
		}
		n += wire.HeaderSize
		if p.out != nil {
			n = p.out.RTP(buf[:], n, wire.HeaderSize, 0)
		}
		p.send(buf[:n])
	}
}

func (p *phone) send(b []byte) {
	if _, err := p.conn.WriteToUDPAddrPort(b, p.dst); err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Logf("send: %v", err)
	}
}

func (p *phone) heard() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.heads)
}

func (p *phone) hears(n int) func() bool {
	before := p.heard()
	return func() bool { return p.heard() >= before+n }
}

func call(t *testing.T, n *node, p *phone, id, host string, port uint16, remote string) Opened {
	t.Helper()
	o, err := n.Open(Request{ID: id, Room: "main", Epoch: 1, Offer: p.offer(host, port), Remote: netip.MustParseAddr(remote), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	p.answered(o.SDP)
	return o
}

func TestPhonesHearEachOther(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure=%t", secure), func(t *testing.T) {
			n := newNode(t)
			a, b := newPhone(t, secure), newPhone(t, false)
			oa := call(t, n, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
			call(t, n, b, "b", "127.0.0.1", addrOf(b.conn).Port(), "127.0.0.1")
			if want := map[bool]string{true: "srtp", false: "rtp"}[secure]; oa.Transport != want || oa.Codec != "pcmu" {
				t.Errorf("opened %+v", oa)
			}
			eventually(t, "both hear", func() bool { return a.heard() > 20 && b.heard() > 20 })
			eventually(t, "connected", n.saw("a connected"))
			eventually(t, "voice", n.saw("a voice true"))
			if i, _ := n.Leg("a"); !i.Info().Connected || i.Info().Received == 0 {
				t.Errorf("info %+v", i.Info())
			}
			if err := n.CloseLeg("a", 1, ""); err != nil {
				t.Fatal(err)
			}
			if _, ok := n.Leg("a"); ok {
				t.Error("leg a is still there")
			}
			if f, err := os.ReadDir(n.dir + "/legs"); err != nil || len(f) != 1 {
				t.Errorf("state of %d legs, %v", len(f), err)
			}
		})
	}
}

// TestNAT: the SDP names an address that nobody sends from; the leg takes the first
// packets from the host that signals, nothing goes out before, and later others are
// refused.
func TestNAT(t *testing.T) {
	n := newNode(t)
	a := newPhone(t, false)
	o := call(t, n, a, "a", "10.1.2.3", 4000, "127.0.0.1")
	eventually(t, "latched", n.saw("a connected"))
	thief := listen(t)
	defer thief.Close()
	far, err := sdp.Parse(o.SDP, sdp.Phone)
	if err != nil {
		t.Fatal(err)
	}
	before := n.Counters().Drops[dropStranger]
	var pkt [172]byte
	wire.PutHeader(pkt[:], 0, false, 1, 1, 1)
	if _, err := thief.WriteToUDPAddrPort(pkt[:], far.Addr); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stranger counted", func() bool { return n.Counters().Drops[dropStranger] > before })
	l, _ := n.Leg("a")
	if got := l.Info().Remote; got != addrOf(a.conn).String() {
		t.Errorf("remote %s, want %s", got, addrOf(a.conn))
	}
}

func TestUnlatchedLegsStayApart(t *testing.T) {
	n := newNode(t)
	p := newPhone(t, false)
	for i := range Pairs {
		if _, err := n.Open(Request{ID: fmt.Sprint(i), Room: "main", Offer: p.offer("10.1.2.3", uint16(4000+i)), Remote: netip.MustParseAddr("127.0.0.1")}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := n.Open(Request{ID: "more", Room: "main", Offer: p.offer("10.1.2.3", 5000), Remote: netip.MustParseAddr("127.0.0.1")})
	if !errors.Is(err, ErrBusy) {
		t.Errorf("one leg more behind one address: %v", err)
	}
	if err := n.CloseLeg("3", 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err = n.Open(Request{ID: "more", Room: "main", Offer: p.offer("10.1.2.3", 5000), Remote: netip.MustParseAddr("127.0.0.1")}); err != nil {
		t.Errorf("after one left: %v", err)
	}
}

func TestDigits(t *testing.T) {
	n := newNode(t)
	a := newPhone(t, false)
	call(t, n, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
	for i := range 6 {
		var b [16]byte
		wire.PutHeader(b[:], 101, i == 0, uint16(3000+i), 9000, 0x1234567)
		b[12] = 5
		binary.BigEndian.PutUint16(b[14:], uint16(160*(i+1)))
		if i >= 3 {
			b[13] = 0x80
			binary.BigEndian.PutUint16(b[14:], 640)
		}
		a.send(b[:])
	}
	eventually(t, "digit", n.saw("a digit 5 80"))
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := strings.Count(strings.Join(n.events, "\n"), "digit"); got != 1 {
		t.Errorf("%d digits", got)
	}
}

func TestCommands(t *testing.T) {
	n := newNode(t)
	p := newPhone(t, false)
	r := Request{ID: "a", Room: "main", Epoch: 5, Offer: p.offer("127.0.0.1", addrOf(p.conn).Port())}
	first, err := n.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.Open(r)
	if err != nil || second != first {
		t.Errorf("repeated: %+v, %v", second, err)
	}
	yes := true
	if _, err := n.Set("a", 4, &yes, nil, false); !errors.Is(err, ErrStale) {
		t.Errorf("set of a lower epoch: %v", err)
	}
	if _, err := n.Set("a", 6, &yes, nil, false); err != nil {
		t.Error(err)
	}
	if _, err := n.Open(r); !errors.Is(err, ErrStale) {
		t.Errorf("open of a lower epoch: %v", err)
	}
	hold := strings.Replace(r.Offer, "a=rtcp-mux", "a=inactive\r\na=rtcp-mux", 1)
	o, err := n.Negotiate("a", 6, hold, netip.Addr{})
	if err != nil || !strings.Contains(o.SDP, "a=inactive") {
		t.Errorf("hold: %v\n%s", err, o.SDP)
	}
	late, err := n.Open(Request{ID: "late", Room: "main"})
	if err != nil || !strings.Contains(late.SDP, "opus/48000/2") || late.Codec != "" {
		t.Fatalf("own offer: %+v, %v", late, err)
	}
	q := newPhone(t, false)
	got, err := n.Answer("late", 0, q.offer("127.0.0.1", addrOf(q.conn).Port()), netip.Addr{})
	if err != nil || got.Codec != "pcmu" || got.Transport != "rtp" {
		t.Errorf("late answer: %+v, %v", got, err)
	}
}

// TestResume: the process ends without a word, another one takes the sockets and
// the directory; sound goes on, no index is used twice.
func TestResume(t *testing.T) {
	n := newNode(t)
	a, b := newPhone(t, true), newPhone(t, false)
	call(t, n, a, "a", "127.0.0.1", addrOf(a.conn).Port(), "127.0.0.1")
	call(t, n, b, "b", "10.9.9.9", 4000, "127.0.0.1") // behind NAT: latched
	eventually(t, "both hear", func() bool { return a.heard() > 20 && b.heard() > 20 })
	l, _ := n.Leg("b")
	eventually(t, "saved", func() bool {
		l.saving.Lock()
		defer l.saving.Unlock()
		n.dirtyMu.Lock()
		defer n.dirtyMu.Unlock()
		return len(n.dirties) == 0
	})
	n.Abandon()
	cut := a.heard()
	died := time.Now()
	if err := os.WriteFile(n.dir+"/legs/0000000000000001.json", []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	if got := n.Counters().Resumed; got != 2 {
		t.Fatalf("%d legs came back", got)
	}
	t.Logf("back after %s", time.Since(died))
	eventually(t, "a hears again", a.hears(30))
	eventually(t, "b hears again", b.hears(5))
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 1; i < len(a.idx); i++ {
		if a.idx[i] <= a.idx[i-1] || a.heads[i].SSRC != a.heads[0].SSRC {
			t.Fatalf("packet %d: index %d after %d", i, a.idx[i], a.idx[i-1])
		}
	}
	gap, ts := a.at[cut].Sub(a.at[cut-1]), a.heads[cut].Timestamp-a.heads[cut-1].Timestamp
	t.Logf("gap %s, timestamp %d ms, index %d", gap, ts/8, a.idx[cut]-a.idx[cut-1])
	if d := float64(ts)/8 - gap.Seconds()*1000; math.Abs(d) > 60 {
		t.Errorf("timestamp is %.0f ms away from the gap", d)
	}
	if _, err := os.Stat(n.dir + "/legs/0000000000000001.json.damaged"); err != nil {
		t.Error(err)
	}
}
