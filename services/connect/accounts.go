package connect

import (
	"context"
	"slices"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/web"
)

// accountOf asks identity for an account of the node.
func accountOf(ctx context.Context, conn *bus.Conn, id string) (*contract.Account, error) {
	st, err := bus.Call(ctx, conn, contract.IdentityGet, &contract.None{})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(st.Accounts, func(a contract.Account) bool { return a.ID == id })
	if i < 0 {
		return nil, contract.ErrNotFound.With("the node has no account %s", id)
	}
	return &st.Accounts[i], nil
}

// followAccounts has the operator's pages follow what identity tells of any account, until
// the returned function is called.
func followAccounts(conn *bus.Conn, page *web.Server) (stop func(), err error) {
	every := conn.For(bus.Any)
	var subs []*bus.Subscription
	stop = func() {
		for _, s := range subs {
			s.Stop()
		}
	}
	for _, follow := range []func() (*bus.Subscription, error){
		func() (*bus.Subscription, error) {
			return bus.Subscribe(every, contract.ContactEvents, func(_ context.Context, p []string, _ *contract.ContactChanged) { page.AccountChanged(p[0]) })
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(every, contract.RequestEvents, func(_ context.Context, p []string, _ *contract.ContactRequest) { page.AccountChanged(p[0]) })
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(every, contract.PresenceEvents, func(_ context.Context, p []string, _ *contract.PresenceChanged) { page.AccountChanged(p[0]) })
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(every, contract.AccountRevoked, func(_ context.Context, p []string, _ *contract.RevocationList) { page.AccountChanged(p[0]) })
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(conn, contract.IdentityReady, func(context.Context, []string, *contract.IdentityState) { page.AccountChanged("") })
		},
	} {
		sub, err := follow()
		if err != nil {
			stop()
			return nil, err
		}
		subs = append(subs, sub)
	}
	conn.OnReconnect(func() { page.AccountChanged("") })
	return stop, nil
}
