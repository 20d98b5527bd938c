package swarm

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

// An account that was retired and comes again is another device: what that signs is
// written as its own.
func TestAuthorIsTheDeviceOfNow(t *testing.T) {
	srv := bustest.Start(t)
	ident := srv.Conn("identity")
	svc, err := bus.NewService(ident.For(bus.Any), "identity", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	id, asked := swarmtest.New(t), 0
	err = bus.Serve(svc, contract.IdentityCerts, func(_ context.Context, r *bus.Request[contract.None]) (*contract.Certificates, error) {
		if r.Param(0) != id.URI {
			return nil, contract.ErrNotFound
		}
		asked++
		return &contract.Certificates{DevicePEM: string(id.DevicePEM), AccountPEM: string(id.AccountPEM)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthors(t.Context(), srv.Conn("swarm"))
	account := id.URI
	here := func() []contract.Account { return []contract.Account{{ID: account, DeviceID: id.Device, Alias: "one"}} }
	check := func(what string, asks int) {
		t.Helper()
		who, err := a.of(account)
		if err != nil || who.Device != id.Device || who.Name != "one" || asked != asks {
			t.Fatalf("%s: %v, asked %d times, want %d, or not the device of now", what, err, asked, asks)
		}
	}
	a.rename(here())
	check("at first", 1)
	a.rename(here())
	check("as before", 1)

	a.rename(nil)
	id.NewDevice(t)
	a.rename(here())
	check("back", 2)

	id.NewDevice(t) // identity was away between
	a.rename(here())
	check("another device", 3)

	if _, err := a.of(strings.Repeat("0", 40)); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("an account that is none: %v", err)
	}
}
