package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

func TestContactsOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	id := strings.Repeat("ab", 20)
	for _, x := range []struct {
		id, change string
		want       error
	}{
		{id, "add", nil}, {id, "block", nil}, {id, "remove", contract.ErrNotFound}, {id, "unblock", nil}, {id, "add", nil},
		{id, "kiss", contract.ErrBadRequest}, {"x", "add", contract.ErrBadRequest}, {acc.ID, "add", contract.ErrBadRequest},
	} {
		c, err := bus.Call(t.Context(), cli, contract.ContactSetCmd, &contract.ContactChange{ID: x.id, Change: x.change})
		if !errors.Is(err, x.want) || err == nil && (c.Active != (x.change == "add") || c.Banned != (x.change == "block")) {
			t.Errorf("%s: %+v, %v", x.change, c, err)
		}
	}
	l, err := bus.Call(t.Context(), cli, contract.ContactList, &contract.None{})
	if err != nil || len(l.Contacts) != 1 || !l.Contacts[0].Active || l.Contacts[0].ID != id {
		t.Errorf("%+v, %v", l, err)
	}
}
