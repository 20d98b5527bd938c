package connect

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/secret"
	"github.com/parley-jami/parley/services/connect/web"
)

// A secret reaches identity sealed, for the account that is meant; what would send one
// open, or something else in its place, is refused.
func TestSecretsAreSealed(t *testing.T) {
	s := bustest.Start(t)
	key, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	device, other := strings.Repeat("cd", 32), strings.Repeat("ef", 20)
	ident := s.Conn("identity")
	svc, err := bus.NewService(ident.For(other), "identity", "v", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
		return &contract.IdentityState{State: "ready", SealKey: key.Public(), Accounts: []contract.Account{{ID: other}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = bus.Serve(svc, contract.DeviceRevoke, func(_ context.Context, r *bus.Request[contract.Sealed]) (*contract.DeviceRevoked, error) {
		text, err := key.Open(contract.DeviceRevoke.Name, r.Body.Cipher)
		if err != nil {
			return nil, contract.ErrBadRequest.With("%v", err)
		}
		x := new(contract.Secret)
		if err := json.Unmarshal(text, x); err != nil {
			return nil, contract.ErrBadRequest.With("%v", err)
		}
		return &contract.DeviceRevoked{Device: contract.Device{ID: x.Device, Revoked: true}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode()
	n.conn.Store(s.Conn("connect"))
	reply, err := n.Do(t.Context(), web.Command{Name: "device.revoke", Account: other, Body: &contract.Secret{Device: device}})
	var done contract.DeviceRevoked
	if err == nil {
		err = json.Unmarshal(reply, &done)
	}
	if err != nil || done.ID != device || !done.Revoked {
		t.Errorf("%s %v", reply, err)
	}
	for _, c := range []web.Command{
		{Name: "device.revoke", Account: other, Body: map[string]string{"device": device}},
		{Name: "contact.set", Account: other, Body: &contract.Secret{Device: device}},
	} {
		if reply, err := n.Do(t.Context(), c); err == nil || !strings.Contains(err.Error(), "sealed") {
			t.Errorf("%+v: %s %v", c, reply, err)
		}
	}
	// An account that is not there is told from an identity that does not answer.
	for account, code := range map[string]string{strings.Repeat("01", 20): "not_found", other: "unavailable"} {
		if reply, err := n.Do(t.Context(), web.Command{Name: "contact.set", Account: account, Body: map[string]string{}}); err == nil || !strings.HasPrefix(err.Error(), code+":") {
			t.Errorf("%s: %s %v", account, reply, err)
		}
	}
}
