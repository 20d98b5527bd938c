package sip

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// answer responds to a request of the server's.
func (p *phone) answer(req, status, body string, headers ...string) {
	p.t.Helper()
	m := "SIP/2.0 " + status + "\r\n"
	for _, h := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		m += h + ": " + header(req, h) + "\r\n"
	}
	for _, h := range headers {
		m += h + "\r\n"
	}
	if body != "" {
		m += "Content-Type: application/sdp\r\n"
	}
	m += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := p.c.WriteToUDP([]byte(m), p.to); err != nil {
		p.t.Fatal(err)
	}
}

// dial makes a call to main and returns the participant.
func (p *phone) dial(r *rooms) string {
	p.t.Helper()
	p.send("INVITE", "main", offer)
	p.answered(p.expect("200"))
	p.send("ACK", "main", "")
	p.seq++
	return <-r.inChan
}

// until reads past repetitions to a message that begins with want.
func (p *phone) until(want string) string {
	p.t.Helper()
	for {
		if m := p.recv(); strings.HasPrefix(m, want) {
			return m
		}
	}
}

// Calls whose ACK is missing are neither being set up nor without a bound.
func TestCallsWithoutACK(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	s.open.mu.Lock()
	s.open.perIP = 3
	s.open.mu.Unlock()
	for range 3 {
		p := newPhone(t, addr)
		p.send("INVITE", "main", offer)
		p.expect("200")
	}
	for i := 0; s.ringing.Load() != 0; i++ {
		if i > 200 {
			t.Fatalf("%d calls count as being set up", s.ringing.Load())
		}
		time.Sleep(10 * time.Millisecond)
	}
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	p.expect("503")
	other := newPhoneAt(t, addr, net.IPv4(127, 0, 0, 2))
	other.dial(r)
}

func TestACKGivesThePlaceBack(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	s.open.mu.Lock()
	s.open.perIP = 1
	s.open.mu.Unlock()
	for range 5 {
		p := newPhone(t, addr)
		p.dial(r)
		for i := 0; ; i++ {
			s.open.mu.Lock()
			n := s.open.all
			s.open.mu.Unlock()
			if n == 0 {
				break
			}
			if i > 100 {
				t.Fatal("the place was not given back")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// The room is told that a caller over UDP is where it says once the caller has
// repeated our tag, or the nonce.
func TestUDPCallersAreProvedByTheirACK(t *testing.T) {
	r := newRooms()
	r.unsure.Store(2)
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	p.answered(p.expect("200"))
	id := <-r.inChan
	if !r.call(id).Unproved {
		t.Error("a datagram proved where it came from")
	}
	select {
	case <-r.confirmed:
		t.Fatal("confirmed before the ACK")
	case <-time.After(300 * time.Millisecond):
	}
	p.send("ACK", "main", "")
	select {
	case got := <-r.confirmed:
		if got != id {
			t.Errorf("confirmed %s, want %s", got, id)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the ACK did not confirm")
	}
	q := newPhone(t, addr)
	ch := q.challenge("MD5")
	q.send("INVITE", "secret", offer, q.authorize(ch, "1234", "sip:secret@127.0.0.1"))
	q.answered(q.expect("200"))
	if r.call(<-r.inChan).Unproved {
		t.Error("the nonce proved nothing")
	}
	q.send("ACK", "secret", "")
}

// RFC 3261 §14.2, §13.3.1.4.
func TestRepeats2xxToAReinvite(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.dial(r)
	p.send("INVITE", "main", offer)
	first := p.expect("200")
	p.send("INVITE", "main", offer) // it got lost, the phone says
	if again := p.expect("200"); again != first {
		t.Errorf("the repeated 200 differs: %q", again)
	}
	p.send("ACK", "main", "")
	p.seq++
	p.send("BYE", "main", "")
	p.until("SIP/2.0 200")
}

// RFC 3261 §14.1 and §14.2: both sides offer at once.
func TestGlare(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	id := p.dial(r)
	s.Renegotiate(id)
	ours := p.recv()
	if !strings.HasPrefix(ours, "INVITE sip:ada@") {
		t.Fatalf("got %q, want a re-INVITE", ours)
	}
	p.send("INVITE", "main", offer)
	p.until("SIP/2.0 491")
	p.send("ACK", "main", "")
	p.seq++
	p.send("UPDATE", "main", offer)
	p.until("SIP/2.0 491")
	p.seq++
	p.answer(ours, "491 Request Pending", "")
	if m := p.until("ACK "); header(m, "CSeq") != strings.Replace(header(ours, "CSeq"), "INVITE", "ACK", 1) {
		t.Errorf("ACK %q", m)
	}
	again := p.until("INVITE ") // after up to 2 s
	if header(again, "CSeq") == header(ours, "CSeq") {
		t.Fatal("the same re-INVITE came again")
	}
	p.answer(again, "200 OK", offer, "Contact: <sip:ada@"+p.c.LocalAddr().String()+">")
	ack := p.until("ACK ")
	p.answer(again, "200 OK", offer) // the ACK got lost, the phone says
	if m := p.until("ACK "); header(m, "CSeq") != header(ack, "CSeq") {
		t.Errorf("ACK %q", m)
	}
	if r.call(id).ID == "" {
		t.Fatal("the call ended")
	}
}

// A caller who gives up while the room is asked is not left in it.
func TestCancelLeavesNoGhost(t *testing.T) {
	r := newRooms()
	r.slow = time.Second
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	time.Sleep(300 * time.Millisecond)
	m := fmt.Sprintf("CANCEL sip:main@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d-INVITE;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:ada@127.0.0.1>;tag=ft\r\nTo: <sip:main@127.0.0.1>\r\nCall-ID: %s\r\nCSeq: %d CANCEL\r\nContent-Length: 0\r\n\r\n",
		p.c.LocalAddr(), p.call, p.seq, p.call, p.seq)
	if _, err := p.c.WriteToUDP([]byte(m), p.to); err != nil {
		t.Fatal(err)
	}
	p.expect("200")
	p.expect("487")
	select {
	case got := <-r.left:
		if !strings.HasSuffix(got, " cancelled") {
			t.Errorf("left: %q", got)
		}
	case <-time.After(3 * time.Second):
		t.Fatal("nobody left the room")
	}
	p.expect("487") // repeated as it is until the ACK
	p.send("ACK", "main", "")
}

func TestTimeoutLeavesNoGhost(t *testing.T) {
	r := newRooms()
	r.enter = codeError("timeout")
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	p.expect("504")
	select {
	case <-r.left:
	case <-time.After(3 * time.Second):
		t.Fatal("nobody left the room")
	}
}

// An answer may be larger than what fits one packet.
func TestLargeAnswer(t *testing.T) {
	r := newRooms()
	r.answer = "v=0\r\n" + strings.Repeat("a=x-fill:0123456789\r\n", 200)
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	if m := p.expect("200"); !strings.HasSuffix(m, r.answer) {
		t.Errorf("%d bytes", len(m))
	}
}

// A phone whose connection is gone is reached at its Contact.
func TestByeAfterTheConnectionIsGone(t *testing.T) {
	r := newRooms()
	s, _, _ := start(t, r, t.TempDir())
	home, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	c, err := net.Dial("tcp", s.cfg.TCP.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say := func(c net.Conn, method, to, body string) {
		t.Helper()
		_, err := fmt.Fprintf(c, "%s sip:main@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bK-%s\r\nMax-Forwards: 70\r\nFrom: <sip:ada@127.0.0.1>;tag=ft\r\n"+
			"To: %s\r\nCall-ID: tcp\r\nCSeq: 1 %s\r\nContact: <sip:ada@%s;transport=tcp>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
			method, c.LocalAddr(), method, to, method, home.Addr(), len(body), body)
		if err != nil {
			t.Fatal(err)
		}
	}
	say(c, "INVITE", "<sip:main@127.0.0.1>", offer)
	ok := readMessage(t, c)
	if !strings.HasPrefix(ok, "SIP/2.0 200") {
		t.Fatalf("got %q", ok)
	}
	say(c, "ACK", header(ok, "To"), "")
	id := <-r.inChan
	for !s.dialogs.byID(id).confirmed() {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	for i := 0; s.ua.TransportLayer().Pool("tcp").Size() > 0 && i < 200; i++ {
		time.Sleep(5 * time.Millisecond)
	}
	s.Hang(id, "kicked")
	if err := home.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in, err := home.Accept()
	if err != nil {
		t.Fatal("nobody called back: ", err)
	}
	defer in.Close()
	if m := readMessage(t, in); !strings.HasPrefix(m, "BYE sip:ada@") {
		t.Errorf("got %q", m)
	}
}

// readMessage reads one message with a Content-Length from a stream.
func readMessage(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(c)
	for {
		var m strings.Builder
		for !strings.HasSuffix(m.String(), "\r\n\r\n") {
			line, err := b.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			m.WriteString(line)
		}
		var n int
		if _, err := fmt.Sscan(header(m.String(), "Content-Length"), &n); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(b, body); err != nil {
			t.Fatal(err)
		}
		m.Write(body)
		if !strings.HasPrefix(m.String(), "SIP/2.0 1") {
			return m.String()
		}
	}
}

// Nobody is dialed who didn't call, nor where another host is named.
func TestRedial(t *testing.T) {
	s, _, _ := start(t, newRooms(), t.TempDir())
	of := func(confirmed bool, contact string) string {
		d := &dialog{acked: make(chan struct{}), record: record{Transport: "TCP", Source: "192.0.2.1:40000"}}
		if confirmed {
			d.confirm()
		}
		var u sip.Uri
		if err := sip.ParseUri(contact, &u); err != nil {
			t.Fatal(err)
		}
		return s.redial(d, &u)
	}
	for _, tc := range []struct {
		confirmed     bool
		contact, want string
	}{
		{true, "sip:a@192.0.2.1:5062", "192.0.2.1:5062"},
		{true, "sip:a@192.0.2.1", "192.0.2.1:5060"},
		{true, "sip:a@10.0.0.1:22", ""},
		{true, "sip:a@db.example", ""},
		{false, "sip:a@192.0.2.1:5062", ""},
	} {
		if got := of(tc.confirmed, tc.contact); got != tc.want {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}

// A request whose connection is gone is answered nowhere: not at the host that
// its Via names.
func TestNobodyElseIsDialed(t *testing.T) {
	s, _, _ := start(t, newRooms(), t.TempDir())
	victim, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	_, err = s.ua.TransportLayer().ClientRequestConnection(t.Context(), func() *sip.Request {
		req := sip.NewRequest(sip.OPTIONS, sip.Uri{Host: "127.0.0.1"})
		req.SetTransport("TCP")
		req.SetDestination(victim.Addr().String())
		req.AppendHeader(&sip.ViaHeader{Host: "x", Port: 1, Params: sip.NewParams()})
		return req
	}())
	if !errors.Is(err, errClosedDoor) {
		t.Errorf("a stranger's host was dialed: %v", err)
	}
	s.doors.open(sourceIP("127.0.0.1:1"))
	if err := s.doors.check("tcp", victim.Addr().String(), nil); err != nil {
		t.Error(err)
	}
	if _, err := noNames.LookupIPAddr(t.Context(), "stranger.example"); err == nil {
		t.Error("a stranger's name was looked up")
	}
}

func TestFirstHop(t *testing.T) {
	s, _, _ := start(t, newRooms(), t.TempDir())
	for route, want := range map[string]string{
		"<sip:192.0.2.7:5080;lr>":          "192.0.2.7:5080",
		"<sip:p@192.0.2.7;lr>":             "192.0.2.7:5060",
		"<sip:[2001:db8::1];lr>":           "[2001:db8::1]:5060",
		`"Proxy" <sip:192.0.2.7;lr>;x=y`:   "192.0.2.7:5060",
		"<sip:localhost;lr;transport=tcp>": "127.0.0.1:5060",
	} {
		d := &dialog{record: record{Transport: "TCP", Routes: []string{route, "<sip:elsewhere;lr>"}}}
		got, err := s.firstHop(t.Context(), d)
		if err != nil || got != want && got != "[::1]:5060" {
			t.Errorf("%s: %q, %v", route, got, err)
		}
	}
}

func TestOddRequests(t *testing.T) {
	multipart := "--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/sdp\r\n\r\n" + offer + "\r\n--b--\r\n"
	for _, tc := range []struct {
		name, method, body string
		headers            []string
		want               string
	}{
		{"options", "OPTIONS", "", nil, "200"},
		{"refer", "REFER", "", []string{"Refer-To: <sip:x@y>"}, "405"},
		{"register", "REGISTER", "", nil, "405"},
		{"prack", "PRACK", "", []string{"RAck: 1 1 INVITE"}, "405"},
		{"subscribe", "SUBSCRIBE", "", []string{"Event: presence"}, "405"},
		{"unheard of", "FROBNICATE", "", nil, "405"},
		{"100rel", "INVITE", offer, []string{"Require: 100rel"}, "420"},
		{"second Require", "INVITE", offer, []string{"Require: ", "Require: foo"}, "420"},
		{"options with Require", "OPTIONS", "", []string{"Require: foo"}, "420"},
		{"last hop", "INVITE", offer, []string{"Max-Forwards: 0"}, "200"}, // a UA is where it was going (RFC 3261 §8.1.1.6)
		{"session timer", "INVITE", offer, []string{"Supported: timer", "Session-Expires: 1800", "Min-SE: 90"}, "200"},
		{"multipart", "INVITE", multipart, []string{"Content-Type: multipart/mixed;boundary=b"}, "200"},
		{"multipart without SDP", "INVITE", "--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n", []string{"Content-Type: multipart/mixed;boundary=b"}, "415"},
		{"packed", "INVITE", offer, []string{"Content-Type: application/sdp", "Content-Encoding: gzip"}, "415"},
		{"no call", "UPDATE", offer, nil, "481"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRooms()
			_, addr, _ := start(t, r, t.TempDir())
			p := newPhone(t, addr)
			p.send(tc.method, "main", tc.body, tc.headers...)
			m := p.expect(tc.want)
			if tc.want == "405" && header(m, "Allow") != allow {
				t.Errorf("Allow: %q", header(m, "Allow"))
			}
			if tc.want == "420" && header(m, "Unsupported") == "" {
				t.Error("no Unsupported")
			}
			if tc.name == "multipart" {
				if got := r.call(<-r.inChan).Offer; got != offer {
					t.Errorf("offer %q", got)
				}
			}
			p.answered(m)
			p.send("ACK", "main", "")
		})
	}
}

// The same INVITE on two ways is one call (RFC 3261 §8.2.2.2).
func TestMergedRequest(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	p.answered(p.expect("200"))
	tag := p.tag
	p.tag, p.branch = "", "other"
	p.send("INVITE", "main", offer)
	p.until("SIP/2.0 482")
	p.tag, p.branch = tag, ""
	p.send("ACK", "main", "")
}

func TestRequireInsideACall(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.dial(r)
	p.send("INVITE", "main", offer, "Require: precondition")
	p.expect("420")
	p.seq++
	p.send("UPDATE", "main", "", "Session-Expires: 90;refresher=uac", "Supported: timer")
	p.expect("200")
}
