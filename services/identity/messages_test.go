package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// post is a field with somebody who follows messages.
type post struct {
	*field
	came   chan *contract.Message
	states chan *contract.MessageState
}

func newPost(t *testing.T, set ...func(*Service)) *post {
	t.Helper()
	p := &post{field: newField(t, set...)}
	p.follow()
	return p
}

func (p *post) follow() {
	p.t.Helper()
	p.came, p.states = make(chan *contract.Message, 1024), make(chan *contract.MessageState, 1024)
	came, err := bus.Subscribe(p.cli, contract.MessageEvents, func(_ context.Context, _ []string, m *contract.Message) { p.came <- m })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(came.Stop)
	states, err := bus.Subscribe(p.cli, contract.MessageStates, func(_ context.Context, _ []string, s *contract.MessageState) { p.states <- s })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(states.Stop)
}

func (p *post) rendezvous(on bool) {
	p.t.Helper()
	if _, err := bus.Call(p.t.Context(), p.cli, contract.AccountSet, &contract.AccountChange{Rendezvous: &on}); err != nil {
		p.t.Fatal(err)
	}
}

// write has a peer write to the account.
func (p *peer) write(f *field, m jami.ImMessage) *jami.Value {
	p.t.Helper()
	if m.Date == 0 {
		m.Date = time.Now().Unix()
	}
	data, err := m.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	v := p.sealed(f.cert(), jami.TypeImMessage, data)
	p.put(f.cert(), v)
	return v
}

// confirmations are what a node confirmed to a peer, at the node's own inbox.
func (p *peer) confirmations(f *field) (ids []uint64) {
	p.t.Helper()
	for _, dv := range p.over.get(f.inboxKey()) {
		v, err := jami.ParseValue(dv.Data)
		if err != nil {
			p.t.Fatal(err)
		}
		clear, err := v.Decrypt(p.key)
		if err != nil {
			continue // for another
		}
		m, err := jami.ParseImMessage(clear.Data)
		if err != nil || clear.Type != jami.TypeImMessage || m.Text != "" || clear.Signer() != jami.KeyID(f.cert().RawSubjectPublicKeyInfo) {
			p.t.Errorf("%+v, %v", m, err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

// got are the messages at a peer's inbox.
func (p *peer) gotMessages() (out []*jami.ImMessage) {
	p.t.Helper()
	for _, b := range p.got(jami.TypeImMessage) {
		m, err := jami.ParseImMessage(b)
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// confirm has a peer confirm a message, at its own inbox as stock does.
func (p *peer) confirm(f *field, id uint64) {
	p.t.Helper()
	data, err := (&jami.ImMessage{ID: id, Date: time.Now().Unix()}).Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(p.chain.Device, p.sealed(f.cert(), jami.TypeImMessage, data))
}

func next[T any](t *testing.T, what string, ch chan *T) *T {
	t.Helper()
	select {
	case x := <-ch:
		return x
	case <-time.After(patience):
		t.Fatal(what + " did not come")
		return nil
	}
}

func (p *post) send(m contract.MessageSend) (string, error) {
	q, err := bus.Call(p.t.Context(), p.cli, contract.MessageSendCmd, &m)
	if err != nil {
		return "", err
	}
	return q.ID, nil
}

func TestAMessageOfAContact(t *testing.T) {
	p := newPost(t)
	p.rendezvous(false)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	alice.publish()
	p.set(alice.id(), "add")
	sent := time.Now().Add(-time.Minute).Unix()
	alice.write(p.field, jami.ImMessage{ID: 77, Text: "Grüße", Date: sent, DataType: "text/plain"})
	m := next(t, "the message", p.came)
	if m.ID != "000000000000004d" || m.From != alice.id() || m.Device != alice.chain.DeviceID.String() || !m.Contact || m.Sent != sent ||
		time.Since(time.Unix(m.Received, 0)) > time.Minute || m.Type != "text/plain" || m.Body != "Grüße" {
		t.Errorf("%+v", m)
	}
	eventually(t, "confirmed", func() bool { ids := alice.confirmations(p.field); return len(ids) == 1 && ids[0] == 77 })

	// Sent again, since the confirmation was late, it is confirmed again and not told.
	alice.write(p.field, jami.ImMessage{ID: 77, Text: "Grüße", DataType: "text/plain"})
	eventually(t, "confirmed again", func() bool { return len(alice.confirmations(p.field)) == 2 })
	alice.write(p.field, jami.ImMessage{ID: 78, Text: "{}", DataType: "application/im-gitmessage-id"})
	if m := next(t, "the next one", p.came); m.ID != jami.MessageID(78) || m.Type != "application/im-gitmessage-id" {
		t.Errorf("%+v", m)
	}
	// Another's message of the same id is another one.
	bob := newPeer(t, p.over, pool()[2], pool()[3])
	bob.publish()
	p.set(bob.id(), "add")
	bob.write(p.field, jami.ImMessage{ID: 77, Text: "hi", DataType: "text/plain"})
	if m := next(t, "bob's", p.came); m.From != bob.id() {
		t.Errorf("%+v", m)
	}
}

// What came over a connection is told as what came over the overlay, once of the two.
func TestAMessageOverAConnection(t *testing.T) {
	p := newPost(t)
	p.rendezvous(false)
	alice, bob := newPeer(t, p.over, pool()[0], pool()[1]), newPeer(t, p.over, pool()[2], pool()[3])
	alice.publish()
	p.set(alice.id(), "add")
	heard := func(by *peer, id string) contract.MessageHeard {
		return contract.MessageHeard{From: by.id(), Device: by.chain.DeviceID.String(), ID: id, Type: "text/plain", Body: "hi"}
	}
	connect := p.srv.Conn("connect").For(p.cli.Account())
	take := func(m contract.MessageHeard) error {
		_, err := bus.Call(t.Context(), connect, contract.MessageTake, &m)
		return err
	}
	for _, m := range []contract.MessageHeard{heard(alice, "000000000000004d"), heard(alice, "000000000000004d"), heard(bob, "000000000000004d"), heard(alice, "")} {
		if err := take(m); err != nil {
			t.Error(err)
		}
	}
	alice.write(p.field, jami.ImMessage{ID: 77, Text: "hi", DataType: "text/plain"})
	eventually(t, "confirmed", func() bool { return len(alice.confirmations(p.field)) == 1 })
	if m := next(t, "the message", p.came); m.ID != "000000000000004d" || m.From != alice.id() || m.Device != alice.chain.DeviceID.String() || !m.Contact || m.Body != "hi" {
		t.Errorf("%+v", m)
	}
	if m := next(t, "one without an id", p.came); m.From != alice.id() {
		t.Errorf("%+v", m)
	}
	for name, change := range map[string]func(m *contract.MessageHeard){
		"no account": func(m *contract.MessageHeard) { m.From = "x" }, "no device": func(m *contract.MessageHeard) { m.Device = m.From },
		"no id": func(m *contract.MessageHeard) { m.ID = "g" }, "no type": func(m *contract.MessageHeard) { m.Type = "text" },
		"no text": func(m *contract.MessageHeard) { m.Body = "" },
	} {
		m := heard(alice, "1")
		change(&m)
		if err := take(m); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var err error
	for range hearBurst {
		err = errors.Join(err, take(heard(alice, "2")))
	}
	if !errors.Is(err, contract.ErrSlowDown) {
		t.Errorf("a flood: %v", err)
	}
	next(t, "the one of them", p.came)
	if n := len(p.came); n != 0 {
		t.Errorf("%d messages more", n)
	}
}

func TestMessagesOfStrangers(t *testing.T) {
	p := newPost(t)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	alice.publish()
	write := func(id uint64) { alice.write(p.field, jami.ImMessage{ID: id, Text: "hi", DataType: "text/plain"}) }
	write(1) // the account is a rendezvous
	if m := next(t, "a stranger's message", p.came); m.Contact {
		t.Errorf("%+v", m)
	}
	p.rendezvous(false)
	write(2)
	eventually(t, "a stranger is not heard", func() bool { return p.counted(verdictDropped) == 1 })
	p.rendezvous(true)
	p.set(alice.id(), "block")
	write(3)
	eventually(t, "a blocked one is not heard", func() bool { return p.counted(verdictDropped) == 2 })
	if n := len(p.came); n != 0 {
		t.Errorf("%d messages", n)
	}
	if ids := alice.confirmations(p.field); len(ids) != 1 {
		t.Errorf("confirmed %v", ids)
	}
}

func TestMessagesThatAreNotTaken(t *testing.T) {
	p := newPost(t)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	revoked := newPeer(t, p.over, pool()[2], pool()[3])
	alice.publish()
	revoked.publish()
	revoked.revoke()
	for _, c := range []struct {
		name string
		by   *peer
		m    jami.ImMessage
		want verdict
	}{
		{"of the day before yesterday", alice, jami.ImMessage{ID: 1, Text: "x", DataType: "text/plain", Date: time.Now().Add(-48 * time.Hour).Unix()}, verdictDropped},
		{"of the day after tomorrow", alice, jami.ImMessage{ID: 2, Text: "x", DataType: "text/plain", Date: time.Now().Add(48 * time.Hour).Unix()}, verdictDropped},
		{"without a type", alice, jami.ImMessage{ID: 3, Text: "x"}, verdictJunk},
		{"with half a type", alice, jami.ImMessage{ID: 4, Text: "x", DataType: "text"}, verdictJunk},
		{"not UTF-8", alice, jami.ImMessage{ID: 5, Text: "\xff\xfe", DataType: "text/plain"}, verdictJunk},
		{"without an id", alice, jami.ImMessage{Text: "x", DataType: "text/plain"}, verdictJunk},
		{"of a revoked device", revoked, jami.ImMessage{ID: 6, Text: "x", DataType: "text/plain"}, verdictJunk},
		{"a confirmation of nothing", alice, jami.ImMessage{ID: 7}, verdictDropped},
	} {
		before := p.counted(c.want)
		c.by.write(p.field, c.m)
		eventually(t, c.name, func() bool { return p.counted(c.want) > before })
	}
	if n := len(p.came); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// Who writes very much is heard at a bounded rate, and keeps nobody else waiting.
func TestAFloodOfMessages(t *testing.T) {
	p := newPost(t, func(s *Service) { s.leaseEvery = time.Hour })
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	bob := newPeer(t, p.over, pool()[2], pool()[3])
	alice.publish()
	bob.publish()
	p.set(alice.id(), "add")
	p.set(bob.id(), "add")
	for i := range hearBurst + 20 {
		eventually(t, "room in the queue", func() bool { return p.counted(verdictTaken)+p.counted(verdictFull) >= i-8 }) // of one writer
		alice.write(p.field, jami.ImMessage{ID: uint64(i + 1), Text: "spam", DataType: "text/plain"})
	}
	eventually(t, "some find no place", func() bool { return p.counted(verdictFull) > 0 })
	bob.write(p.field, jami.ImMessage{ID: 1, Text: "hello", DataType: "text/plain"})
	began := time.Now()
	spam := 0
	for m := next(t, "bob's", p.came); m.From != bob.id(); m = next(t, "bob's", p.came) {
		spam++
	}
	if most := hearBurst + int(hearRate*time.Since(began).Seconds()) + 15; spam > most {
		t.Errorf("%d messages of one device", spam)
	}
}

func TestNoMessageIsToldAgainAfterAStart(t *testing.T) {
	p := &post{field: &field{t: t, srv: bustest.Start(t), events: make(chan *contract.ContactRequest, 16)}}
	p.cli = p.srv.Conn("cli")
	var alice *peer
	t.Run("first", func(t *testing.T) {
		p.start(t)
		p.follow()
		alice = newPeer(t, p.over, pool()[0], pool()[1])
		alice.publish()
		alice.write(p.field, jami.ImMessage{ID: 1, Text: "one", DataType: "text/plain"})
		next(t, "the message", p.came)
		eventually(t, "confirmed", func() bool { return len(alice.confirmations(p.field)) == 1 })
	})
	t.Run("second", func(t *testing.T) {
		p.over.forget()
		p.start(t)
		alice.write(p.field, jami.ImMessage{ID: 1, Text: "one", DataType: "text/plain"})
		alice.write(p.field, jami.ImMessage{ID: 2, Text: "two", DataType: "text/plain"})
		if m := next(t, "the new message", p.came); m.Body != "two" {
			t.Errorf("%+v", m)
		}
	})
}

// What is written goes to each device of an account, and each confirms it.
func TestMessagesAreSent(t *testing.T) {
	p := newPost(t)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	phone := peerOf(t, p.over, pool()[0], pool()[2], alice.chain.Certs()[1:]...)
	lost := peerOf(t, p.over, pool()[0], pool()[3], alice.chain.Certs()[1:]...)
	lost.revoke()
	alice.publish()
	phone.publish()
	lost.publish()
	id, err := p.send(contract.MessageSend{To: alice.id(), Body: "Grüße"})
	if err != nil {
		t.Fatal(err)
	}
	if s := next(t, "sent", p.states); s.ID != id || s.To != alice.id() || s.State != contract.MessageSent || s.Devices != 2 {
		t.Errorf("%+v", s)
	}
	var number uint64
	for _, d := range []*peer{alice, phone} {
		got := d.gotMessages()
		if len(got) != 1 || got[0].Text != "Grüße" || got[0].DataType != "text/plain" || got[0].Status != 0 || time.Since(time.Unix(got[0].Date, 0)) > time.Minute ||
			jami.MessageID(got[0].ID) != id || got[0].ID > maxMessageID {
			t.Fatalf("%+v", got)
		}
		number = got[0].ID
	}
	if len(lost.gotMessages()) != 0 {
		t.Error("a revoked device is written to")
	}
	phone.confirm(p.field, number+1) // of another one
	mallory := newPeer(t, p.over, pool()[4], pool()[5])
	mallory.put(phone.chain.Device, mallory.sealed(p.cert(), jami.TypeImMessage, phone.packed(number)))
	phone.confirm(p.field, number)
	if s := next(t, "delivered", p.states); s.ID != id || s.State != contract.MessageDelivered || s.Device != phone.chain.DeviceID.String() {
		t.Errorf("%+v", s)
	}
	phone.confirm(p.field, number) // once is enough
	alice.confirm(p.field, number)
	if s := next(t, "delivered", p.states); s.Device != alice.chain.DeviceID.String() {
		t.Errorf("%+v", s)
	}
	for i := range 5 {
		if _, err := p.send(contract.MessageSend{To: alice.id(), Type: "text/markdown", Body: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		next(t, "sent", p.states)
	}
	if got := alice.gotMessages(); len(got) != 6 {
		t.Errorf("%+v", got)
	}
	eventually(t, "nobody is waited for", func() bool {
		w := p.host().inbox.words
		w.sweep(time.Now().Add(2 * awaitTime))
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.awaits) == 0 && len(w.watched) == 0 && len(w.lanes) == 0 && w.queued == 0
	})
}

// packed is a confirmation.
func (p *peer) packed(id uint64) []byte {
	p.t.Helper()
	b, err := (&jami.ImMessage{ID: id, Date: time.Now().Unix()}).Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// Who has no device online gets what was written when one appears, or not at all.
func TestAMessageWaitsForADevice(t *testing.T) {
	seen, logs := observer.New(zap.DebugLevel)
	p := newPost(t, func(s *Service) { s.env.Log = zap.New(seen) })
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	id, err := p.send(contract.MessageSend{To: alice.id(), Body: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	tries := func(l zapcore.Level) int {
		return logs.FilterMessageSnippet("not reached all devices").FilterLevelExact(l).Len()
	}
	eventually(t, "tried three times", func() bool { return tries(zap.InfoLevel)+tries(zap.DebugLevel) > 2 })
	if n := tries(zap.InfoLevel); n != 1 {
		t.Errorf("told %d times at info", n)
	}
	alice.publish()
	if s := next(t, "sent", p.states); s.ID != id || s.State != contract.MessageSent || s.Devices != 1 {
		t.Errorf("%+v", s)
	}
	hurry := newPost(t, func(s *Service) { s.messageTime = 50 * time.Millisecond })
	if _, err := hurry.send(contract.MessageSend{To: alice.id(), Body: "hi"}); err != nil {
		t.Fatal(err)
	}
	if s := next(t, "failed", hurry.states); s.State != contract.MessageFailed || !strings.Contains(s.Why, "online") {
		t.Errorf("%+v", s)
	}
}

func TestMessagesThatAreNotSent(t *testing.T) {
	p := newPost(t)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	p.set(alice.id(), "block")
	other := strings.Repeat("1", 40)
	for name, c := range map[string]struct {
		m    contract.MessageSend
		want error
	}{
		"to nobody":       {contract.MessageSend{To: "alice", Body: "x"}, contract.ErrBadRequest},
		"to itself":       {contract.MessageSend{To: p.acc.ID, Body: "x"}, contract.ErrBadRequest},
		"to one blocked":  {contract.MessageSend{To: alice.id(), Body: "x"}, contract.ErrForbidden},
		"of nothing":      {contract.MessageSend{To: other}, contract.ErrBadRequest},
		"too long":        {contract.MessageSend{To: other, Body: strings.Repeat("x", contract.MaxMessage+1)}, contract.ErrBadRequest},
		"what steers":     {contract.MessageSend{To: other, Type: "application/invite+json", Body: "x"}, contract.ErrBadRequest},
		"of half a type":  {contract.MessageSend{To: other, Type: "text", Body: "x"}, contract.ErrBadRequest},
		"of a large type": {contract.MessageSend{To: other, Type: "text/" + strings.Repeat("x", 300), Body: "x"}, contract.ErrBadRequest},
	} {
		if _, err := p.send(c.m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var err error
	for range sayBurst + 100 {
		if _, err = p.send(contract.MessageSend{To: other, Body: "x"}); err != nil {
			break
		}
	}
	if !errors.Is(err, contract.ErrSlowDown) {
		t.Errorf("a flood: %v", err)
	}
}

// The largest message fits into a value.
func TestALargeMessage(t *testing.T) {
	p := newPost(t)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	alice.publish()
	body := strings.Repeat("ä", contract.MaxMessage/2)
	if _, err := p.send(contract.MessageSend{To: alice.id(), Body: body}); err != nil {
		t.Fatal(err)
	}
	if s := next(t, "sent", p.states); s.State != contract.MessageSent {
		t.Errorf("%+v", s)
	}
	if got := alice.gotMessages(); len(got) != 1 || got[0].Text != body {
		t.Errorf("%d messages", len(got))
	}
}

// A device with a connection gets a message over that, the others through the overlay.
func TestAMessageOverConnections(t *testing.T) {
	p := newPost(t)
	alice := newPeer(t, p.over, pool()[0], pool()[1])
	tablet := peerOf(t, p.over, pool()[0], pool()[2], alice.chain.Certs()[1:]...)
	alice.publish()
	tablet.publish()
	p.set(alice.id(), "add")
	asked := make(chan *contract.PeerText, 8)
	answers := make(chan *contract.PeerTolds, 8)
	svc, err := bus.NewService(p.srv.Conn("connect").For(bus.Any), "connect", "0.0.0-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = bus.Serve(svc, contract.PeerSay, func(_ context.Context, r *bus.Request[contract.PeerText]) (*contract.PeerTolds, error) {
		asked <- &r.Body
		return <-answers, nil
	})
	if err == nil {
		err = p.srv.Conn("connect").NATS().Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	told := func(x *peer, confirmed bool) contract.PeerTold {
		return contract.PeerTold{Device: x.chain.DeviceID.String(), Short: x.chain.DeviceShort.String(), Confirmed: confirmed}
	}

	answers <- &contract.PeerTolds{Devices: []contract.PeerTold{told(alice, true), {Device: "x", Short: "nonsense", Confirmed: true}}}
	id, err := p.send(contract.MessageSend{To: alice.id(), Body: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	if q := next(t, "the question", asked); q.To != alice.id() || q.ID != id || q.Type != "text/plain" || q.Body != "hi" || len(q.Skip) != 0 {
		t.Errorf("%+v", q)
	}
	if st := next(t, "delivered", p.states); st.State != contract.MessageDelivered || st.Device != alice.chain.DeviceID.String() || st.ID != id {
		t.Errorf("%+v", st)
	}
	if st := next(t, "sent", p.states); st.State != contract.MessageSent || st.Devices != 2 {
		t.Errorf("%+v", st)
	}
	if got := tablet.gotMessages(); len(got) != 1 || got[0].Text != "hi" {
		t.Errorf("the other device has %+v", got)
	}
	if got := alice.gotMessages(); len(got) != 0 {
		t.Errorf("the connected one has it in the overlay too: %+v", got)
	}

	// On a channel without answers nobody confirms.
	answers <- &contract.PeerTolds{Devices: []contract.PeerTold{told(alice, false), told(tablet, false)}}
	if _, err := p.send(contract.MessageSend{To: alice.id(), Body: "again"}); err != nil {
		t.Fatal(err)
	}
	next(t, "the question", asked)
	if st := next(t, "sent", p.states); st.State != contract.MessageSent || st.Devices != 2 {
		t.Errorf("%+v", st)
	}

	// Who is connected and announced nowhere has it, too.
	bob := newPeer(t, p.over, pool()[3], pool()[4])
	p.set(bob.id(), "add")
	answers <- &contract.PeerTolds{Devices: []contract.PeerTold{told(bob, true)}}
	if _, err := p.send(contract.MessageSend{To: bob.id(), Body: "hi"}); err != nil {
		t.Fatal(err)
	}
	next(t, "the question", asked)
	if st := next(t, "delivered", p.states); st.State != contract.MessageDelivered || st.To != bob.id() {
		t.Errorf("%+v", st)
	}
	if st := next(t, "sent", p.states); st.State != contract.MessageSent || st.Devices != 1 {
		t.Errorf("%+v", st)
	}
}
