//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/dtls/v2"
	"github.com/pion/dtls/v2/pkg/crypto/selfsign"
)

// saw waits for a text in the node's log: an attack must be told of.
func (n *node) saw(text string) {
	n.t.Helper()
	n.wait("the log tells of "+text, 5*time.Second, func() bool { return strings.Contains(n.out.String(), text) })
}

// from is an HTTP client on a loopback address of its own: another stranger.
func from(address string) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext(ctx, network, addr)
		}}}
}

// roomWithPIN makes the room secret and returns its PIN.
func (n *node) roomWithPIN() string {
	n.t.Helper()
	out := n.parley("room", "create", "secret", "--generate-pin", "--json")
	var made struct {
		PIN string `json:"pin"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.PIN == "" {
		n.t.Fatalf("room create: %v %s", err, out)
	}
	return made.PIN
}

// Malformed WebSocket frames, SDP and SIP from strangers.
func TestMalformedSignalling(t *testing.T) {
	n := startNode(t)
	pin := n.roomWithPIN()
	d := n.duo()
	s := newSIPStranger(t, n)

	// First what takes longest to be forgotten: calls that are answered and never
	// acknowledged (64 × T1, 32 s).
	const unacked = 300
	heard := d.during("INVITEs without ACK", func() {
		for i := range unacked {
			s.send(i, s.invite("main", fmt.Sprintf("noack-%d", i), 1, ""))
			time.Sleep(5 * time.Millisecond)
		}
		n.wait("INVITEs are answered", 10*time.Second, func() bool { return s.answered() == unacked })
	})
	fmt.Printf("bad input: %d INVITEs without ACK: answers %v%s\n", unacked, s.codes(), heard)
	began := time.Now()

	var closed, answered int
	heard = d.during("malformed WebSocket frames", func() { closed, answered = n.badFrames(t) })
	fmt.Printf("bad input: malformed WebSocket messages: %d connections closed, %d refusals in words%s\n", closed, answered, heard)
	n.saw("WebSocket messages refused")

	var codes map[int]int
	heard = d.during("bad offers", func() { codes = n.badOffers(t) })
	fmt.Printf("bad input: bad offers by WHIP: answers %v%s\n", codes, heard)
	n.saw(`"join refused"`)

	var bytesBack int64
	sent := 0
	dropped := n.metric("parley_media_dropped_total", "")
	heard = d.during("DTLS hellos", func() { sent, bytesBack = n.hellos(t) })
	dropped = n.metric("parley_media_dropped_total", "") - dropped
	fmt.Printf("bad input: %d DTLS hellos from addresses that no ICE check proved: %d bytes came back, %.0f dropped%s\n", sent, bytesBack, dropped, heard)
	if bytesBack > 0 || dropped == 0 {
		t.Errorf("%d bytes came back to unproved addresses; %.0f of %d were counted", bytesBack, dropped, sent)
	}
	n.saw(`"packets dropped"`)

	var words map[string]int
	heard = d.during("wrong PINs by WebSocket", func() { words = n.pinsByWebSocket(t, "127.0.5.1", 200) })
	fmt.Printf("bad input: 200 wrong PINs by WebSocket: answers %v%s\n", words, heard)
	if words["slow_down"] < 150 {
		t.Errorf("guesses by WebSocket are not slowed: %v", words)
	}

	var sipCodes map[int]int
	heard = d.during("wrong PINs by SIP", func() { sipCodes = s.pins(t, 100) })
	fmt.Printf("bad input: 100 wrong PINs by SIP digest: answers %v%s\n", sipCodes, heard)
	if sipCodes[503] < 80 || sipCodes[200] > 0 {
		t.Errorf("guesses by SIP are not slowed: %v", sipCodes)
	}
	n.saw(`"wrong PIN"`)
	other := newSIPStranger(t, n)
	if code := other.tryPIN(t, 77, pin); code != 200 {
		t.Errorf("the right PIN from another address is answered %d", code)
	}

	n.wait("the calls without ACK are gone", time.Until(began.Add(60*time.Second)), func() bool { return n.participants() == 2 })
	fmt.Printf("bad input: the calls without ACK were gone after %v\n", time.Since(began).Round(time.Second))
	d.still("all of it")
}

// badFrames returns how often the node closed the connection and how often it said
// what was wrong. It must do one of the two each time.
func (n *node) badFrames(t *testing.T) (closed, answered int) {
	t.Helper()
	frame := func(first byte, payload []byte) []byte { // masked with zeros
		b := []byte{first}
		switch {
		case len(payload) < 126:
			b = append(b, 0x80|byte(len(payload)))
		case len(payload) < 1<<16:
			b = append(b, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
		default:
			b = append(b, 0x80|127, 0, 0, 0, 0, 0, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)))
		}
		return append(append(b, 0, 0, 0, 0), payload...)
	}
	text := func(s string) []byte { return frame(0x81, []byte(s)) }
	cases := map[string][]byte{
		"reserved opcode":              frame(0x83, []byte("x")),
		"reserved bits":                frame(0xf1, []byte("x")),
		"not masked":                   {0x81, 2, '{', '}'},
		"a frame of 2^63 bytes":        {0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a frame of 1 GB":              append([]byte{0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 70_000)...),
		"a ping in fragments":          frame(0x09, []byte("x")),
		"a ping of 1000 bytes":         frame(0x89, make([]byte, 1000)),
		"continuation of nothing":      frame(0x80, []byte("x")),
		"a close with one byte":        frame(0x88, []byte{3}),
		"binary":                       frame(0x82, []byte{0, 1, 2}),
		"not UTF-8":                    text("{\"id\":1,\"type\":\"\xff\xfe\"}"),
		"not JSON":                     text("hello?"),
		"an empty message":             text(""),
		"half of a message":            text(`{"id":1,"type":"jo`),
		"two messages in one":          text(`{"id":1,"type":"ping"}{"id":2,"type":"ping"}`),
		"null":                         text("null"),
		"an array":                     text("[[[[]]]]"),
		"10,000 brackets":              text(strings.Repeat("[", 10_000)),
		"10,000 braces":                text(strings.Repeat(`{"a":`, 10_000)),
		"an id that is no number":      text(`{"id":"x","type":"ping"}`),
		"an id out of bounds":          text(`{"id":1e400,"type":"ping"}`),
		"an unknown type":              text(`{"id":1,"type":"rm -rf"}`),
		"a join without anything":      text(`{"id":1,"type":"join","data":{}}`),
		"a join with wrong types":      text(`{"id":1,"type":"join","data":{"room":1,"name":[],"offer":{}}}`),
		"a join with a subject":        text(`{"id":1,"type":"join","data":{"room":"main.cmd.*.>","name":"x","offer":"v=0"}}`),
		"a join with junk for SDP":     text(`{"id":1,"type":"join","data":{"room":"main","name":"x","offer":"\u0000\u0001\u0002"}}`),
		"mute before join":             text(`{"id":1,"type":"mute","data":{"muted":true}}`),
		"a session of nobody":          text(`{"id":1,"type":"resume","data":{"session":"AAAA.BBBB"}}`),
		"more than a message may have": frame(0x81, bytes.Repeat([]byte("a"), 70_000)),
	}
	for what, b := range cases {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.base))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		key := base64.StdEncoding.EncodeToString(make([]byte, 16))
		fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: localhost:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", n.base, key)
		head := make([]byte, 12)
		if _, err := io.ReadFull(c, head); err != nil || !bytes.Contains(head, []byte("101")) {
			t.Fatalf("no WebSocket: %v %q", err, head)
		}
		if _, err := c.Write(b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		// A refusal in words leaves the connection open; anything else closes it.
		var got []byte
		for part := make([]byte, 4096); ; {
			m, err := c.Read(part)
			got = append(got, part[:m]...)
			if bytes.Contains(got, []byte(`"type":"error"`)) {
				answered++
				break
			}
			if err != nil {
				if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
					t.Errorf("%s: neither answered nor closed: %q", what, got)
				}
				closed++
				break
			}
		}
		c.Close()
	}
	return closed, answered
}

// badOffers sends what is no offer, and returns the answers by status.
func (n *node) badOffers(t *testing.T) map[int]int {
	t.Helper()
	raw, err := os.ReadFile("testdata/offer.sdp")
	if err != nil {
		t.Fatal(err)
	}
	offer := string(raw)
	cases := map[string]string{
		"nothing": "", "one line": "v=0\r\n", "junk": "\x00\x01\x02\xff", "10,000 audio lines": offer + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", 10_000),
		"a line of 60 kB":      offer + "a=" + strings.Repeat("x", 60_000) + "\r\n",
		"1 MB":                 offer + strings.Repeat("a=x:y\r\n", 150_000),
		"a port below zero":    strings.Replace(offer, "audio 9", "audio -1", 1),
		"a port of 10^20":      strings.Replace(offer, "audio 9", "audio 100000000000000000000", 1),
		"payload type 10^20":   strings.ReplaceAll(offer, "111", "100000000000000000000"),
		"payload type -1":      strings.ReplaceAll(offer, "111", "-1"),
		"no fingerprint":       regexp.MustCompile(`a=fingerprint.*\r?\n`).ReplaceAllString(offer, ""),
		"half a fingerprint":   strings.Replace(offer, "6B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46", "6B", 1),
		"an unknown hash":      strings.Replace(offer, "sha-256", "sha-999", 1),
		"no ICE password":      regexp.MustCompile(`a=ice-pwd.*\r?\n`).ReplaceAllString(offer, ""),
		"an ICE password of 1": strings.Replace(offer, "0123456789abcdef01234567", "0", 1),
		"a nul in the name":    strings.Replace(offer, "Zx9k", "Z\x00x9", 1),
		"only video":           strings.Replace(offer, "m=audio", "m=video", 1),
		"unknown codecs":       regexp.MustCompile(`a=rtpmap:.*\r?\n`).ReplaceAllString(strings.Replace(offer, "111 9 0 8", "96 97", 1), ""),
		"5,000 candidates":     offer + strings.Repeat("a=candidate:1 1 udp 2130706431 999.999.999.999 99999 typ host\r\n", 900),
	}
	for i := 0; i < len(offer); i += 50 {
		cases[fmt.Sprintf("cut after %d bytes", i)] = offer[:i]
	}
	codes := map[int]int{}
	var accepted []string
	c := from("127.0.6.1")
	for what, body := range cases {
		res, err := c.Post(fmt.Sprintf("http://127.0.0.1:%d/whip/main?name=bad", n.base), "application/sdp", strings.NewReader(body))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		codes[res.StatusCode]++
		var said struct{ Code, Message string }
		switch {
		case res.StatusCode == http.StatusCreated && strings.HasPrefix(string(answer), "v=0"):
			// Enough of it is an offer. Nobody ever comes, and it is forgotten.
			accepted = append(accepted, what)
		case res.StatusCode < 400 || res.StatusCode >= 500:
			t.Errorf("%s: answered %d %.200s", what, res.StatusCode, answer)
		case json.Unmarshal(answer, &said) != nil || said.Code == "" || said.Message == "":
			t.Errorf("%s: %d without words: %.200s", what, res.StatusCode, answer)
		}
	}
	slices.Sort(accepted)
	fmt.Printf("bad input: offers taken in spite of: %s\n", strings.Join(accepted, ", "))
	if len(accepted) > 12 {
		t.Errorf("%d of %d bad offers were taken", len(accepted), len(cases))
	}
	return codes
}

// counted is a UDP connection that counts what comes back and keeps what went out.
type counted struct {
	net.Conn
	back  *atomic.Int64
	mu    *sync.Mutex
	first *[]byte
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.back.Add(int64(n))
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	if *c.first == nil {
		*c.first = bytes.Clone(b)
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// hellos begins DTLS handshakes from addresses for which no leg has had an ICE
// check, by a real client and by many copies of its first packet.
func (n *node) hellos(t *testing.T) (sent int, back int64) {
	t.Helper()
	cert, err := selfsign.GenerateSelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	dial := func(i int) net.Conn {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 3, byte(i>>8), byte(i))}}
		c, err := d.Dial("udp", fmt.Sprintf("127.0.0.1:%d", n.base+100))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var total atomic.Int64
	var mu sync.Mutex
	var hello []byte
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			c := counted{dial(i + 1), &total, &mu, &hello}
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if dc, err := dtls.ClientWithContext(ctx, c, &dtls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true,
				SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{dtls.SRTP_AES128_CM_HMAC_SHA1_80}}); err == nil {
				t.Error("a handshake with nobody")
				dc.Close()
			}
		})
	}
	wg.Wait()
	for i := range 200 {
		c := dial(i + 20)
		for range 100 {
			if _, err := c.Write(hello); err == nil {
				sent++
			}
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Read(make([]byte, 2048)); err == nil {
			total.Add(int64(m))
		}
		c.Close()
	}
	return sent + 10, total.Load()
}

// pinsByWebSocket guesses and returns the answers by their code.
func (n *node) pinsByWebSocket(t *testing.T, address string, tries int) map[string]int {
	t.Helper()
	offer, err := os.ReadFile("testdata/offer.sdp")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	words := map[string]int{}
	for i := 0; i < tries; {
		c, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://127.0.0.1:%d/ws", n.base), &websocket.DialOptions{HTTPClient: from(address)})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			q, err := json.Marshal(map[string]any{"id": i, "type": "join", "data": map[string]any{"room": "secret", "name": "x", "offer": string(offer), "pin": fmt.Sprintf("%04d", i)}})
			if err != nil {
				t.Fatal(err)
			}
			i++
			if err := c.Write(ctx, websocket.MessageText, q); err != nil {
				t.Fatal(err)
			}
			_, b, err := c.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var a struct {
				Type string
				Data struct{ Code string }
			}
			if err := json.Unmarshal(b, &a); err != nil || a.Type != "error" {
				t.Errorf("a guess is answered %.200s", b)
			}
			words[a.Data.Code]++
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Logf("close: %v", err)
		}
	}
	return words
}

// sipStranger sends SIP over UDP from some loopback addresses and keeps the
// answers by Call-ID.
type sipStranger struct {
	n     *node
	conns []*net.UDPConn
	mu    sync.Mutex
	final map[string]string // the last final answer
}

var strangers atomic.Int32

func newSIPStranger(t *testing.T, n *node) *sipStranger {
	t.Helper()
	s := &sipStranger{n: n, final: map[string]string{}}
	to, err := net.ResolveUDPAddr("udp", n.sipAddr())
	if err != nil {
		t.Fatal(err)
	}
	net4 := byte(strangers.Add(1))
	for i := range 32 {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 4, net4, byte(i+1))}, to)
		if err != nil {
			t.Fatal(err)
		}
		s.conns = append(s.conns, c)
		go s.read(c)
	}
	t.Cleanup(func() {
		for _, c := range s.conns {
			c.Close()
		}
	})
	return s
}

func (s *sipStranger) read(c *net.UDPConn) {
	for b := make([]byte, 4096); ; {
		m, err := c.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		msg := string(b[:m])
		id := header(msg, "Call-ID")
		if !strings.HasPrefix(msg, "SIP/2.0 ") || strings.HasPrefix(msg, "SIP/2.0 1") || id == "" {
			continue
		}
		s.mu.Lock()
		s.final[id] = msg
		s.mu.Unlock()
	}
}

func header(msg, name string) string {
	for line := range strings.Lines(msg) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// invite with ADDR and HOST for the sender's; seq is above 1 when it is repeated
// with an answer to a challenge.
func (s *sipStranger) invite(room, id string, seq int, more string) string {
	sdp := "v=0\r\no=x 1 1 IN IP4 HOST\r\ns=-\r\nc=IN IP4 HOST\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
	return fmt.Sprintf("INVITE sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/UDP ADDR;rport;branch=z9hG4bK%s%d\r\nFrom: <sip:x@ADDR>;tag=%s\r\nTo: <sip:%s@%s>\r\n"+
		"Call-ID: %s\r\nCSeq: %d INVITE\r\nContact: <sip:x@ADDR>\r\nMax-Forwards: 70\r\n%sContent-Type: application/sdp\r\nContent-Length: 0\r\n\r\n%s",
		room, s.n.sipAddr(), id, seq, id, room, s.n.sipAddr(), id, seq, more, sdp)
}

func (s *sipStranger) send(i int, msg string) {
	c := s.conns[i%len(s.conns)]
	head, sdp, _ := strings.Cut(strings.ReplaceAll(msg, "ADDR", c.LocalAddr().String()), "\r\n\r\n")
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		s.n.t.Fatal(err)
	}
	if sdp != "" { // each call has a port of its own, so that its sound could be told apart
		sdp = strings.ReplaceAll(strings.ReplaceAll(sdp, "HOST", host), "audio 9 ", fmt.Sprintf("audio %d ", 20000+2*i))
		head = strings.Replace(head, "Content-Length: 0", fmt.Sprintf("Content-Length: %d", len(sdp)), 1)
	}
	if _, err := io.WriteString(c, head+"\r\n\r\n"+sdp); err != nil {
		s.n.t.Errorf("SIP: %v", err)
	}
}

func (s *sipStranger) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.final)
}

func statusOf(msg string) (code int) {
	if _, err := fmt.Sscanf(msg, "SIP/2.0 %d", &code); err != nil {
		return 0
	}
	return code
}

func (s *sipStranger) codes() map[int]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	codes := map[int]int{}
	for _, m := range s.final {
		codes[statusOf(m)]++
	}
	return codes
}

// ask sends one INVITE and returns its final answer.
func (s *sipStranger) ask(t *testing.T, id string, seq int, more string) string {
	t.Helper()
	s.mu.Lock()
	delete(s.final, id)
	s.mu.Unlock()
	s.send(0, s.invite("secret", id, seq, more))
	var got string
	s.n.wait("an answer to INVITE", 5*time.Second, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		got = s.final[id]
		return strings.HasPrefix(header(got, "CSeq"), fmt.Sprint(seq, " "))
	})
	s.send(0, fmt.Sprintf("ACK sip:secret@%s SIP/2.0\r\nVia: SIP/2.0/UDP ADDR;rport;branch=z9hG4bK%s%d\r\nFrom: <sip:x@ADDR>;tag=%s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
		s.n.sipAddr(), id, seq, id, header(got, "To"), id, seq))
	return got
}

var param = regexp.MustCompile(`(\w+)="([^"]*)"`)

// tryPIN calls the room secret with a PIN, as a phone does: after a challenge.
func (s *sipStranger) tryPIN(t *testing.T, i int, pin string) int {
	t.Helper()
	id := fmt.Sprintf("pin-%d", i)
	got := s.ask(t, id, 1, "")
	if statusOf(got) != 401 {
		return statusOf(got)
	}
	hash := func(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(line, "WWW-Authenticate:") || strings.Contains(line, "SHA-256") {
			continue
		}
		p := map[string]string{}
		for _, m := range param.FindAllStringSubmatch(line, -1) {
			p[m[1]] = m[2]
		}
		uri := "sip:secret@" + s.n.sipAddr()
		response := hash(strings.Join([]string{hash("secret:" + p["realm"] + ":" + pin), p["nonce"], "00000001", "c", "auth", hash("INVITE:" + uri)}, ":"))
		return statusOf(s.ask(t, id, 2, fmt.Sprintf("Authorization: Digest username=\"secret\", realm=\"%s\", nonce=\"%s\", uri=\"%s\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c\", response=\"%s\"\r\n",
			p["realm"], p["nonce"], uri, response)))
	}
	t.Fatalf("no MD5 challenge: %s", got)
	return 0
}

func (s *sipStranger) pins(t *testing.T, tries int) map[int]int {
	t.Helper()
	codes := map[int]int{}
	for i := range tries {
		codes[s.tryPIN(t, 1000+i, fmt.Sprintf("%04d", i))]++
	}
	return codes
}
