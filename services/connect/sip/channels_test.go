package sip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

// stock is a caller as stock Jami 13.7 signals on a channel (connect-and-calls §3.1, §7).
type stock struct {
	t    *testing.T
	peer channel.Peer
	far  *channeltest.Channel
	call string
	tag  string // ours
	seq  int
	from string // in From
	to   string // user of To

	fromTag string // theirs where it is empty
}

// callers plays the rooms of the node's account.
type callers struct {
	mu      sync.Mutex
	busy    error
	heard   chan string
	entered chan string
	late    chan func() // nil, or gets what ends the keeping of what was heard
	err     error
}

const ourDevice = "d740cf5d36c3e3b24fa44eb00d6861f325886fca"

func (c *callers) Called(context.Context, jami.ID) (Called, error) {
	return Called{Room: "main", Device: ourDevice}, c.err
}

func (c *callers) Entered(room, participant string) { c.entered <- room + " " + participant }

func (c *callers) Heard(room, participant string, m Message, done func()) {
	if c.late != nil {
		c.late <- done
	} else {
		done()
	}
	c.heard <- room + " " + participant + " " + m.Type + " " + m.Body
}

func (c *callers) Written(_ context.Context, account jami.ID, from channel.Peer, id string, m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy != nil {
		return c.busy
	}
	c.heard <- account.String() + " " + from.DeviceLong + " " + id + " " + m.Type + " " + m.Body
	return nil
}

func startJami(t *testing.T, r *rooms, dir string, expected ...uint64) (*Server, *callers, func()) {
	t.Helper()
	cs := &callers{heard: make(chan string, 64), entered: make(chan string, 64)}
	s, err := New(Config{Dir: dir, Version: "test", Rooms: r, Callers: cs, Farewell: Message{Type: "application/confInfo+json", Body: "{}"}, Code: code, Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))})
	if err != nil {
		t.Fatal(err)
	}
	s.Expect(expected)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s, cs, stop
}

func newStock(t *testing.T, s *Server, n byte) *stock {
	t.Helper()
	c := &stock{t: t, peer: channel.Peer{Account: jami.ID{0xaa, n}, Device: jami.ID{0xdd, n}, DeviceLong: jami.LongID{0xdd, n}.String(), TLS: "TLS 1.3", Suite: "TLS_AES_128_GCM_SHA256"}, call: fmt.Sprintf("call-%d", n), seq: 1}
	c.from, c.to = c.peer.Account.String(), jami.ID{1}.String()
	c.open(s)
	return c
}

func (c *stock) open(s *Server) {
	c.t.Helper()
	var near *channeltest.Channel
	near, c.far = channeltest.Pipe("sip", c.peer)
	if err := s.Accept(jami.ID{1}, near); err != nil {
		c.t.Fatal(err)
	}
}

func (c *stock) send(method, body string, headers ...string) {
	c.t.Helper()
	tag := ""
	if c.tag != "" {
		tag = ";tag=" + c.tag
	}
	m := method + " sips:127.0.0.1:4225;transport=tls SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.2:40001;rport;branch=z9hG4bKPj" + fmt.Sprintf("%s%s%d", c.call, method, c.seq) + "\r\n" +
		"Max-Forwards: 70\r\nFrom: \"Alice\" <sip:" + c.from + "@ring.dht>;tag=" + cmp.Or(c.fromTag, "theirs") + "\r\nTo: <sips:" + c.to + "@127.0.0.1:4225;transport=tls>" + tag + "\r\n" +
		"Contact: \"Alice\" <sips:" + c.peer.Device.String() + "@127.0.0.2:40001;transport=tls>\r\nCall-ID: " + c.call + "\r\n" +
		fmt.Sprintf("CSeq: %d %s\r\n", c.seq, method) + "Subject: Phone call\r\nSupported: replaces, 100rel, norefersub\r\nUser-Agent: Jami Daemon 13.7.0 (linux)\r\n" +
		"Allow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, OPTIONS, MESSAGE, PUBLISH\r\n"
	for _, h := range headers {
		m += h + "\r\n"
	}
	m += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := c.far.Write([]byte(m)); err != nil {
		c.t.Fatal(err)
	}
}

// recv returns the next message, which is one of the channel's.
func (c *stock) recv() string {
	c.t.Helper()
	got := make(chan string, 1)
	far := c.far
	go func() {
		m, err := far.ReadMessage()
		if err != nil {
			got <- "closed"
			return
		}
		got <- string(m)
	}()
	select {
	case m := <-got:
		if m != "closed" && (len(m) >= maxPacket || !strings.Contains(m, "\r\n\r\n")) {
			c.t.Fatalf("not one message of less than %d bytes: %q", maxPacket, m)
		}
		return m
	case <-time.After(5 * time.Second):
		far.Close()
		c.t.Fatal("nothing came in 5 s")
	}
	return ""
}

func (c *stock) expect(start string) string {
	c.t.Helper()
	m := c.recv()
	for strings.HasPrefix(m, "SIP/2.0 100") {
		m = c.recv()
	}
	if !strings.HasPrefix(m, start) {
		c.t.Fatalf("got %q, want %s", m, start)
	}
	return m
}

// dial makes a call and returns the participant.
func (c *stock) dial(r *rooms) string {
	c.t.Helper()
	c.send("INVITE", offer, "Content-Type: application/sdp")
	ringing := c.expect("SIP/2.0 180")
	ok := c.expect("SIP/2.0 200")
	if header(ringing, "To") != header(ok, "To") {
		c.t.Errorf("To %q, then %q", header(ringing, "To"), header(ok, "To"))
	}
	for _, m := range []string{ringing, ok} {
		if want := "<sips:" + ourDevice + "@127.0.0.1:4225;transport=tls>"; header(m, "Contact") != want {
			c.t.Errorf("Contact %q, want %q", header(m, "Contact"), want)
		}
		if a := header(m, "Allow"); !strings.Contains(a, "MESSAGE") || !strings.Contains(a, "INFO") {
			c.t.Errorf("Allow %q", a)
		}
		if ua := header(m, "User-Agent"); !strings.HasPrefix(ua, "Jami Daemon 13.7.0 ") || strings.Contains(ua, "-") {
			c.t.Errorf("User-Agent %q", ua)
		}
		if header(m, "Record-Route") != "" {
			c.t.Error("Record-Route")
		}
	}
	_, c.tag, _ = strings.Cut(header(ok, "To"), "tag=")
	c.send("ACK", "")
	c.seq++
	return <-r.inChan
}

func TestJamiCall(t *testing.T) {
	r := newRooms()
	s, cs, _ := startJami(t, r, t.TempDir())
	c := newStock(t, s, 1)
	id := c.dial(r)
	call := r.call(id)
	if call.Name != "Alice" || call.JamiID != c.peer.Account.String() || call.Device != c.peer.DeviceLong || call.Source != "127.0.0.2" || call.Room != "main" || call.Unproved {
		t.Errorf("%+v", call)
	}
	if by := call.Signalled; by.Over != "channel" || by.TLS != c.peer.TLS || by.Suite != c.peer.Suite || !strings.HasPrefix(by.Remote, "127.0.0.2:") || by.Local == "" {
		t.Errorf("signalled by %+v", by)
	}
	if !strings.HasPrefix(id, "jami-") {
		t.Errorf("participant %s", id)
	}
	if got := <-cs.entered; got != "main "+id {
		t.Errorf("entered %q", got)
	}
	c.send("INFO", "<mute_state=1/>", "Content-Type: application/media_control+xml")
	c.expect("SIP/2.0 200")
	if got := <-cs.heard; got != "main "+id+" application/media_control+xml <mute_state=1/>" {
		t.Errorf("heard %q", got)
	}
	c.seq++
	c.send("MESSAGE", `{"layout":1}`, "Content-Type: application/confOrder+json")
	c.expect("SIP/2.0 200")
	if got := <-cs.heard; got != "main "+id+` application/confOrder+json {"layout":1}` {
		t.Errorf("heard %q", got)
	}
	c.seq++
	c.send("INVITE", offer, "Content-Type: application/sdp")
	c.expect("SIP/2.0 200")
	c.send("ACK", "")
	if got := <-r.sdps; got != "false "+offer {
		t.Errorf("negotiated %q", got)
	}
	c.seq++
	c.send("OPTIONS", "")
	c.expect("SIP/2.0 200")
	c.seq++
	c.send("BYE", "")
	c.expect("SIP/2.0 200")
	if got := <-r.left; got != id+" left" {
		t.Errorf("left %q", got)
	}
	// The channel stays open for the next call.
	c.call, c.tag, c.seq = "another", "", 1
	c.dial(r)
	s.Hang(s.IDs()[0], "kicked")
	if last := c.expect("MESSAGE"); !strings.HasSuffix(last, "\r\n\r\n{}") {
		t.Errorf("the last word is %q", last)
	}
	if bye := c.expect("BYE"); header(bye, "User-Agent") != jamiAgent || !strings.Contains(bye, "sips:"+c.peer.Device.String()) {
		t.Errorf("%s", bye)
	}
}

// What we say inside a call goes on its channel, one after the other; 500 is as good an
// answer as 200 (connect-and-calls §3.1).
func TestJamiIsTold(t *testing.T) {
	r := newRooms()
	s, _, _ := startJami(t, r, t.TempDir())
	c := newStock(t, s, 1)
	id := c.dial(r)
	for _, status := range []string{"200 OK", "500 Unhandled by dialog usages"} {
		said := make(chan error, 1)
		go func() {
			said <- s.Say(context.Background(), id, Message{Type: "application/confInfo+json", Body: "{}"})
		}()
		m := c.expect("MESSAGE sips:" + c.peer.Device.String())
		if !strings.HasSuffix(m, "\r\n\r\n{}") || header(m, "Content-Type") != "application/confInfo+json" || !strings.Contains(m, "tag="+c.tag) {
			t.Errorf("%q", m)
		}
		c.respond(m, status)
		if err := <-said; err != nil {
			t.Error(err)
		}
	}
	if err := s.Say(context.Background(), id, Message{Type: "text/plain", Body: strings.Repeat("x", maxPacket)}); err == nil {
		t.Error("a message that no stock peer takes was sent")
	}
}

// respond answers a request.
func (c *stock) respond(m, status string) {
	c.t.Helper()
	res := "SIP/2.0 " + status + "\r\n"
	for _, h := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		res += h + ": " + header(m, h) + "\r\n"
	}
	if _, err := c.far.Write([]byte(res + "Content-Length: 0\r\n\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

func TestJamiRefusals(t *testing.T) {
	r := newRooms()
	s, cs, _ := startJami(t, r, t.TempDir())
	for name, c := range map[string]struct {
		from, to    string
		enter, face error
		want        string
	}{
		"another's name":    {from: "00112233445566778899aabbccddeeff00112233", want: "403"},
		"a conversation":    {to: "conv/acct/device/conf", want: "404"},
		"a PIN":             {enter: codeError("pin_required"), want: "403"},
		"no codec":          {enter: codeError("no_codec"), want: "488"},
		"an offer like dog": {enter: codeError("bad_request"), want: "488"},
		"full":              {enter: codeError("full"), want: "486"},
		"no such account":   {face: codeError("not_found"), want: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			r.enter, cs.err = c.enter, c.face
			p := newStock(t, s, 1)
			p.call = name
			if c.from != "" {
				p.from = c.from
			}
			if c.to != "" {
				p.to = c.to
			}
			p.send("INVITE", offer, "Content-Type: application/sdp")
			m := p.recv()
			for strings.HasPrefix(m, "SIP/2.0 1") {
				m = p.recv()
			}
			if !strings.HasPrefix(m, "SIP/2.0 "+c.want) || c.want == "488" && !strings.Contains(header(m, "Warning"), c.enter.Error()) {
				t.Errorf("got %q, want %s", m, c.want)
			}
			p.far.Close()
		})
	}
}

func TestJamiCancels(t *testing.T) {
	r := newRooms()
	r.slow = 500 * time.Millisecond
	s, _, _ := startJami(t, r, t.TempDir())
	c := newStock(t, s, 1)
	c.send("INVITE", offer, "Content-Type: application/sdp")
	c.expect("SIP/2.0 180")
	// The branch of a CANCEL is its INVITE's.
	m := "CANCEL sips:127.0.0.1:4225;transport=tls SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.2:40001;rport;branch=z9hG4bKPj" + c.call + "INVITE1\r\nMax-Forwards: 70\r\n" +
		"From: \"Alice\" <sip:" + c.from + "@ring.dht>;tag=theirs\r\nTo: <sips:" + c.to + "@127.0.0.1:4225;transport=tls>\r\nCall-ID: " + c.call + "\r\nCSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n"
	if _, err := c.far.Write([]byte(m)); err != nil {
		t.Fatal(err)
	}
	seen := ""
	for !strings.Contains(seen, "487") || !strings.Contains(seen, "200") {
		seen += c.recv()[:12]
	}
	if s.Calls() != 0 {
		t.Error("there is a call")
	}
}

// A call ends with its channel, and with our process: the stock peer's ends too.
func TestJamiChannelEnds(t *testing.T) {
	r := newRooms()
	dir := t.TempDir()
	s, _, stop := startJami(t, r, dir)
	c := newStock(t, s, 1)
	id := c.dial(r)
	other := newStock(t, s, 2)
	stays := other.dial(r)
	c.far.Close()
	if got := <-r.left; got != id+" lost" {
		t.Errorf("left %q", got)
	}
	eventually(t, "one call", func() bool { return s.Has(stays) && !s.Has(id) })
	stop()
	other.expect("MESSAGE")
	if m := other.expect("BYE"); header(m, "Reason") == "" {
		t.Error(m)
	}
	near, _ := channeltest.Pipe("sip", c.peer)
	if err := s.Accept(jami.ID{1}, near); err == nil {
		t.Error("a channel was taken by a server that ended")
	}
}

// A device has not any number of channels, and nothing of its calls is another's.
func TestJamiBounds(t *testing.T) {
	r := newRooms()
	s, _, _ := startJami(t, r, t.TempDir())
	c := newStock(t, s, 1)
	c.dial(r)
	for range channelsDevice - 1 {
		near, _ := channeltest.Pipe("sip", c.peer)
		if err := s.Accept(jami.ID{1}, near); err != nil {
			t.Fatal(err)
		}
	}
	near, _ := channeltest.Pipe("sip", c.peer)
	if err := s.Accept(jami.ID{1}, near); err == nil {
		t.Error("one channel too many")
	}
	thief := newStock(t, s, 2)
	thief.call, thief.tag, thief.seq = c.call, c.tag, c.seq
	thief.send("BYE", "")
	thief.expect("SIP/2.0 403")
	c.far.Close()
	eventually(t, "its calls end", func() bool { return s.Calls() == 0 })
}

// Text outside of a call is told and acknowledged; what is no text is acknowledged too, since
// a stock peer closes the channel otherwise (§3.1) and tries again: which it shall when nobody
// can take a text now.
func TestJamiOutOfCall(t *testing.T) {
	s, cs, _ := startJami(t, newRooms(), t.TempDir())
	c := newStock(t, s, 1)
	for _, x := range []struct {
		body    string
		headers []string
		told    string // of the id on
	}{
		{"hello", []string{"Content-Type: text/plain", "Message-ID: 00000000000004d2"}, "00000000000004d2 text/plain hello"},
		{"hi", []string{"Content-Type: text/plain;charset=utf-8", "Message-ID: ../x"}, " text/plain;charset=utf-8 hi"},
		{"hi", nil, ""},
		{"\xff", []string{"Content-Type: text/plain"}, ""},
		{"", []string{"Content-Type: text/plain"}, ""},
	} {
		c.send("MESSAGE", x.body, x.headers...)
		c.expect("SIP/2.0 200")
		c.seq++
		got := ""
		select {
		case got = <-cs.heard:
		default:
		}
		if want := c.to + " " + c.peer.DeviceLong + " " + x.told; got != want && (x.told != "" || got != "") {
			t.Errorf("%q %q: told %q", x.body, x.headers, got)
		}
	}
	cs.mu.Lock()
	cs.busy = errors.New("nobody is there")
	cs.mu.Unlock()
	c.send("MESSAGE", "hello", "Content-Type: text/plain", "Message-ID: 00000000000004d3")
	c.expect("SIP/2.0 503")
	c.seq++
	c.from = jami.ID{9}.String()
	c.send("MESSAGE", "hello", "Content-Type: text/plain", "Message-ID: 00000000000004d4")
	c.expect("SIP/2.0 403")
	c.from = c.peer.Account.String()
	c.seq++
	c.send("OPTIONS", "")
	if m := c.expect("SIP/2.0 200"); !strings.Contains(header(m, "Allow"), "MESSAGE") {
		t.Error(m)
	}
	c.seq++
	c.send("SUBSCRIBE", "")
	c.expect("SIP/2.0 405")
	select {
	case got := <-cs.heard:
		t.Errorf("heard %q", got)
	default:
	}
}

// The calls of a process that died are over with their channels: their seats are given back.
func TestJamiCallsOfBefore(t *testing.T) {
	r := newRooms()
	dir := t.TempDir()
	rec := `{"id":"jami-1","room":"main","call_id":"c","local_tag":"l","remote_tag":"r","local":"<sip:x@y>;tag=l","remote":"<sip:a@x>;tag=r",` +
		`"target":"sips:a@127.0.0.2:40001","transport":"TLS","source":"[100:0:0:1::1]:5061","device":"dd","host":"127.0.0.2"}`
	if err := os.WriteFile(filepath.Join(dir, "jami-1.json"), []byte(rec), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _, _ := startJami(t, r, dir)
	if got := <-r.left; got != "jami-1 lost" {
		t.Errorf("left %q", got)
	}
	// The first channel of this process has the address that the dead one's had.
	newStock(t, s, 1)
	eventually(t, "no call is left", func() bool { return s.Calls() == 0 })
}

// What the node writes outside of calls is a MESSAGE on the channel that the device opened
// last, and 200 says that the device has it (connect-and-calls §5.1).
func TestJamiIsWrittenTo(t *testing.T) {
	s, _, _ := startJami(t, newRooms(), t.TempDir())
	own, text := jami.ID{1}, Message{Type: "text/plain", Body: "Grüße"}
	write := func(c *stock, m Message) chan error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		t.Cleanup(cancel)
		said := make(chan error, 1)
		go func() { said <- s.Write(ctx, own, c.peer.DeviceLong, "00000000000004d2", m) }()
		return said
	}
	c, other := newStock(t, s, 1), newStock(t, s, 2)
	c.send("OPTIONS", "")
	c.expect("SIP/2.0 200")
	for _, status := range []string{"200 OK", "500 Internal Error", "200 OK"} {
		said := write(c, text)
		m := c.expect("MESSAGE sips:127.0.0.2:40001;transport=tls SIP/2.0")
		for h, want := range map[string]string{"Message-ID": "00000000000004d2", "Content-Type": "text/plain", "User-Agent": jamiAgent,
			"To": "<sips:" + c.peer.Account.String() + "@127.0.0.2:40001;transport=tls>", "CSeq": "1 MESSAGE"} {
			if got := header(m, h); got != want {
				t.Errorf("%s: %q, want %q", h, got, want)
			}
		}
		if _, err := time.Parse(time.ANSIC, header(m, "Date")); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(header(m, "From"), "<sip:"+own.String()+"@ring.dht>;tag=") || !strings.HasSuffix(m, "\r\n\r\nGrüße") || !strings.HasPrefix(header(m, "Via"), "SIP/2.0/TLS 127.0.0.1:4225") {
			t.Errorf("%s", m)
		}
		c.respond(m, status)
		if err := <-said; (err == nil) != (status == "200 OK") {
			t.Errorf("%s: %v", status, err)
		}
	}
	if err := <-write(c, Message{Type: "text/plain", Body: strings.Repeat("x", maxText)}); !errors.Is(err, ErrNoChannel) {
		t.Errorf("a text that is too long: %v", err)
	}
	if err := s.Write(t.Context(), jami.ID{2}, c.peer.DeviceLong, "1", text); !errors.Is(err, ErrNoChannel) {
		t.Errorf("from another account: %v", err)
	}
	other.far.Close()
	for end := time.Now().Add(5 * time.Second); s.channels.of(own, other.peer.DeviceLong) != nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := <-write(other, text); !errors.Is(err, ErrNoChannel) {
		t.Errorf("on a closed channel: %v", err)
	}
}
