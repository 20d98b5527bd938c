package connect

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

func TestBefore(t *testing.T) {
	for id, want := range map[jami.ID]string{
		{19: 1}:       "0000000000000000000000000000000000000000",
		{18: 1}:       "00000000000000000000000000000000000000ff",
		{0: 1}:        "00ffffffffffffffffffffffffffffffffffffff",
		{0: 8, 19: 8}: "0800000000000000000000000000000000000007",
	} {
		if got := before(id); got != want {
			t.Errorf("before %s is %s, want %s", id, got, want)
		}
	}
}

// TestContactsAlone: who may call an account that takes calls of its contacts alone.
func TestContactsAlone(t *testing.T) {
	srv := bustest.Start(t)
	contacts := []contract.Contact{
		{ID: jami.ID{1}.String(), Active: true},
		{ID: jami.ID{2}.String()}, // removed
		{ID: jami.ID{4}.String(), Active: true},
	}
	svc, err := bus.NewService(srv.Conn("identity"), "identity", "0.0.0-test", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = bus.Serve(svc, contract.ContactList, func(_ context.Context, r *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
		i, _ := slices.BinarySearchFunc(contacts, r.Body.After, func(c contract.Contact, after string) int {
			if c.ID <= after {
				return -1
			}
			return 1
		})
		rest := contacts[i:]
		return &contract.Contacts{Contacts: rest[:min(len(rest), r.Body.Limit)], Total: len(contacts)}, nil
	})
	if err == nil {
		err = srv.Conn("identity").NATS().Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	own := jami.ID{9}
	for id, want := range map[jami.ID]error{{1}: nil, {2}: errStranger, {3}: errStranger, {4}: nil, {5}: errStranger, own: nil} {
		if err := contactOf(t.Context(), srv.Conn("connect"), own, &trust.Chain{JamiID: id}); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
}
