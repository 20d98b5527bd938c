package sip

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
)

// callsPhone has the node call a phone over UDP.
func callsPhone(t *testing.T, s *Server, p *phone) (err chan error, ringing, taken chan string, cancel context.CancelCauseFunc) {
	t.Helper()
	err, ringing, taken = make(chan error, 1), make(chan string, 4), make(chan string, 4)
	ctx, cancel := context.WithCancelCause(context.Background())
	t.Cleanup(func() { cancel(nil) })
	at := p.c.LocalAddr().String()
	go func() {
		err <- s.Call(ctx, Outgoing{ID: "sip-out", Room: "main", Name: "bob", By: "operator", Caller: "The room", Phone: Phone{URI: "sip:bob@" + at, Transport: "UDP", At: at},
			Entered: func() {}, Ringing: func(d string) { ringing <- d }, Taken: func(d string) { taken <- d }})
	}()
	return err, ringing, taken, cancel
}

// answers sends a response to a request of the node's.
func (p *phone) answers(m, status, body string, headers ...string) {
	p.t.Helper()
	to := header(m, "To")
	if !strings.Contains(to, "tag=") {
		to += ";tag=bob"
	}
	res := "SIP/2.0 " + status + "\r\nTo: " + to + "\r\n"
	for _, h := range []string{"Via", "From", "Call-ID", "CSeq"} {
		res += h + ": " + header(m, h) + "\r\n"
	}
	for _, h := range headers {
		res += h + "\r\n"
	}
	if body != "" {
		res += "Content-Type: application/sdp\r\n"
	}
	if header(res, "Contact") == "" {
		res += "Contact: <sip:bob@" + p.c.LocalAddr().String() + ">\r\n"
	}
	if _, err := p.c.WriteToUDP([]byte(res+"\r\n"+body), p.to); err != nil {
		p.t.Fatal(err)
	}
}

func (p *phone) asked(start string) string {
	p.t.Helper()
	m := p.recv()
	if !strings.HasPrefix(m, start) {
		p.t.Fatalf("got %q, want %s", m, start)
	}
	return m
}

func TestCallsPhone(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	done, ringing, taken, _ := callsPhone(t, s, p)
	if call := r.call(<-r.inChan); call.Jami || call.JamiID != "" || call.By != "operator" || call.Source != "127.0.0.1" || call.Unproved {
		t.Errorf("%+v", call)
	}
	inv := p.asked("INVITE sip:bob@" + p.c.LocalAddr().String() + " SIP/2.0")
	if from := header(inv, "From"); !strings.HasPrefix(from, `"The room" <sip:main@127.0.0.1:`) || header(inv, "To") != "<sip:bob@"+p.c.LocalAddr().String()+">" {
		t.Errorf("%s", inv)
	}
	p.answers(inv, "180 Ringing", "")
	if d := <-ringing; d != "" {
		t.Errorf("%q rings", d)
	}
	p.answers(inv, "200 OK", offer)
	ack := p.asked("ACK sip:bob@")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-taken
	p.answers(inv, "200 OK", offer) // the ACK got lost
	if again := p.asked("ACK"); header(again, "CSeq") != header(ack, "CSeq") || header(again, "To") != "<sip:bob@"+p.c.LocalAddr().String()+">;tag=bob" {
		t.Errorf("%s", again)
	}
	if got := <-r.sdps; got != "true "+offer {
		t.Errorf("negotiated %q", got)
	}
	s.Hang("sip-out", "kicked")
	bye := p.asked("BYE sip:bob@")
	if header(bye, "CSeq") != "2 BYE" || !strings.Contains(header(bye, "Reason"), "kicked") {
		t.Errorf("%s", bye)
	}
	p.answers(bye, "200 OK", "")
	if got := <-r.left; got != "sip-out kicked" {
		t.Errorf("left %q", got)
	}
}

func TestPhoneDeclines(t *testing.T) {
	for _, status := range []string{"486 Busy Here", "401 Unauthorized", "302 Moved Temporarily"} {
		r := newRooms()
		s, addr, _ := start(t, r, t.TempDir())
		p := newPhone(t, addr)
		done, _, _, _ := callsPhone(t, s, p)
		p.answers(p.asked("INVITE"), status, "", "Contact: <sip:evil@192.0.2.99>")
		p.asked("ACK")
		if no, ok := errors.AsType[*Declined](<-done); !ok || no.Status != int(status[0]-'0')*100+int(status[1]-'0')*10+int(status[2]-'0') {
			t.Errorf("%s: %v", status, no)
		}
		if got := <-r.left; got != "sip-out left" {
			t.Errorf("left %q", got)
		}
	}
}

func TestPhoneIsCancelled(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	done, ringing, _, cancel := callsPhone(t, s, p)
	inv := p.asked("INVITE")
	p.answers(inv, "180 Ringing", "")
	<-ringing
	cancel(ErrHungUp)
	p.answers(p.asked("CANCEL"), "200 OK", "")
	p.answers(inv, "487 Request Terminated", "")
	p.asked("ACK")
	if err := <-done; !errors.Is(err, ErrHungUp) {
		t.Error(err)
	}
}

// A stranger's Contact in an answer has the node connect to nobody.
func TestAnswersTargetIsNotDialled(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p := newPhone(t, addr)
	done, _, _, _ := callsPhone(t, s, p)
	inv := p.asked("INVITE")
	p.answers(inv, "200 OK", offer, "Contact: <sip:evil@"+other.LocalAddr().String()+">")
	p.asked("ACK sip:evil@" + other.LocalAddr().String()) // it names the target and comes to who answered
	if err := <-done; err != nil {
		t.Error(err)
	}
}
