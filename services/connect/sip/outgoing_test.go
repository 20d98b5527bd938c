package sip

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

// called is a stock device that the node calls (connect-and-calls §3.2).
type called struct {
	stock
	near   *channeltest.Channel
	invite string
}

func newCalled(t *testing.T, n byte) *called {
	c := &called{stock: stock{t: t, peer: channel.Peer{Account: jami.ID{0xbb}, Device: jami.ID{0xdd, n}, DeviceLong: jami.LongID{0xdd, n}.String()}}}
	c.near, c.far = channeltest.Pipe("sip", c.peer)
	return c
}

// reply answers a request of the node's.
func (c *called) reply(m, status, body string) {
	c.t.Helper()
	to := header(m, "To")
	if !strings.Contains(to, "tag=") {
		to += ";tag=far" + c.peer.DeviceLong[:4]
	}
	res := "SIP/2.0 " + status + "\r\nTo: " + to + "\r\n"
	for _, h := range []string{"Via", "From", "Call-ID", "CSeq"} {
		res += h + ": " + header(m, h) + "\r\n"
	}
	if strings.HasSuffix(header(m, "CSeq"), "INVITE") {
		res += "Contact: \"Bob\" <sips:" + c.peer.Device.String() + "@127.0.0.2:40001;transport=tls>\r\nAllow: INVITE, ACK, BYE, CANCEL, INFO, MESSAGE\r\n"
	}
	if body != "" {
		res += "Content-Type: application/sdp\r\n"
	}
	if _, err := c.far.Write([]byte(res + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)); err != nil {
		c.t.Fatal(err)
	}
}

// rings takes the INVITE and rings.
func (c *called) rings() {
	c.t.Helper()
	c.invite = c.expect("INVITE sips:127.0.0.2:40001;transport=tls")
	c.reply(c.invite, "100 Trying", "")
	c.reply(c.invite, "180 Ringing", "")
}

// takes answers the call.
func (c *called) takes() {
	c.t.Helper()
	c.reply(c.invite, "200 OK", offer)
	if ack := c.expect("ACK sips:" + c.peer.Device.String()); !strings.Contains(header(ack, "To"), ";tag=far") {
		c.t.Errorf("ACK to %q", header(ack, "To"))
	}
}

// placed is a call of the node's.
type placed struct {
	err     chan error
	ringing chan string
	taken   chan string
	cancel  context.CancelCauseFunc
}

func place(t *testing.T, s *Server, devices ...*called) *placed {
	t.Helper()
	p := &placed{err: make(chan error, 1), ringing: make(chan string, 8), taken: make(chan string, 8)}
	var ctx context.Context
	ctx, p.cancel = context.WithCancelCause(context.Background())
	t.Cleanup(func() { p.cancel(nil) })
	o := Outgoing{ID: "jami-out", Room: "main", Name: "Bob", By: "operator", Caller: `The "Room"`, JamiID: jami.ID{0xbb}.String(), Account: jami.ID{1}, Device: ourDevice,
		Entered: func() {}, Ringing: func(d string) { p.ringing <- d }, Taken: func(d string) { p.taken <- d },
		Reach: func(ctx context.Context, fn func(channel.Channel)) error {
			done := make(chan struct{})
			for _, d := range devices {
				go func() { fn(d.near); done <- struct{}{} }()
			}
			for range devices {
				<-done
			}
			if len(devices) == 0 {
				return errors.New("nobody is there")
			}
			return nil
		}}
	go func() { p.err <- s.Call(ctx, o) }()
	return p
}

func (p *placed) ends(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.err:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the call goes on")
		return nil
	}
}

func TestCallsJami(t *testing.T) {
	r := newRooms()
	s, cs, _ := startJami(t, r, t.TempDir())
	c := newCalled(t, 1)
	p := place(t, s, c)
	if id := <-r.inChan; id != "jami-out" {
		t.Errorf("participant %s", id)
	}
	if call := r.call("jami-out"); call.JamiID != c.peer.Account.String() || !call.Jami || call.By != "operator" || call.Name != "Bob" || call.Offer != "" {
		t.Errorf("%+v", call)
	}
	c.rings()
	for h, want := range map[string]string{
		"From": `"The Room" <sip:` + jami.ID{1}.String() + `@ring.dht>;tag=`, "To": "<sips:" + c.peer.Account.String() + "@127.0.0.2:40001;transport=tls>",
		"Contact": "<sips:" + ourDevice + "@127.0.0.1:4225;transport=tls>", "Via": "SIP/2.0/TLS 127.0.0.1:4225;", "User-Agent": jamiAgent, "Content-Type": "application/sdp",
	} {
		if got := header(c.invite, h); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %s", h, got, want)
		}
	}
	if !strings.Contains(header(c.invite, "Allow"), "MESSAGE") || header(c.invite, "Supported") != "" {
		t.Error(c.invite)
	}
	if d := <-p.ringing; d != c.peer.DeviceLong {
		t.Errorf("%s rings", d)
	}
	if len(cs.entered) != 0 || s.Calls() != 0 {
		t.Error("it is in the room while it rings")
	}
	c.takes()
	if err := p.ends(t); err != nil {
		t.Fatal(err)
	}
	if d := <-p.taken; d != c.peer.DeviceLong {
		t.Errorf("%s took it", d)
	}
	if got := <-r.sdps; got != "true "+offer {
		t.Errorf("negotiated %q", got)
	}
	if got := <-cs.entered; got != "main jami-out" {
		t.Errorf("entered %q", got)
	}
	// Inside the call it is as one that the device made.
	c.call, c.from, c.seq = header(c.invite, "Call-ID"), c.peer.Account.String(), 7
	_, c.tag, _ = strings.Cut(header(c.invite, "From"), "tag=")
	c.fromTag = "far" + c.peer.DeviceLong[:4]
	c.send("MESSAGE", `{"layout":1}`, "Content-Type: application/confOrder+json")
	c.expect("SIP/2.0 200")
	if got := <-cs.heard; got != `main jami-out application/confOrder+json {"layout":1}` {
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
	c.send("BYE", "")
	c.expect("SIP/2.0 200")
	if got := <-r.left; got != "jami-out left" {
		t.Errorf("left %q", got)
	}
	if m := c.recv(); m != "closed" { // it was opened for this call
		t.Errorf("then %q", m)
	}
}

func TestHangsUpOnCalled(t *testing.T) {
	r := newRooms()
	s, _, _ := startJami(t, r, t.TempDir())
	c := newCalled(t, 1)
	p := place(t, s, c)
	c.rings()
	c.takes()
	if err := p.ends(t); err != nil {
		t.Fatal(err)
	}
	s.Hang("jami-out", "kicked")
	c.expect("MESSAGE")
	bye := c.expect("BYE sips:" + c.peer.Device.String())
	if cseq := header(bye, "CSeq"); cseq != "3 BYE" {
		t.Errorf("CSeq %s", cseq)
	}
	c.reply(bye, "200 OK", "")
	if got := <-r.left; got != "jami-out kicked" {
		t.Errorf("left %q", got)
	}
}

// The first device that takes the call has it; the others are cancelled, or hung up on.
func TestForks(t *testing.T) {
	r := newRooms()
	s, _, _ := startJami(t, r, t.TempDir())
	quick, slow, late := newCalled(t, 1), newCalled(t, 2), newCalled(t, 3)
	p := place(t, s, quick, slow, late)
	for _, c := range []*called{quick, slow, late} {
		c.rings()
	}
	if header(quick.invite, "Call-ID") == header(slow.invite, "Call-ID") {
		t.Error("one Call-ID")
	}
	quick.takes()
	if d := <-p.taken; d != quick.peer.DeviceLong {
		t.Errorf("%s took it", d)
	}
	cancel := slow.expect("CANCEL sips:127.0.0.2:40001;transport=tls")
	if header(cancel, "Via") != header(slow.invite, "Via") || header(cancel, "CSeq") != "1 CANCEL" || header(cancel, "From") != header(slow.invite, "From") {
		t.Errorf("%s of %s", cancel, slow.invite)
	}
	slow.reply(cancel, "200 OK", "")
	slow.reply(slow.invite, "487 Request Terminated", "")
	slow.expect("ACK")
	cancel = late.expect("CANCEL")
	late.reply(late.invite, "200 OK", offer) // they cross
	late.reply(cancel, "481 Call/Transaction Does Not Exist", "")
	late.expect("ACK")
	late.reply(late.expect("BYE"), "200 OK", "")
	if err := p.ends(t); err != nil {
		t.Fatal(err)
	}
	if ids := s.IDs(); len(ids) != 1 || len(r.sdps) != 1 {
		t.Errorf("calls %v, %d answers", ids, len(r.sdps))
	}
	if d := s.dialogs.byID("jami-out"); d == nil || d.Device != quick.peer.DeviceLong {
		t.Errorf("%+v", d)
	}
}

func TestCallsNotTaken(t *testing.T) {
	refused := func(status int) func(error) bool {
		return func(err error) bool { no, ok := errors.AsType[*Declined](err); return ok && no.Status == status }
	}
	cancelled := func(c *called) {
		cancel := c.expect("CANCEL")
		c.reply(cancel, "200 OK", "")
		c.reply(c.invite, "487 Request Terminated", "")
		c.expect("ACK")
	}
	for name, x := range map[string]struct {
		devices int
		play    func(p *placed, c []*called)
		is      func(error) bool
		left    bool
		enter   error
	}{
		"busy": {devices: 2, play: func(_ *placed, c []*called) { // one says no for all
			c[0].reply(c[0].invite, "486 Busy Here", "")
			c[0].expect("ACK")
			cancelled(c[1])
		}, is: refused(486), left: true},
		"declined": {devices: 1, play: func(_ *placed, c []*called) { c[0].reply(c[0].invite, "603 Decline", ""); c[0].expect("ACK") }, is: refused(603), left: true},
		"all gone": {devices: 2, play: func(_ *placed, c []*called) {
			c[0].reply(c[0].invite, "480 Temporarily Unavailable", "")
			c[0].expect("ACK")
			c[1].far.Close()
		}, is: func(err error) bool { return err != nil }, left: true},
		"nobody":   {is: func(err error) bool { return strings.Contains(err.Error(), "nobody is there") }, left: true},
		"given up": {devices: 2, play: func(p *placed, c []*called) { p.cancel(ErrHungUp); cancelled(c[0]); cancelled(c[1]) }, is: func(err error) bool { return errors.Is(err, ErrHungUp) }, left: true},
		"no right": {enter: codeError("forbidden"), is: func(err error) bool { return code(err) == "forbidden" }},
		"not answered": {devices: 1, play: func(_ *placed, c []*called) {
			c[0].reply(c[0].invite, "200 OK", "")
			c[0].expect("ACK")
			c[0].reply(c[0].expect("BYE"), "200 OK", "")
		}, is: func(err error) bool { return errors.Is(err, errNotSDP) }, left: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRooms()
			r.enter = x.enter
			s, _, _ := startJami(t, r, t.TempDir())
			var cs []*called
			for i := range x.devices {
				cs = append(cs, newCalled(t, byte(i)))
			}
			p := place(t, s, cs...)
			for _, c := range cs {
				c.rings()
			}
			if x.play != nil {
				x.play(p, cs)
			}
			if err := p.ends(t); !x.is(err) {
				t.Errorf("ended with %v", err)
			}
			if x.left {
				if got := <-r.left; got != "jami-out left" {
					t.Errorf("left %q", got)
				}
			}
			eventually(t, "no channel is left", func() bool {
				s.channels.mu.Lock()
				defer s.channels.mu.Unlock()
				return len(s.channels.by) == 0 && s.Calls() == 0
			})
		})
	}
}

// Who stops rings nobody any more.
func TestRingingAtTheEnd(t *testing.T) {
	r := newRooms()
	s, _, stop := startJami(t, r, t.TempDir())
	c := newCalled(t, 1)
	p := place(t, s, c)
	c.rings()
	done := make(chan struct{})
	go func() { defer close(done); stop() }()
	c.reply(c.expect("CANCEL"), "200 OK", "")
	c.reply(c.invite, "487 Request Terminated", "")
	if err := p.ends(t); !errors.Is(err, ErrStopping) {
		t.Error(err)
	}
	<-done
	if err := place(t, s, newCalled(t, 2)).ends(t); !errors.Is(err, ErrStopping) {
		t.Error(err)
	}
}

// The end is not held up by who does not answer, a device or a phone, nor by a room that doesn't.
func TestEndIsNotHeldUp(t *testing.T) {
	within := func(t *testing.T, stop func()) {
		t.Helper()
		began := time.Now()
		stop()
		if took := time.Since(began); took > stopTime+300*time.Millisecond {
			t.Errorf("the end took %v", took)
		}
	}
	t.Run("a device that rings", func(t *testing.T) {
		s, _, stop := startJami(t, newRooms(), t.TempDir())
		c := newCalled(t, 1)
		p := place(t, s, c)
		c.rings()
		within(t, stop)
		if err := p.ends(t); !errors.Is(err, ErrStopping) {
			t.Error(err)
		}
	})
	t.Run("a device that says nothing", func(t *testing.T) {
		s, _, stop := startJami(t, newRooms(), t.TempDir())
		c := newCalled(t, 1)
		p := place(t, s, c)
		c.invite = c.expect("INVITE")
		within(t, stop)
		if err := p.ends(t); !errors.Is(err, ErrStopping) {
			t.Error(err)
		}
	})
	t.Run("a device that takes the call then", func(t *testing.T) {
		r := newRooms()
		r.dumb = true
		s, _, stop := startJami(t, r, t.TempDir())
		c := newCalled(t, 1)
		p := place(t, s, c)
		c.rings()
		c.reply(c.invite, "200 OK", offer)
		c.expect("ACK")
		within(t, stop)
		p.ends(t)
	})
	t.Run("a phone, and a room that says nothing", func(t *testing.T) {
		r := newRooms()
		r.dumb = true
		s, addr, stop := start(t, r, t.TempDir())
		p := newPhone(t, addr)
		err, ringing, _, _ := callsPhone(t, s, p)
		p.answers(p.asked("INVITE"), "180 Ringing", "")
		<-ringing
		within(t, stop)
		if err := <-err; !errors.Is(err, ErrStopping) {
			t.Error(err)
		}
	})
	t.Run("calls that go on", func(t *testing.T) {
		r := newRooms()
		s, addr, stop := start(t, r, t.TempDir())
		p := newPhone(t, addr)
		p.dial(r)
		eventually(t, "the call", func() bool { return s.Calls() == 1 })
		r.mu.Lock()
		r.dumb = true
		r.mu.Unlock()
		within(t, stop)
	})
}
