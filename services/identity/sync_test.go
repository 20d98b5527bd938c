package identity

import (
	"strconv"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// ownDevice is another device of the node's account, played by the test.
func (f *field) ownDevice(i int) *peer {
	f.t.Helper()
	return peerOf(f.t, f.over, testKeys().Account, pool()[i], f.host().acc.Chain.Certs()[1:]...)
}

// known publishes another device and waits until the node knows it.
func (f *field) known(p *peer) {
	f.t.Helper()
	p.publish()
	eventually(f.t, "the other device is known and told", func() bool { return p.gotSync() != nil })
}

// A device that appears is told what there is, and each change after that; older messages
// to it are taken away.
func TestChangesGoToTheOtherDevices(t *testing.T) {
	f := newField(t)
	bob := jami.HashKey("bob")
	f.set(bob.String(), "add")
	tablet := f.ownDevice(0)
	f.known(tablet)
	first := tablet.gotSync()
	if c := first.Peers[bob]; !c.Active() {
		t.Errorf("%+v", first)
	}
	me := f.host().acc.Chain
	if d := first.Devices[me.DeviceID]; d.Name != f.acc.Alias || d.Short != me.DeviceShort {
		t.Errorf("%+v", first.Devices)
	}
	began := time.Now()
	f.set(bob.String(), "block")
	eventually(t, "told of the change", func() bool { return tablet.gotSync().Peers[bob].Blocked() })
	t.Logf("told after %s", time.Since(began))
	alice := newPeer(t, f.over, pool()[1], pool()[2])
	alice.publish()
	alice.request(f.cert(), jami.TrustRequest{Payload: jami.VCard("Alice")})
	<-f.events
	eventually(t, "told of the request", func() bool {
		r, ok := tablet.gotSync().Requests[alice.chain.JamiID]
		return ok && r.Payload == nil && jami.KeyID(r.Device) == alice.chain.DeviceShort
	})
	if err := f.answer(alice.id(), "accept"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told of the answer", func() bool {
		s := tablet.gotSync()
		return s.Peers[alice.chain.JamiID].Active() && len(s.Requests) == 0 && len(tablet.got(jami.TypeData)) == 1
	})
	if last := tablet.gotSync().Date; last <= first.Date {
		t.Errorf("%d after %d", last, first.Date)
	}
	// A device may hear the confirmation before it hears of the contact: it is told of both.
	carol := newPeer(t, f.over, pool()[3], pool()[4])
	carol.publish()
	f.set(carol.id(), "add")
	eventually(t, "told of the new contact", func() bool { return tablet.gotSync().Peers[carol.chain.JamiID].Active() })
	began = time.Now()
	carol.request(f.cert(), jami.TrustRequest{Confirm: true})
	eventually(t, "told of the confirmation", func() bool { return tablet.gotSync().Peers[carol.chain.JamiID].Confirmed })
	if took := time.Since(began); took > leaseEvery/2 { // then every device that is there is told anew
		t.Errorf("told after %s", took)
	}
	// Announced anew, as after a start of its own.
	before := tablet.gotSync().Date
	tablet.announce()
	eventually(t, "told when it appears again", func() bool { return tablet.gotSync().Date > before })
	if len(alice.got(jami.TypeData)) != 0 {
		t.Error("a stranger was told")
	}
}

// What another device tells is merged: contacts, requests, answers, names; and told on.
func TestWhatAnotherDeviceTells(t *testing.T) {
	f := newField(t)
	tablet := f.ownDevice(0)
	f.known(tablet)
	bob, carol, dora := jami.HashKey("bob"), jami.HashKey("carol"), jami.HashKey("dora")
	f.set(carol.String(), "add")
	now := time.Now()
	date := uint64(now.UnixNano())
	tablet.sync(f.cert(), &jami.DeviceSync{Date: date,
		Devices: map[jami.LongID]jami.SyncDevice{tablet.chain.DeviceID: {Name: "Tablet", Short: tablet.chain.DeviceShort}},
		Peers: map[jami.ID]jami.Contact{bob: {Added: now.Unix(), Confirmed: true, ConversationID: "c0ffee"},
			carol: {Added: now.Unix() - 100, Removed: now.Unix() + 5, Banned: true}},
		Requests: map[jami.ID]jami.PendingRequest{dora: {Received: now.Unix() - 5}}})
	if e := <-f.events; e.ID != dora.String() || e.Received != now.Unix()-5 || e.Name != "" {
		t.Errorf("%+v", e)
	}
	if c := f.contact(bob); !c.Active || !c.Confirmed || c.Conversation != "c0ffee" {
		t.Errorf("%+v", c)
	}
	if c := f.contact(carol); !c.Banned {
		t.Errorf("%+v", c)
	}
	eventually(t, "the name is known", func() bool {
		d, _ := f.host().device(tablet.chain.DeviceShort)
		return d.Name == "Tablet"
	})
	eventually(t, "told on", func() bool {
		s := tablet.gotSync()
		return s.Peers[bob].Active() && s.Devices[tablet.chain.DeviceID].Name == "Tablet"
	})
	// It refuses; the same request that comes late is answered.
	for i, requests := range []map[jami.ID]jami.PendingRequest{nil, {dora: {Received: now.Unix() - 5}}} {
		taken := f.counted(verdictTaken)
		tablet.sync(f.cert(), &jami.DeviceSync{Date: date + uint64(i) + 1, Peers: map[jami.ID]jami.Contact{dora: {Removed: now.Unix()}}, Requests: requests})
		eventually(t, "taken", func() bool { return f.counted(verdictTaken) > taken })
		if len(f.requests()) != 0 {
			t.Errorf("%d: %+v", i, f.requests())
		}
	}
}

func TestSyncThatIsNotTaken(t *testing.T) {
	f := newField(t, func(s *Service) { s.leaseEvery = 50 * time.Millisecond })
	tablet, phone, lost := f.ownDevice(0), f.ownDevice(1), f.ownDevice(2)
	f.known(tablet)
	f.known(phone)
	f.known(lost)
	lost.revoke()
	eventually(t, "the revocation is known", func() bool {
		d, _ := f.host().device(lost.chain.DeviceShort)
		return d.Revoked
	})
	stranger := newPeer(t, f.over, pool()[3], pool()[4])
	stranger.publish()
	now := time.Now()
	say := func(p *peer, date time.Time, who string, c jami.Contact) *jami.Value {
		return p.sync(f.cert(), &jami.DeviceSync{Date: uint64(date.UnixNano()), Peers: map[jami.ID]jami.Contact{jami.HashKey(who): c}})
	}
	good := jami.Contact{Added: now.Unix()}
	wait := func(v verdict, fn func()) {
		t.Helper()
		before := f.counted(v)
		fn()
		eventually(t, string(v), func() bool { return f.counted(v) > before })
	}
	wait(verdictTaken, func() { say(tablet, now, "good", good) })
	for name, c := range map[string]struct {
		want verdict
		put  func()
	}{
		"of the same date":           {verdictDropped, func() { say(tablet, now, "same", good) }},
		"older":                      {verdictDropped, func() { say(tablet, now.Add(-time.Hour), "older", good) }},
		"of next week":               {verdictDropped, func() { say(tablet, now.Add(7*24*time.Hour), "future", good) }},
		"of a revoked device":        {verdictJunk, func() { say(lost, now, "lost", good) }},
		"of a stranger":              {verdictLater, func() { say(stranger, now, "stranger", good) }},
		"junk":                       {verdictJunk, func() { tablet.put(f.cert(), tablet.sealed(f.cert(), jami.TypeData, []byte("junk"))) }},
		"a request of an own device": {verdictJunk, func() { tablet.request(f.cert(), jami.TrustRequest{}) }},
		"by this device's key":       {verdictJunk, func() { me := *tablet; me.key = testKeys().Device; say(&me, now, "me", good) }},
	} {
		t.Run(name, func(t *testing.T) { wait(c.want, c.put) })
	}
	// The future one is not what later ones are compared with, and each device has a
	// date of its own.
	wait(verdictTaken, func() { say(tablet, now.Add(time.Second), "later", good) })
	wait(verdictTaken, func() { say(phone, time.Unix(0, 12345), "other ticks", good) })
	wait(verdictTaken, func() {
		tablet.sync(f.cert(), &jami.DeviceSync{Date: uint64(now.Add(2 * time.Second).UnixNano()), Peers: map[jami.ID]jami.Contact{
			jami.HashKey("next year"): {Added: now.Unix() + 365*24*3600}, jami.HashKey("removed next year"): {Added: 1, Removed: now.Unix() + 365*24*3600},
			f.host().acc.Chain.JamiID: good, {}: good, jami.HashKey("beside them"): good}})
	})
	got := f.host().acc.Contacts()
	for _, who := range []string{"good", "later", "other ticks", "beside them"} {
		if !got[jami.HashKey(who)].Active() {
			t.Errorf("%s is missing", who)
		}
		delete(got, jami.HashKey(who))
	}
	if len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if len(lost.gotSync().Peers) != 0 {
		t.Error("a revoked device was told")
	}
}

// What does not fit is not sent in part; it is counted, and told with the next change.
func TestSyncThatIsTooLarge(t *testing.T) {
	f := newField(t)
	tablet := f.ownDevice(0)
	f.known(tablet)
	many := map[jami.ID]jami.Contact{}
	for i := range 1000 {
		many[jami.HashKey(strconv.Itoa(i))] = jami.Contact{Added: 1, ConversationID: "0123456789abcdef0123456789abcdef01234567"}
	}
	if _, _, err := f.host().acc.MergeContacts(many, time.Now()); err != nil {
		t.Fatal(err)
	}
	before := tablet.gotSync().Date
	f.host().inbox.sync.changed()
	eventually(t, "it is counted", func() bool { return f.metric("parley_identity_sync_too_large_total") == 1 })
	if s := tablet.gotSync(); s.Date != before || len(s.Peers) != 0 {
		t.Errorf("%d contacts were sent", len(s.Peers))
	}
}

// The overlay is away: what changed is told when it is back.
func TestSyncIsTriedAgain(t *testing.T) {
	f := newField(t)
	tablet := f.ownDevice(0)
	f.known(tablet)
	f.over.refuse.Store(true)
	bob := jami.HashKey("bob")
	failed := f.metric("parley_identity_sent_total", resultError)
	f.set(bob.String(), "block")
	eventually(t, "it fails", func() bool { return f.metric("parley_identity_sent_total", resultError) > failed })
	f.over.refuse.Store(false)
	eventually(t, "told", func() bool { return tablet.gotSync().Peers[bob].Blocked() })
}

// The contacts of a managed account are its server's to hand on.
func TestAManagedAccountTellsNoDevice(t *testing.T) {
	f := &field{t: t, srv: bustest.Start(t), events: make(chan *contract.ContactRequest, 16)}
	f.cli = f.srv.Conn("cli")
	dir, err := f.srv.Env("identity").Dir()
	if err != nil {
		t.Fatal(err)
	}
	k := testKeys()
	made := newPeer(t, nil, k.Account, k.Device)
	receipt, err := jami.NewReceipt(k.Account, k.Device.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	server := account.Managed{Server: "https://accounts.invalid", User: "alice"}
	if _, err := (&account.Store{Root: dir}).Enrol(server, k.Device, made.chain.PEM(), receipt, newSettings, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	tablet := f.ownDevice(0)
	tablet.publish()
	eventually(t, "the other device is known", func() bool { _, known := f.host().device(tablet.chain.DeviceShort); return known })
	y := f.host().inbox.sync
	y.changed()
	if err := y.tell(t.Context()); err != nil || tablet.gotSync() != nil {
		t.Errorf("%v, %+v", err, tablet.gotSync())
	}
}
