package gate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// Accounts come and go; each bans for itself, and what one revoked all refuse.
func TestSet(t *testing.T) {
	a := theAccount()
	srv := bustest.Start(t)
	one, two := bustest.Account, strings.Repeat("ab", 20)
	conn := srv.Conn("identity")
	svc, err := bus.NewService(conn.For(bus.Any), "identity", "0.0.0", "for a test")
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	var mu sync.Mutex
	accounts := []string{one, two}
	state := func() *contract.IdentityState {
		mu.Lock()
		defer mu.Unlock()
		st := &contract.IdentityState{State: "ready", Account: contract.Account{ID: one}}
		for _, id := range accounts {
			st.Accounts = append(st.Accounts, contract.Account{ID: id})
		}
		return st
	}
	set := func(ids ...string) {
		t.Helper()
		mu.Lock()
		accounts = ids
		mu.Unlock()
		if err := bus.Publish(t.Context(), conn, contract.IdentityReady, state()); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(
		bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			return state(), nil
		}),
		bus.Serve(svc, contract.IdentityCerts, func(_ context.Context, r *bus.Request[contract.None]) (*contract.Certificates, error) {
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(accounts, r.Param(0)) {
				return nil, contract.ErrNotFound
			}
			return &contract.Certificates{AccountPEM: string(jami.MarshalChain(a.cert, a.ca))}, nil
		}),
		bus.Serve(svc, contract.ContactList, func(_ context.Context, r *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
			p := &contract.Contacts{Revision: 100}
			if r.Param(0) == two {
				p.Contacts = []contract.Contact{{ID: strings.Repeat("1", 40), Banned: true}}
			}
			return p, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenAll(t.Context(), srv.Conn("connect"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	of := func(account string) *Keeper {
		t.Helper()
		k, err := s.Of(account)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	x, err := jami.ParseID(strings.Repeat("1", 40))
	if err != nil {
		t.Fatal(err)
	}
	if err1, err2 := of(one).AllowedIDs(x), of(two).AllowedIDs(x); err1 != nil || !is(err2, Banned) {
		t.Errorf("%v, %v", err1, err2)
	}
	unknown := strings.Repeat("cd", 20)
	if _, err := s.Of(unknown); !errors.Is(err, contract.ErrUnavailable) {
		t.Errorf("an account that is not known: %v", err)
	}

	dev := a.device(t)
	ended := make(chan error, 2)
	if _, err := of(one).Watch(dev, func(err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	list := &contract.RevocationList{AccountPEM: string(jami.MarshalChain(a.cert)), CRL: a.crl(t, 1, dev.Device)}
	if err := bus.Publish(t.Context(), conn.For(two), contract.AccountRevoked, list); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !is(err, trust.Revoked) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("what the second account revoked is nothing to the first")
	}

	set(one, unknown)
	eventually(t, "the new account", func() bool { _, err := s.Of(unknown); return err == nil })
	eventually(t, "the old one is gone", func() bool { _, err := s.Of(two); return err != nil })
	for _, id := range []string{one, unknown} {
		if err := of(id).Allowed(dev); !is(err, trust.Revoked) {
			t.Errorf("%s: %v", id, err)
		}
	}
}
