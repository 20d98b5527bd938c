package gate

import (
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

const patience = 10 * time.Second

// identity answers in the place of the process, two contacts a page.
type identity struct {
	conn *bus.Conn

	mu    sync.Mutex
	crls  [][]byte
	list  []contract.Contact // sorted
	rev   uint64
	asked int
}

func startIdentity(t *testing.T, srv *bustest.Server, a *account) *identity {
	t.Helper()
	i := &identity{conn: srv.Conn("identity"), rev: 100}
	svc, err := bus.NewService(i.conn, "identity", "0.0.0", "for a test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.IdentityCerts, func(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			c := &contract.Certificates{AccountPEM: string(jami.MarshalChain(a.cert, a.ca))}
			if n := len(i.crls); n > 0 {
				c.CRL, c.OlderCRLs = i.crls[n-1], i.crls[:n-1]
			}
			return c, nil
		}),
		bus.Serve(svc, contract.ContactList, func(_ context.Context, r *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.asked++
			p := &contract.Contacts{Revision: i.rev, Total: len(i.list)}
			for _, c := range i.list {
				if c.ID <= r.Body.After {
					continue
				}
				if len(p.Contacts) == 2 {
					p.Next = p.Contacts[1].ID
					break
				}
				p.Contacts = append(p.Contacts, c)
			}
			return p, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *identity) lists(crls [][]byte, list ...contract.Contact) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.crls, i.list = crls, list
	i.rev++
}

func (i *identity) asks() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// A gate knows all before it is open, follows the events, and reads anew what it may have
// missed while the bus was away.
func TestOpenFollows(t *testing.T) {
	a := theAccount()
	srv := bustest.Start(t)
	conn := srv.Conn("connect")
	revoked, old, good := a.device(t), a.device(t), a.device(t)

	// Nobody is let in before identity answers.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, conn); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("open without identity: %v", err)
	}

	id := startIdentity(t, srv, a)
	var banned []contract.Contact
	for _, x := range "12345" {
		banned = append(banned, contract.Contact{ID: string(x) + "000000000000000000000000000000000000000", Banned: x != '3'})
	}
	id.lists([][]byte{a.crl(t, 1, old.Device), a.crl(t, 2, revoked.Device)}, banned...)
	k, err := Open(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for c, want := range map[*trust.Chain]trust.Reason{revoked: trust.Revoked, old: trust.Revoked, good: ""} {
		if err := k.Allowed(c); !is(err, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, c := range banned {
		x, err := jami.ParseID(c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.AllowedIDs(x); (err != nil) != c.Banned {
			t.Errorf("%s: %v", c.ID, err)
		}
	}

	ended := make(chan error, 1)
	if _, err := k.Watch(good, func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	wait := func(what string, want trust.Reason) {
		t.Helper()
		select {
		case err := <-ended:
			if !is(err, want) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(patience):
			t.Fatalf("%s: not called", what)
		}
	}
	id.rev++
	if err := bus.Publish(t.Context(), id.conn, contract.ContactEvents, ban(a.id, true, id.rev)); err != nil {
		t.Fatal(err)
	}
	wait("banned", Banned)
	if n := id.asks(); n != 3 {
		t.Errorf("asked for %d pages, there are three", n)
	}
	id.rev++
	if err := bus.Publish(t.Context(), id.conn, contract.ContactEvents, ban(a.id, false, id.rev)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no longer banned", func() bool { return k.Allowed(good) == nil })
	if _, err := k.Watch(good, func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	list := &contract.RevocationList{AccountPEM: string(jami.MarshalChain(a.cert)), CRL: a.crl(t, 3, good.Device)}
	if err := bus.Publish(t.Context(), id.conn, contract.AccountRevoked, list); err != nil {
		t.Fatal(err)
	}
	wait("revoked", trust.Revoked)

	// Without the bus it knows what it knew; then it learns what was told meanwhile.
	last := a.device(t)
	if _, err := k.Watch(last, func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	if k.Allowed(revoked) == nil || k.Allowed(last) != nil || !is(k.AllowedIDs(jami.ID{0x10}), Banned) {
		t.Error("forgot, or refuses all")
	}
	id.lists([][]byte{a.crl(t, 4, last.Device)}, banned[0])
	srv.Restart()
	wait("revoked while the bus was away", trust.Revoked)
	eventually(t, "the others are no longer banned", func() bool { return k.AllowedIDs(jami.ID{0x20}) == nil })
	if !is(k.AllowedIDs(jami.ID{0x10}), Banned) || !is(k.Allowed(old), trust.Revoked) {
		t.Error("what is revoked and banned still is let in")
	}
}

// Between a subscription and a list nothing is lost, whatever comes first.
func TestNothingFallsBetween(t *testing.T) {
	a := theAccount()
	srv := bustest.Start(t)
	id := startIdentity(t, srv, a)
	conn := srv.Conn("connect")
	var devices []*trust.Chain
	for range 20 {
		devices = append(devices, a.device(t))
	}
	var revoked []*x509.Certificate
	for i, d := range devices {
		done := make(chan struct{})
		revoked = append(revoked, d.Device)
		der := a.crl(t, int64(i+1), revoked...)
		go func() { // as identity does: first on disk, then told
			defer close(done)
			id.lists([][]byte{der}, contract.Contact{ID: d.DeviceShort.String(), Banned: true})
			if err := bus.Publish(context.Background(), id.conn, contract.AccountRevoked,
				&contract.RevocationList{AccountPEM: string(jami.MarshalChain(a.cert)), CRL: der}); err != nil {
				t.Error(err)
			}
		}()
		k, err := Open(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		<-done
		eventually(t, "revoked", func() bool { return is(k.Allowed(d), trust.Revoked) })
		k.Close()
	}
}

// Gates close also while one of them learns of a revocation.
func TestCloseWhileRevoked(t *testing.T) {
	a := theAccount()
	srv := bustest.Start(t)
	id := startIdentity(t, srv, a)
	svc, err := bus.NewService(srv.Conn("identity"), "identity-state", "0.0.0", "for a test")
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	err = bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
		acc := contract.Account{ID: bustest.Account}
		return &contract.IdentityState{State: "ready", Account: acc, Accounts: []contract.Account{acc}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenAll(t.Context(), srv.Conn("connect"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Of(bustest.Account)
	if err != nil {
		t.Fatal(err)
	}
	dev := a.device(t)
	learning, closing := make(chan struct{}), make(chan struct{})
	if _, err := k.Watch(dev, func(error) { close(learning); <-closing }); err != nil {
		t.Fatal(err)
	}
	stop := k.stop
	k.stop = func() { stop(); close(closing) }
	id.lists([][]byte{a.crl(t, 1, dev.Device)})
	k.readAgain()
	<-learning
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the gates do not close")
	}
}
