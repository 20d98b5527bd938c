package identity

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// Somebody asks; the request is told, listed and in the file; accepted, they get the
// confirmation at their inbox, and the conversation that they offered is the contact's.
func TestARequestIsAccepted(t *testing.T) {
	f := newField(t)
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	alice.request(f.cert(), jami.TrustRequest{ConversationID: "c0ffee", Payload: jami.VCard("Alice Ä")})
	e := <-f.events
	if e.ID != alice.id() || e.Name != "Alice Ä" || e.Conversation != "c0ffee" || time.Since(time.Unix(e.Received, 0)) > time.Minute {
		t.Errorf("told %+v", e)
	}
	if l := f.requests(); len(l) != 1 || l[0] != *e {
		t.Errorf("listed %+v", l)
	}
	again, err := f.host().acc.OpenInbox()
	if err != nil {
		t.Fatal(err)
	}
	r, ok := again.Request(alice.chain.JamiID)
	if !ok || !bytes.Equal(r.Payload, jami.VCard("Alice Ä")) || jami.KeyID(r.Device) != alice.chain.DeviceShort {
		t.Errorf("in the file %+v, %v", r, ok)
	}
	if err := f.answer(strings.Repeat("1", 40), "accept"); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("nobody's: %v", err)
	}
	if err := f.answer(alice.id(), "kiss"); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("kiss: %v", err)
	}
	if err := f.answer(alice.id(), "accept"); err != nil {
		t.Fatal(err)
	}
	if c := f.contact(alice.chain.JamiID); !c.Active || !c.Confirmed || c.Conversation != "c0ffee" || len(f.requests()) != 0 {
		t.Errorf("%+v, %v", c, f.requests())
	}
	b, err := os.ReadFile(filepath.Join(f.host().acc.Dir, "incomingTrustRequests"))
	if err != nil {
		t.Fatal(err)
	}
	if left, err := jami.ParseRequests(b); err != nil || len(left) != 0 {
		t.Errorf("the answered request stays in the file: %v, %v", left, err)
	}
	eventually(t, "the confirmation", func() bool {
		got := alice.gotRequests(true)
		return len(got) == 1 && got[0].Service == jami.TrustService && got[0].ConversationID == "c0ffee"
	})
	if len(alice.gotRequests(false)) != 0 {
		t.Error("who was accepted is asked")
	}
}

func TestARequestIsRefusedOrBlocked(t *testing.T) {
	f := newField(t)
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	ask := func() {
		t.Helper()
		alice.request(f.cert(), jami.TrustRequest{})
		<-f.events
	}
	ask()
	if err := f.answer(alice.id(), "refuse"); err != nil || len(f.requests()) != 0 || f.contact(alice.chain.JamiID).Banned {
		t.Errorf("%v, %v", err, f.requests())
	}
	ask() // in the same second: who was refused may ask again
	if err := f.answer(alice.id(), "block"); err != nil || len(f.requests()) != 0 || !f.contact(alice.chain.JamiID).Banned {
		t.Errorf("%v, %v", err, f.requests())
	}
	alice.request(f.cert(), jami.TrustRequest{})
	eventually(t, "a blocked one is not heard", func() bool { return f.counted(verdictDropped) == 1 })
	if len(f.requests()) != 0 {
		t.Errorf("%+v", f.requests())
	}
	f.set(alice.id(), "add") // all the same
	if c := f.contact(alice.chain.JamiID); !c.Active || c.Banned || c.Confirmed {
		t.Errorf("%+v", c)
	}
	eventually(t, "it is asked", func() bool { return len(alice.gotRequests(false)) == 1 })
	if n := len(alice.gotRequests(true)); n != 0 {
		t.Errorf("%d confirmations", n)
	}
}

// A contact that was added here is asked at each of its devices; when one of them appears
// later, there too. Its request, or its confirmation, confirms it.
func TestAContactIsAskedAndConfirms(t *testing.T) {
	f := newField(t)
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	phone := peerOf(t, f.over, pool()[0], pool()[2], alice.chain.Certs()[1:]...)
	lost := peerOf(t, f.over, pool()[0], pool()[3], alice.chain.Certs()[1:]...)
	mallory := newPeer(t, f.over, pool()[4], pool()[5])
	f.set(alice.id(), "add")
	alice.publish()
	eventually(t, "asked when it appears", func() bool { return len(alice.gotRequests(false)) == 1 })
	if r := alice.gotRequests(false)[0]; jami.VCardName(r.Payload) != f.acc.Alias {
		t.Errorf("%q", r.Payload)
	}
	lost.revoke()
	lost.publish()
	mallory.publish()
	// Mallory's device at Alice's id, signed by Mallory.
	r, err := jami.NewReceipt(mallory.acc, mallory.key.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	ann, err := r.Announcement.Pack()
	if err != nil {
		t.Fatal(err)
	}
	f.over.put(contract.DHTValue{Key: alice.id(), ID: valueIDs.Add(1), Data: ann})
	phone.publish()
	eventually(t, "asked at a second device", func() bool { return len(phone.gotRequests(false)) == 1 })
	if n := len(alice.gotRequests(false)); n != 1 {
		t.Errorf("the first one was asked %d times", n)
	}
	if len(lost.gotRequests(false)) != 0 || len(mallory.gotRequests(false)) != 0 {
		t.Error("a revoked device, or a stranger's, was written to")
	}
	phone.request(f.cert(), jami.TrustRequest{Confirm: true})
	eventually(t, "confirmed", func() bool { return f.contact(alice.chain.JamiID).Confirmed })
	if len(f.requests()) != 0 || len(alice.gotRequests(true)) != 0 {
		t.Error("a confirmation is a request, or is confirmed")
	}

	// Removed and added again it is to be confirmed again; that it asks does.
	f.set(alice.id(), "remove")
	f.set(alice.id(), "add")
	if c := f.contact(alice.chain.JamiID); !c.Active || c.Confirmed {
		t.Errorf("%+v", c)
	}
	eventually(t, "asked again", func() bool { return len(alice.gotRequests(false)) == 2 })
	alice.request(f.cert(), jami.TrustRequest{})
	eventually(t, "told the same", func() bool {
		return f.contact(alice.chain.JamiID).Confirmed && len(alice.gotRequests(true)) == 1 && len(phone.gotRequests(true)) == 1
	})
}

// What is not believed changes nothing, and is not tried again.
func TestRequestsThatAreNotTaken(t *testing.T) {
	f := newField(t, func(s *Service) { s.leaseEvery = 50 * time.Millisecond })
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	revoked := newPeer(t, f.over, pool()[2], pool()[3])
	ghost := newPeer(t, f.over, pool()[4], pool()[5]) // publishes nothing
	other := newPeer(t, f.over, pool()[6], pool()[1]) // to whom one may also write
	alice.publish()
	revoked.publish()
	revoked.revoke()
	me := f.cert()
	pack := func(r jami.TrustRequest) []byte {
		b, err := r.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := pack(jami.TrustRequest{Service: jami.TrustService})
	signed := func() *jami.Value {
		v := &jami.Value{ID: valueIDs.Add(1), Type: jami.TypeTrustRequest, Data: good}
		v.To, _ = jami.CertIDs(me)
		if err := v.Sign(alice.key); err != nil {
			t.Fatal(err)
		}
		return v
	}
	encrypted := func(inner []byte) *jami.Value {
		cipher, err := jami.EncryptTo(&testKeys().Device.PublicKey, inner)
		if err != nil {
			t.Fatal(err)
		}
		return &jami.Value{ID: valueIDs.Add(1), Cipher: cipher}
	}
	// inner is what is encrypted of a value: the bytes behind its id.
	inner := func(v *jami.Value) []byte {
		b, err := v.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b[bytes.Index(b, []byte("\xa3dat"))+4:]
	}
	forged := signed()
	forged.Owner = signedBy(t, ghost)
	wrongTo := signed()
	wrongTo.To = other.chain.DeviceShort
	if err := wrongTo.Sign(alice.key); err != nil {
		t.Fatal(err)
	}
	// An oversized vCard cannot be packed: it is put together here.
	huge := []byte("\x84\xa7service\xa7cx.ring\xaeconversationId\xa0\xa7confirm\xc2\xa7payload\xc5\xfa\x01")
	huge = append(huge, make([]byte, 64_001)...)
	cases := []struct {
		name string
		v    *jami.Value
		want verdict
	}{
		{"not encrypted", signed(), verdictJunk},
		{"for another key", alice.sealed(other.chain.Device, jami.TypeTrustRequest, good), verdictJunk},
		{"to another", encrypted(inner(wrongTo)), verdictJunk},
		{"a forged owner", encrypted(inner(forged)), verdictJunk},
		{"another service", alice.sealed(me, jami.TypeTrustRequest, pack(jami.TrustRequest{Service: "cx.other"})), verdictJunk},
		{"another type", alice.sealed(me, 99, good), verdictJunk},
		{"junk in it", alice.sealed(me, jami.TypeTrustRequest, []byte("junk")), verdictJunk},
		{"an oversized vCard", alice.sealed(me, jami.TypeTrustRequest, huge), verdictJunk},
		{"of a revoked device", revoked.sealed(me, jami.TypeTrustRequest, good), verdictJunk},
		{"a confirmation that nobody waits for", alice.sealed(me, jami.TypeTrustRequest, pack(jami.TrustRequest{Service: jami.TrustService, Confirm: true})), verdictDropped},
		{"of a device without a certificate", ghost.sealed(me, jami.TypeTrustRequest, good), verdictLater},
	}
	for _, c := range cases {
		before := f.counted(c.want)
		alice.put(me, c.v)
		eventually(t, c.name, func() bool { return f.counted(c.want) > before })
	}
	eventually(t, "given up", func() bool { return f.counted(verdictLater) == maxTries })
	if n := f.counted(verdictTaken); n != 0 || len(f.requests()) != 0 || len(f.host().acc.Contacts()) != 0 {
		t.Errorf("%d taken, %+v", n, f.requests())
	}
	all := func() (n int) {
		for _, v := range verdicts {
			n += f.counted(v)
		}
		return n
	}
	before := all()
	// All of it lies there still and comes with each renewal. The one that is known to
	// be good is last.
	alice.request(me, jami.TrustRequest{})
	<-f.events
	eventually(t, "the lease was renewed", func() bool { return renewed(f, 3) })
	if n := all() - before; n != 1 {
		t.Errorf("%d values were judged for one", n)
	}
}

func signedBy(t *testing.T, p *peer) []byte {
	t.Helper()
	v := &jami.Value{}
	if err := v.Sign(p.key); err != nil {
		t.Fatal(err)
	}
	return v.Owner
}

// renewed waits until the lease of the inbox was renewed n times from now.
func renewed(f *field, n int) bool {
	for range n {
		f.over.forget()
		eventually(f.t, "a renewal", func() bool { return f.over.listened(f.inboxKey()) })
	}
	return true
}

// Ten thousand values of no use cost little: what is for us gets through at once, and the
// rate of RSA is bounded.
func TestJunkAtTheInbox(t *testing.T) {
	f := newField(t)
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	junk := make([]byte, 1200)
	began := time.Now()
	for i := range 10_000 {
		if _, err := rand.Read(junk); err != nil {
			t.Fatal(err)
		}
		b, err := (&jami.Value{ID: uint64(i + 1), Cipher: slices.Clone(junk)}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		f.over.tell(contract.DHTValue{Key: f.inboxKey(), ID: uint64(i + 1), Data: b, Writer: "mallory"}, false)
	}
	alice.request(f.cert(), jami.TrustRequest{Payload: jami.VCard("Alice")})
	select {
	case e := <-f.events:
		t.Logf("a request among 10,000 values of no use came %s after the first of them", time.Since(began))
		if e.ID != alice.id() {
			t.Errorf("%+v", e)
		}
	case <-time.After(patience):
		t.Fatal("no request")
	}
	opened := f.counted(verdictJunk)
	if most := openBurst + int(openRate*time.Since(began).Seconds()) + 2; opened > most {
		t.Errorf("%d values were opened, at most %d should", opened, most)
	}
	if n := f.counted(verdictFull); n == 0 {
		t.Error("all found a place")
	}
}

// The inbox is listened to again at once when the bus was away, and what was put meanwhile
// is taken.
func TestNothingIsMissedWhileTheBusIsAway(t *testing.T) {
	f := newField(t, func(s *Service) { s.leaseEvery = time.Hour })
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	f.over.forget()
	alice.request(f.cert(), jami.TrustRequest{})
	if err := f.svc.conn.NATS().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	if e := <-f.events; e.ID != alice.id() || !f.over.listened(f.inboxKey()) {
		t.Errorf("%+v", e)
	}
}

// It is listened to again when dht has forgotten; what was put meanwhile is taken, and
// nothing twice, not under another id either.
func TestNothingIsMissedAndNothingTreatedTwice(t *testing.T) {
	f := newField(t, func(s *Service) { s.leaseEvery = 50 * time.Millisecond })
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	f.over.forget()
	v := alice.request(f.cert(), jami.TrustRequest{})
	<-f.events
	if err := f.answer(alice.id(), "refuse"); err != nil {
		t.Fatal(err)
	}
	replay := *v
	replay.ID = valueIDs.Add(1)
	alice.put(f.cert(), &replay)
	renewed(f, 3)
	if len(f.requests()) != 0 {
		t.Error("a refused request is there again")
	}
}

func TestNothingIsTreatedTwiceAfterAStart(t *testing.T) {
	f := &field{t: t, srv: bustest.Start(t), events: make(chan *contract.ContactRequest, 16)}
	f.cli = f.srv.Conn("cli")
	var alice *peer
	quick := func(s *Service) { s.leaseEvery = 50 * time.Millisecond }
	t.Run("first", func(t *testing.T) {
		f.start(t, quick)
		alice = newPeer(t, f.over, pool()[0], pool()[1])
		alice.publish()
		alice.request(f.cert(), jami.TrustRequest{})
		<-f.events
		if err := f.answer(alice.id(), "refuse"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("second", func(t *testing.T) {
		f.over.forget()
		f.start(t, quick)
		renewed(f, 3)
		if n := f.counted(verdictTaken); n != 0 || len(f.requests()) != 0 {
			t.Errorf("%d values were treated again: %+v", n, f.requests())
		}
		alice.request(f.cert(), jami.TrustRequest{})
		if e := <-f.events; e.ID != alice.id() {
			t.Errorf("%+v", e)
		}
	})
}

// Files of the inbox that are damaged stay as they are, and the account works without.
func TestADamagedInbox(t *testing.T) {
	f := &field{t: t, srv: bustest.Start(t), events: make(chan *contract.ContactRequest, 16)}
	f.cli = f.srv.Conn("cli")
	t.Run("first", func(t *testing.T) { f.start(t) })
	path := damage(t, f.host().acc, "incomingTrustRequests")
	t.Run("second", func(t *testing.T) {
		start(t, f.srv, readyKeys)
		waitState(t, f.cli, stateReady)
		if _, err := bus.Call(t.Context(), f.cli, contract.RequestList, &contract.None{}); !errors.Is(err, contract.ErrStateDamaged) {
			t.Errorf("%v", err)
		}
		if err := f.answer(f.acc.ID, "accept"); !errors.Is(err, contract.ErrStateDamaged) {
			t.Errorf("%v", err)
		}
		f.set(strings.Repeat("1", 40), string(account.Add))
	})
	damaged(t, path)
}

// A device that appears while a request goes to the contact's others is asked too.
func TestADeviceThatAppearsMeanwhile(t *testing.T) {
	contact, dev := pool()[0], pool()[1]
	r, err := jami.NewReceipt(contact, dev.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	ann, err := r.Announcement.Pack()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutbox(nil)
	going := &outgoing{kind: sentRequest}
	o.want[r.Account] = going
	o.appeared(r.Account)(contract.DHTValue{Data: ann}, false)
	if w := o.want[r.Account]; w == nil || w == going {
		t.Error("who delivers ends without having seen it")
	}
}
