package sip

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

// lastingChannel is a channel that processes follow one another on.
type lastingChannel struct {
	*channeltest.Channel
	id   uint64
	ours bool
	kept *kept
}

// kept is what of the messages is not done with.
type kept struct {
	mu    sync.Mutex
	again []string // to be read first
	all   map[string]bool
}

func (c *lastingChannel) Lasts() (uint64, bool) { return c.id, c.ours }

func (c *lastingChannel) Next() (channel.Message, error) {
	c.kept.mu.Lock()
	defer c.kept.mu.Unlock()
	m := channel.Message{Again: len(c.kept.again) > 0}
	if m.Again {
		m.Data, c.kept.again = []byte(c.kept.again[0]), c.kept.again[1:]
	} else {
		c.kept.mu.Unlock()
		b, err := c.ReadMessage()
		c.kept.mu.Lock()
		if err != nil {
			return m, err
		}
		m.Data = b
	}
	text := string(m.Data)
	c.kept.all[text] = true
	m.Done = func() {
		c.kept.mu.Lock()
		defer c.kept.mu.Unlock()
		delete(c.kept.all, text)
	}
	return m, nil
}

// left are the messages that the process would leave for the next one.
func (k *kept) left() (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for m := range k.all {
		out = append(out, m)
	}
	return out
}

// goesOn gives a server the caller's channel, as one that has that id.
func (c *stock) goesOn(s *Server, id uint64, ours bool, again ...string) *kept {
	c.t.Helper()
	var near *channeltest.Channel
	near, c.far = channeltest.Pipe("sip", c.peer)
	k := &kept{again: again, all: map[string]bool{}}
	if err := s.Accept(jami.ID{1}, &lastingChannel{near, id, ours, k}); err != nil {
		c.t.Fatal(err)
	}
	return k
}

// died is what a process that has just died leaves in its directory.
func died(t *testing.T, dir string) string {
	t.Helper()
	next := t.TempDir()
	if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return next
}

// talks is a caller whose call the next process has to go on with, and that call.
func talks(t *testing.T, r *rooms, id uint64) (c *stock, participant, dir string, k *kept) {
	t.Helper()
	dir = t.TempDir()
	s, _, _ := startJami(t, newRoomsOf(r), dir)
	c = newStock(t, s, 1)
	k = c.goesOn(s, id, false)
	participant = c.dial(r)
	eventually(t, "all is done with", func() bool { return len(k.left()) == 0 })
	return c, participant, died(t, dir), k
}

// newRoomsOf are rooms for another process: who enters there is told of in r.
func newRoomsOf(r *rooms) *rooms {
	x := newRooms()
	x.inChan = r.inChan
	return x
}

func TestCallsGoOn(t *testing.T) {
	r := newRooms()
	c, id, dir, _ := talks(t, r, 5)
	s, cs, _ := startJami(t, r, dir, 5)
	if !s.Has(id) {
		t.Fatal("the call is lost before its channel came")
	}
	k := c.goesOn(s, 5, false)
	if got := <-cs.entered; got != "main "+id {
		t.Errorf("entered: %s", got)
	}
	eventually(t, "the room was told", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.again) == 1 && r.again[0] == id
	})
	c.send("MESSAGE", "hello", "Content-Type: text/plain")
	c.expect("SIP/2.0 200")
	if got := <-cs.heard; got != "main "+id+" text/plain hello" {
		t.Errorf("heard %q", got)
	}
	// What is said stays until it was acted upon, though it was answered.
	cs.late = make(chan func(), 1)
	c.seq++
	c.send("MESSAGE", "and more", "Content-Type: text/plain")
	c.expect("SIP/2.0 200")
	done := <-cs.late
	if left := k.left(); len(left) != 1 || !strings.HasSuffix(left[0], "and more") {
		t.Errorf("for the next process: %q", left)
	}
	done()
	c.seq++
	c.send("BYE", "")
	c.expect("SIP/2.0 200")
	if got := <-r.left; got != id+" left" {
		t.Errorf("left: %s", got)
	}
	eventually(t, "all is done with", func() bool { return len(k.left()) == 0 })
}

// Who is put out before the channel is there is told when it is.
func TestHangUpBeforeTheChannelIsThere(t *testing.T) {
	r := newRooms()
	c, id, dir, _ := talks(t, r, 5)
	s, _, _ := startJami(t, r, dir, 5)
	s.Hang(id, "kicked")
	eventually(t, "the call is over", func() bool { return !s.Has(id) })
	c.goesOn(s, 5, false)
	c.expect("MESSAGE")
	if m := c.expect("BYE"); !strings.Contains(m, "kicked") {
		t.Error(m)
	}
}

// A channel that won't come, as one that is not expected, has its call leave the room.
func TestChannelsThatDoNotCome(t *testing.T) {
	for _, expected := range []bool{true, false} {
		r := newRooms()
		_, id, dir, _ := talks(t, r, 5)
		if !expected {
			startJami(t, r, dir, 6)
		} else {
			s, _, _ := startJami(t, r, dir, 5)
			s.Lost([]uint64{6})
			if !s.Has(id) {
				t.Error("another one's channel was lost")
			}
			s.Lost([]uint64{5})
		}
		select {
		case got := <-r.left:
			if got != id+" lost" {
				t.Errorf("left: %s", got)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("the call goes on without a channel (expected: %t)", expected)
		}
	}
}

// A request that the last process did not answer is handled, though its dialog knows the number already.
func TestUnansweredRequests(t *testing.T) {
	r := newRooms()
	slow := newRoomsOf(r)
	dir := t.TempDir()
	first, _, _ := startJami(t, slow, dir)
	c := newStock(t, first, 1)
	k := c.goesOn(first, 5, false)
	id := c.dial(r)
	slow.mu.Lock()
	slow.dumb = true // nothing is answered any more
	slow.mu.Unlock()
	c.send("INVITE", offer, "Content-Type: application/sdp")
	eventually(t, "the INVITE is being handled", func() bool {
		d := first.dialogs.byID(id)
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.theirs
	})
	left := k.left()
	if len(left) != 1 || !strings.HasPrefix(left[0], "INVITE") {
		t.Fatalf("for the next process: %q", left)
	}
	s, _, _ := startJami(t, r, died(t, dir), 5)
	k = c.goesOn(s, 5, false, left...)
	c.expect("SIP/2.0 200")
	if got := <-r.sdps; !strings.HasPrefix(got, "false ") {
		t.Errorf("negotiated: %s", got)
	}
	c.send("ACK", "")
	c.seq--
	c.send("BYE", "") // of an old number, which is not there again
	c.expect("SIP/2.0 500")
	eventually(t, "all is done with", func() bool { return len(k.left()) == 0 })
}

// A caller that was let in and not told so is let in anew, and its first seat given up.
func TestUnansweredCall(t *testing.T) {
	r := newRooms()
	c, id, dir, _ := talks(t, r, 5)
	s, _, _ := startJami(t, r, dir, 5)
	c.goesOn(s, 5, false)
	c.seq, c.tag = 1, ""
	c.send("INVITE", offer, "Content-Type: application/sdp") // which is no repetition
	_ = c.expect("SIP/2.0 180")
	c.expect("SIP/2.0 200")
	<-r.inChan
	if !s.Has(id) {
		t.Fatal("a new call ends the old one")
	}
	c, id, dir, _ = talks(t, r, 5)
	c.seq, c.tag = 1, ""
	near, far := channeltest.Pipe("sip", c.peer)
	c.far = far
	c.send("INVITE", offer, "Content-Type: application/sdp")
	b, err := near.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ = startJami(t, r, dir, 5)
	c.goesOn(s, 5, false, string(b))
	c.expect("SIP/2.0 180")
	c.expect("SIP/2.0 200")
	if got := <-r.left; got != id+" lost" {
		t.Errorf("left: %s", got)
	}
	if next := <-r.inChan; next == id || !s.Has(next) {
		t.Errorf("in the room: %s", next)
	}
}

// A channel that was opened for a call which is not taken yet is closed; one with a call is closed with that.
func TestOurChannels(t *testing.T) {
	r := newRooms()
	c, id, dir, _ := talks(t, r, 5)
	s, _, _ := startJami(t, r, dir, 5, 6)
	rings := newStock(t, s, 2)
	rings.goesOn(s, 6, true)
	if m := rings.recv(); m != "closed" {
		t.Errorf("on a channel for a call that rings: %s", m)
	}
	d := s.dialogs.byID(id)
	d.mu.Lock()
	d.Opened = true
	d.mu.Unlock()
	c.goesOn(s, 5, true)
	c.send("BYE", "")
	c.expect("SIP/2.0 200")
	if m := c.recv(); m != "closed" {
		t.Errorf("after the call: %s", m)
	}
}

// An answer to an offer of the last process is taken.
func TestAnswerToAnOfferOfBefore(t *testing.T) {
	r := newRooms()
	c, id, dir, _ := talks(t, r, 5)
	s, _, _ := startJami(t, r, dir, 5)
	c.goesOn(s, 5, false)
	d := s.dialogs.byID(id)
	res := "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS 127.0.0.1:4225;branch=z9hG4bKold\r\nFrom: " + d.Local + "\r\nTo: " + d.Remote + "\r\nCall-ID: " + c.call +
		"\r\nCSeq: 7 INVITE\r\nContact: <sips:a@127.0.0.2:40001;transport=tls>\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
	if _, err := c.far.Write([]byte(res)); err != nil {
		t.Fatal(err)
	}
	if m := c.expect("ACK"); header(m, "CSeq") != "7 ACK" {
		t.Errorf("CSeq %q", header(m, "CSeq"))
	}
	if got := <-r.sdps; got != "true v=0\r\n" {
		t.Errorf("negotiated: %q", got)
	}
}

// Requests of a channel that overtake one another in the library are all handled, each once.
func TestOvertakenRequests(t *testing.T) {
	r := newRooms()
	s, cs, _ := startJami(t, r, t.TempDir())
	c := newStock(t, s, 1)
	c.dial(r)
	first := c.seq
	for _, x := range []struct {
		seq  int
		want string
	}{{first + 2, "200"}, {first, "200"}, {first + 1, "200"}, {first + 1, "500"}, {first + 3, "200"}, {first - 1, "500"}} {
		c.seq = x.seq
		c.send("INFO", fmt.Sprint(x.seq), "Content-Type: text/plain")
		c.expect("SIP/2.0 " + x.want)
		if x.want == "200" {
			<-cs.heard
		}
	}
}
