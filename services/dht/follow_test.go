package dht

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// book is an account's contacts, in identity's place.
type book struct {
	t    *testing.T
	conn *bus.Conn

	mu       sync.Mutex
	contacts []contract.Contact
	revision uint64
	mute     bool // changes are not told
}

// contactsOf answers in identity's place for an account with contacts.
func contactsOf(t *testing.T, srv *bustest.Server, who person) *book {
	t.Helper()
	b := &book{t: t, conn: srv.Conn("identity"), revision: 100}
	b.conn.SetAccount(who.id.String())
	svc, err := bus.NewService(b.conn, "identity", "0.0.0-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			return &contract.IdentityState{State: "ready", Account: contract.Account{ID: who.id.String()}, Accounts: []contract.Account{{ID: who.id.String()}}}, nil
		}),
		bus.Serve(svc, contract.IdentityCerts, func(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
			return &contract.Certificates{Announcement: who.announce, DevicePEM: string(jami.MarshalChain(who.certs[0])),
				AccountPEM: string(jami.MarshalChain(who.certs[1:]...))}, nil
		}),
		bus.Serve(svc, contract.ContactList, b.list))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// list answers with pages of two, so that there are some.
func (b *book) list(_ context.Context, r *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &contract.Contacts{Total: len(b.contacts), Revision: b.revision, Contacts: []contract.Contact{}}
	for _, c := range b.contacts {
		switch {
		case c.ID <= r.Body.After, r.Body.Banned && !c.Banned:
		case len(out.Contacts) == 2:
			out.Next = out.Contacts[1].ID
			return out, nil
		default:
			out.Contacts = append(out.Contacts, c)
		}
	}
	return out, nil
}

func (b *book) set(c contract.Contact) {
	b.t.Helper()
	b.mu.Lock()
	b.contacts = slices.DeleteFunc(b.contacts, func(x contract.Contact) bool { return x.ID == c.ID })
	b.contacts = append(b.contacts, c)
	slices.SortFunc(b.contacts, func(x, y contract.Contact) int { return strings.Compare(x.ID, y.ID) })
	b.revision++
	e := &contract.ContactChanged{Contact: c, Revision: b.revision}
	mute := b.mute
	b.mu.Unlock()
	if mute {
		return
	}
	if err := bus.Publish(context.Background(), b.conn, contract.ContactEvents, e); err != nil {
		b.t.Fatal(err)
	}
}

// watcher is a bot that follows presence as the contract says.
type watcher struct {
	t      *testing.T
	conn   *bus.Conn
	events chan *contract.PresenceChanged
}

func watch(t *testing.T, c *bus.Conn) *watcher {
	t.Helper()
	w := &watcher{t, c, make(chan *contract.PresenceChanged, 256)}
	sub, err := bus.Subscribe(c, contract.PresenceEvents, func(_ context.Context, p []string, e *contract.PresenceChanged) {
		if p[1] != e.ID {
			t.Errorf("%s on the subject of %s", e.ID, p[1])
		}
		w.events <- e
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	return w
}

// is waits until the list says so of a contact; known false: it is not in it.
func (w *watcher) is(id string, known, online bool) {
	w.t.Helper()
	wait(w.t, "presence of "+id, func() (bool, any) {
		l, err := bus.Call(w.t.Context(), w.conn, contract.PresenceList, &contract.None{})
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(l.Contacts, func(p contract.Presence) bool { return p.ID == id })
		return (i >= 0) == known && (i < 0 || l.Contacts[i].Online == online), l
	})
}

// next is the next event of a contact.
func (w *watcher) next(id string) *contract.PresenceChanged {
	w.t.Helper()
	var e *contract.PresenceChanged
	wait(w.t, "an event of "+id, func() (bool, any) {
		select {
		case e = <-w.events:
			return e.ID == id, e
		default:
			return false, nil
		}
	})
	return e
}

func TestContactsAreFollowed(t *testing.T) {
	for _, overlay := range []string{"libp2p", "opendht", "both"} {
		t.Run(overlay, func(t *testing.T) { contactsAreFollowed(t, overlay) })
	}
}

func contactsAreFollowed(t *testing.T, overlay string) {
	a, b := people()[0], people()[1]
	srvA, srvB := bustest.Start(t), bustest.Start(t)
	mine := contactsOf(t, srvA, a)
	theirs := contactsOf(t, srvB, b)
	ca, _, _ := nodeOn(t, srvA, a, overlay)
	w := watch(t, ca)
	bootstrap := describe(t, ca).Addresses
	for _, id := range []string{strings.Repeat("1", 40), strings.Repeat("2", 40), strings.Repeat("3", 40)} {
		mine.set(contract.Contact{ID: id, Active: true, Added: 1})
	}
	mine.set(contract.Contact{ID: b.id.String(), Active: true, Added: 2})
	cb, _, stopB := nodeOn(t, srvB, b, overlay, bootstrap...)
	wait(t, "peers", func() (bool, any) { n := describe(t, cb); return n.Peers > 0, n })
	put(t, cb, certificate(t, b.short, b.certs...))
	w.is(b.id.String(), true, true)
	w.is(strings.Repeat("1", 40), true, false)
	e := w.next(b.id.String())
	if !e.Online {
		e = w.next(b.id.String())
	}
	if !e.Online || e.Since == 0 {
		t.Errorf("%+v", e)
	}

	// B follows nobody but who is its contact, and hears of A, who was there before.
	wb := watch(t, cb)
	wb.is(a.id.String(), false, false)
	put(t, ca, certificate(t, a.short, a.certs...))
	theirs.set(contract.Contact{ID: a.id.String(), Active: true, Added: 1})
	wb.is(a.id.String(), true, true)
	theirs.set(contract.Contact{ID: a.id.String(), Banned: true, Removed: 2})
	wb.is(a.id.String(), false, false)

	// A change that was missed is read with the next.
	mine.mute = true
	mine.set(contract.Contact{ID: strings.Repeat("4", 40), Active: true, Added: 3})
	mine.mute = false
	mine.set(contract.Contact{ID: strings.Repeat("1", 40), Removed: 3, Added: 1})
	w.is(strings.Repeat("4", 40), true, false)
	w.is(strings.Repeat("1", 40), false, false)

	if overlay == "libp2p" { // where an announcement can be taken back; in the other one it expires
		stopB()
		w.is(b.id.String(), true, false)
		if e := w.next(b.id.String()); e.Online {
			t.Errorf("%+v", e)
		}
	}
}

// There may be more contacts than are followed: those who confirmed come first, then who was
// added last, and the list says so.
func TestMoreContactsThanAreFollowed(t *testing.T) {
	srv := bustest.Start(t)
	a := people()[0]
	mine := contactsOf(t, srv, a)
	for i := range maxFollowed + 10 {
		id := jami.HashKey(string(rune(i)))
		mine.contacts = append(mine.contacts, contract.Contact{ID: id.String(), Active: true, Added: int64(i), Confirmed: i == 0})
	}
	slices.SortFunc(mine.contacts, func(x, y contract.Contact) int { return strings.Compare(x.ID, y.ID) })
	c, _, _ := nodeOn(t, srv, a, "opendht")
	wait(t, "the list", func() (bool, any) {
		l, err := bus.Call(t.Context(), c, contract.PresenceList, &contract.None{})
		return err == nil && l.Followed == maxFollowed && l.Active == maxFollowed+10, l
	})
}

func TestWhoIsFollowedFirst(t *testing.T) {
	r := &roster{active: map[jami.ID]contract.Contact{}}
	id := func(n byte) jami.ID { return jami.ID{n} }
	r.active[id(1)] = contract.Contact{Active: true, Added: 10}
	r.active[id(2)] = contract.Contact{Active: true, Added: 30}
	r.active[id(3)] = contract.Contact{Active: true, Added: 20}
	r.active[id(4)] = contract.Contact{Active: true, Added: 1, Confirmed: true}
	if got := r.first(3); !slices.Equal(got, []jami.ID{id(4), id(2), id(3)}) {
		t.Errorf("%v", got)
	}
}
