package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/services/identity/account"
)

// freshKeys are others each time, but for the authority and the device.
func freshKeys(context.Context) (*account.Keys, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return &account.Keys{CA: testKeys().CA, Account: k, Device: testKeys().Device}, nil
}

func accountIDs(st *contract.IdentityState) (ids []string) {
	for _, a := range st.Accounts {
		ids = append(ids, a.ID)
	}
	return ids
}

func TestSeveralAccountsOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	env := start(t, srv, freshKeys)
	cli := srv.Conn("cli")
	main := waitState(t, cli, stateReady).Account
	cli.SetAccount(main.ID)

	second, err := bus.Call(t.Context(), cli, contract.AccountCreateCmd, &contract.AccountCreate{Alias: "Zweites"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Call(t.Context(), cli, contract.AccountCreateCmd, &contract.AccountCreate{Alias: " "}); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("without a name: %v", err)
	}
	file, err := os.ReadFile(filepath.Join("..", "..", "internal", "jami", "testdata", "archive_plain.gz"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // a device key of full size
	defer cancel()
	add := func(x contract.Secret) (*contract.Account, error) {
		return bus.Call(ctx, cli, contract.AccountImport, sealed(t, cli, contract.AccountImport.Name, x))
	}
	third, err := add(contract.Secret{Archive: file})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		secret contract.Secret
		want   error
	}{
		"again":    {contract.Secret{Archive: file}, contract.ErrExists},
		"nothing":  {contract.Secret{}, contract.ErrBadRequest},
		"half":     {contract.Secret{Archive: file[:len(file)/2]}, contract.ErrBadRequest},
		"no key":   {contract.Secret{Archive: []byte("{}")}, contract.ErrBadRequest},
		"password": {contract.Secret{Archive: make([]byte, 100), Password: []byte("x")}, contract.ErrForbidden},
	} {
		if _, err := add(x.secret); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	want := []string{main.ID, second.ID, third.ID}
	if st := waitState(t, cli, stateReady); !slices.Equal(accountIDs(st), want) || st.Account != main {
		t.Errorf("accounts %+v, want %v", st.Accounts, want)
	}

	// Each is asked by its own name.
	for _, acc := range []*contract.Account{second, third} {
		c := cli.For(acc.ID)
		alias := "Name of " + acc.ID[:4]
		if got, err := bus.Call(t.Context(), c, contract.AccountSet, &contract.AccountChange{Alias: &alias}); err != nil || got.ID != acc.ID || got.Alias != alias {
			t.Errorf("%+v, %v", got, err)
		}
		l, err := bus.Call(t.Context(), c, contract.DeviceList, &contract.None{})
		if err != nil || l.Devices[0].ID != acc.DeviceID {
			t.Errorf("devices %+v, %v", l, err)
		}
		if _, err := bus.Call(t.Context(), c, contract.BotListCmd, &contract.None{}); !errors.Is(err, contract.ErrNotFound) {
			t.Errorf("bots of another account than the main one: %v", err)
		}
	}
	if got, err := bus.Call(t.Context(), cli, contract.DeviceList, &contract.None{}); err != nil || got.Devices[0].ID != main.DeviceID {
		t.Errorf("the main account's devices %+v, %v", got, err)
	}
	nobody := cli.For("0123456789012345678901234567890123456789")
	if _, err := bus.Call(t.Context(), nobody, contract.DeviceList, &contract.None{}); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("an account that is not there: %v", err)
	}

	if _, err := bus.Call(t.Context(), cli, contract.AccountRetire, &contract.None{}); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("the main account retired: %v", err)
	}
	gone, err := bus.Call(t.Context(), cli.For(second.ID), contract.AccountRetire, &contract.None{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(gone.Dir, "archive.gz")); err != nil {
		t.Error(err)
	}
	if _, err := bus.Call(t.Context(), cli.For(second.ID), contract.DeviceList, &contract.None{}); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("a retired account answers: %v", err)
	}
	if st := waitState(t, cli, stateReady); !slices.Equal(accountIDs(st), []string{main.ID, third.ID}) {
		t.Errorf("left are %v", accountIDs(st))
	}
	a, err := (&account.Store{Root: filepath.Join(env.Config.Data, "identity")}).Load()
	if err != nil || a.Chain.JamiID.String() != main.ID {
		t.Errorf("on the disk the main one is %v, %v", a, err)
	}
}

// A node that makes no account by itself waits for one; keys that come too late for one
// command are there for the next.
func TestWaitingForAnAccount(t *testing.T) {
	srv := bustest.Start(t)
	release, asked := make(chan struct{}), new(atomic.Int32)
	keys := func(ctx context.Context) (*account.Keys, error) {
		asked.Add(1)
		select {
		case <-release:
			return testKeys(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	env := start(t, srv, keys, func(s *Service) { s.env.Config.Identity.Create = false })
	cli := srv.Conn("cli")
	if st := waitState(t, cli, stateWaiting); st.Message == "" || env.Ready() || len(st.Accounts) > 0 {
		t.Errorf("%+v, ready %v", st, env.Ready())
	}
	keyed := bus.WithKey(t.Context(), "one command line") // so that asking again makes no second one
	ctx, cancel := context.WithTimeout(keyed, 200*time.Millisecond)
	defer cancel()
	q := &contract.AccountCreate{Alias: "Erstes"}
	if _, err := bus.Call(ctx, cli, contract.AccountCreateCmd, q); !errors.Is(err, contract.ErrTimeout) && !errors.Is(err, contract.ErrUnavailable) {
		t.Errorf("before the keys are there: %v", err)
	}
	close(release)
	acc, err := bus.Call(keyed, cli, contract.AccountCreateCmd, q)
	for errors.Is(err, contract.ErrTimeout) && t.Context().Err() == nil { // it met the first one, whose time was over
		acc, err = bus.Call(keyed, cli, contract.AccountCreateCmd, q)
	}
	if err != nil {
		t.Fatal(err)
	}
	if st := waitState(t, cli, stateReady); st.Account != *acc || !env.Ready() || asked.Load() != 1 {
		t.Errorf("%+v, ready %v, keys made %d times", st, env.Ready(), asked.Load())
	}
	cli.SetAccount(acc.ID)
	if _, err := bus.Call(t.Context(), cli, contract.BotListCmd, &contract.None{}); err != nil {
		t.Errorf("bots: %v", err)
	}
}

// What an account server refuses has the code that a client of the node acts on.
func TestManagerError(t *testing.T) {
	for from, want := range map[error]*contract.Error{
		jams.ErrBadCredentials: contract.ErrForbidden, jams.ErrForbidden: contract.ErrForbidden, jams.ErrRevoked: contract.ErrForbidden,
		jams.ErrLimited: contract.ErrSlowDown, jams.ErrUnavailable: contract.ErrUnavailable, jams.ErrInvalidReply: contract.ErrBadRequest,
		jams.ErrRefused: contract.ErrBadRequest, jams.ErrNotFound: contract.ErrBadRequest,
	} {
		if got := managerError(from); !errors.Is(got, want) {
			t.Errorf("%v: %v, want %v", from, got, want)
		}
	}
}
