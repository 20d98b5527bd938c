package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
	"github.com/parley-jami/parley/services/identity/bots"
)

const patience = 30 * time.Second

// start runs the service against a bus of the test and returns its environment.
func start(t testing.TB, srv *bustest.Server, keys func(context.Context) (*account.Keys, error), set ...func(*Service)) *host.Env {
	t.Helper()
	env := srv.Env("identity")
	r, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	r.(*Service).keys, r.(*Service).pause = keys, 20*time.Millisecond
	for _, fn := range set {
		fn(r.(*Service))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("identity ended with %v", err)
		}
	})
	return env
}

func readyKeys(context.Context) (*account.Keys, error) { return testKeys(), nil }

// waitState asks until the state is the wanted one.
func waitState(t testing.TB, c *bus.Conn, want string) *contract.IdentityState {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		st, err := bus.Call(ctx, c, contract.IdentityGet, &contract.None{})
		if err == nil && st.State == want {
			return st
		}
		select {
		case <-ctx.Done():
			t.Fatalf("state %+v, %v; want %q", st, err, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestFirstStartTellsAndThenIsReady(t *testing.T) {
	srv := bustest.Start(t)
	release := make(chan struct{})
	env := start(t, srv, func(ctx context.Context) (*account.Keys, error) {
		select {
		case <-release:
			return testKeys(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	c := srv.Conn("connect")
	changed := make(chan *contract.IdentityState, 16)
	sub, err := bus.Subscribe(c, contract.IdentityReady, func(_ context.Context, _ []string, st *contract.IdentityState) { changed <- st })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	if st := waitState(t, c, stateCreating); st.Message == "" || env.Ready() {
		t.Errorf("while creating: %+v, ready %v", st, env.Ready())
	}
	close(release)
	for st := range changed {
		if st.State == stateReady {
			break
		}
	}
	st := waitState(t, c, stateReady)
	if len(st.Account.ID) != 40 || len(st.Account.DeviceID) != 64 || st.Account.Alias != "Parley" || !st.Account.Rendezvous {
		t.Errorf("account %+v", st.Account)
	}
}

func TestCommandsOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	start(t, srv, readyKeys)
	cli, dht, swarm := srv.Conn("cli"), srv.Conn("dht"), srv.Conn("swarm")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	dht.SetAccount(acc.ID)
	swarm.SetAccount(acc.ID)

	certs, err := bus.Call(t.Context(), swarm, contract.IdentityCerts, &contract.None{})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := new(trust.Rules).Parse([]byte(certs.DevicePEM + certs.AccountPEM))
	if err != nil || chain.JamiID.String() != acc.ID {
		t.Errorf("chain of %v, %v", chain, err)
	}
	v, err := jami.ParseValue(certs.Announcement)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jami.VerifyAnnouncement(v, chain.JamiID); err != nil {
		t.Errorf("announcement: %v", err)
	}

	off, alias := false, "Küche"
	got, err := bus.Call(t.Context(), cli, contract.AccountSet, &contract.AccountChange{Alias: &alias, Rendezvous: &off})
	if err != nil || got.Alias != alias || got.Rendezvous {
		t.Errorf("after the change: %+v, %v", got, err)
	}
	if st := waitState(t, cli, stateReady); st.Account != *got {
		t.Errorf("state shows %+v, the change answered %+v", st.Account, *got)
	}
	for _, bad := range []string{"", "  ", "a\x00b", strings.Repeat("x", 129)} {
		if _, err := bus.Call(t.Context(), cli, contract.AccountSet, &contract.AccountChange{Alias: &bad}); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("alias %q: %v", bad, err)
		}
	}

	q := &contract.SignRequest{Key: contract.KeyDevice, Hash: "SHA-512", Scheme: "pkcs1", Digest: make([]byte, 64)}
	if _, err := bus.Call(t.Context(), swarm, contract.IdentitySign, q, "swarm"); err != nil {
		t.Errorf("swarm signs: %v", err)
	}
	for caller, c := range map[string]*bus.Conn{"swarm": dht, "dht": dht, "": swarm} { // the server refuses
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if _, err := bus.Call(ctx, c, contract.IdentitySign, q, cmp.Or(caller, "dht")); !errors.Is(err, contract.ErrForbidden) {
			t.Errorf("signed in the name of %q: %v", caller, err)
		}
		cancel()
	}
}

func TestBotsOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	cli.SetAccount(waitState(t, cli, stateReady).Account.ID)
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	user, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	q := &contract.BotCreate{Name: "echo", Room: "main", Rights: []contract.Right{contract.RightListen}, UserKey: user}
	cred, err := bus.Call(t.Context(), cli, contract.BotCreateCmd, q)
	if err != nil {
		t.Fatal(err)
	}
	if cred.JWT == "" || cred.InboxPrefix != "_INBOX" || len(cred.Subscribe) == 0 {
		t.Errorf("credentials %+v", cred)
	}
	nc := srv.BotConn("echo", &contract.BusGranted{JWT: cred.JWT}, kp)
	if _, err := bus.Call(t.Context(), cli, contract.BotCreateCmd, q); !errors.Is(err, contract.ErrExists) {
		t.Errorf("second bot of that name: %v", err)
	}
	if _, err := bus.Call(t.Context(), cli, contract.BotRevoke, &contract.BotName{Name: "nobody"}); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("revoking nobody: %v", err)
	}
	for range 2 {
		b, err := bus.Call(t.Context(), cli, contract.BotRevoke, &contract.BotName{Name: "echo"})
		if err != nil || b.Revoked == nil {
			t.Fatalf("revoke: %+v, %v", b, err)
		}
	}
	deadline := time.Now().Add(patience)
	for nc.IsConnected() && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	if nc.IsConnected() {
		t.Error("a revoked bot is still connected")
	}
	list, err := bus.Call(t.Context(), cli, contract.BotListCmd, &contract.None{})
	if err != nil || len(list.Bots) != 1 || list.Bots[0].Revoked == nil {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestDamagedAccountStaysUpAndSaysSo(t *testing.T) {
	srv := bustest.Start(t)
	root := filepath.Join(srv.Config().Data, "identity")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	acc, err := (&account.Store{Root: root}).Create(testKeys(), newSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(acc.Dir, "archive.gz")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	env := start(t, srv, func(context.Context) (*account.Keys, error) {
		t.Error("made new keys beside a damaged account")
		return testKeys(), nil
	})
	st := waitState(t, srv.Conn("cli"), stateDamaged)
	if !strings.Contains(st.Message, path) || env.Ready() {
		t.Errorf("message %q, ready %v", st.Message, env.Ready())
	}
}

func TestDamagedBotsLeaveTheAccountWorking(t *testing.T) {
	srv := bustest.Start(t)
	root := filepath.Join(srv.Config().Data, "identity")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bots.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	cli.SetAccount(waitState(t, cli, stateReady).Account.ID)
	if _, err := bus.Call(t.Context(), cli, contract.BotListCmd, &contract.None{}); !errors.Is(err, contract.ErrStateDamaged) {
		t.Errorf("got %v, want state_damaged", err)
	}
}

func waitClosed(t *testing.T, what string, nc *nats.Conn) {
	t.Helper()
	for deadline := time.Now().Add(patience); nc.IsConnected(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s is still connected", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// TestABotThatNobodyKnowsIsShutOut: what a killed process let in goes at the next
// start; and who is in no list, because it was lost, can be revoked.
func TestABotThatNobodyKnowsIsShutOut(t *testing.T) {
	srv := bustest.Start(t)
	root := filepath.Join(srv.Config().Data, "identity")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := bots.Open(filepath.Join(root, "bots.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Begin(bots.Bot{Name: "half", Room: "main", Rights: []string{"listen"}, UserKey: "U"}); err != nil {
		t.Fatal(err)
	}
	half := srv.Bot("half", "main", contract.RightListen)
	lost := srv.Bot("lost", "main", contract.RightListen)
	start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	cli.SetAccount(waitState(t, cli, stateReady).Account.ID)
	waitClosed(t, "a bot whose creation was cut off", half)
	if !lost.IsConnected() {
		t.Fatal("a bot that is in no list was shut out unasked")
	}
	if l, err := bus.Call(t.Context(), cli, contract.BotListCmd, &contract.None{}); err != nil || len(l.Bots) != 0 {
		t.Errorf("list %+v, %v", l, err)
	}
	if _, err := bus.Call(t.Context(), cli, contract.BotRevoke, &contract.BotName{Name: "lost"}); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("revoking a bot that is in no list: %v", err)
	}
	waitClosed(t, "a revoked bot that is in no list", lost)
}

// TestTheDiskRefusesForAWhile: it is told, and tried again by itself.
func TestTheDiskRefusesForAWhile(t *testing.T) {
	srv := bustest.Start(t)
	root := filepath.Join(srv.Config().Data, "identity")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	acc, err := (&account.Store{Root: root}).Create(testKeys(), newSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(acc.Dir, "archive.gz")
	for _, path := range []string{archive, filepath.Join(root, "bots.json")} {
		if err := os.Rename(path, path+".kept"); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Base(path), path); err != nil { // any errno
			t.Fatal(err)
		}
	}
	env := start(t, srv, func(context.Context) (*account.Keys, error) {
		t.Error("made new keys beside an account that cannot be read")
		return testKeys(), nil
	})
	c := srv.Conn("cli")
	if st := waitState(t, c, stateRetrying); !strings.Contains(st.Message, archive) || env.Ready() {
		t.Errorf("message %q, ready %v", st.Message, env.Ready())
	}
	if err := os.Rename(archive+".kept", archive); err != nil {
		t.Fatal(err)
	}
	for st := waitState(t, c, stateRetrying); !strings.Contains(st.Message, "bots.json"); st = waitState(t, c, stateRetrying) {
		<-time.After(5 * time.Millisecond)
	}
	if err := os.Remove(filepath.Join(root, "bots.json")); err != nil {
		t.Fatal(err)
	}
	if st := waitState(t, c, stateReady); st.Account.ID != acc.Chain.JamiID.String() {
		t.Errorf("account %+v", st.Account)
	}
}

func TestAFullDiskWhenTheAccountIsMade(t *testing.T) {
	srv := bustest.Start(t)
	root := filepath.Join(srv.Config().Data, "identity")
	made := 0
	start(t, srv, func(context.Context) (*account.Keys, error) {
		made++
		// Nothing can be made below a file, whoever asks.
		if err := os.Remove(root); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(root, nil, 0o600); err != nil {
			t.Error(err)
		}
		return testKeys(), nil
	})
	c := srv.Conn("cli")
	waitState(t, c, stateRetrying)
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	waitState(t, c, stateReady)
	if made != 1 {
		t.Errorf("keys were made %d times", made)
	}
}

// TestChangesAreToldInTheirOrder: who listens ends with what is so.
func TestChangesAreToldInTheirOrder(t *testing.T) {
	srv := bustest.Start(t)
	start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	cli.SetAccount(waitState(t, cli, stateReady).Account.ID)
	var mu sync.Mutex
	last := ""
	sub, err := bus.Subscribe(srv.Conn("connect"), contract.IdentityReady, func(_ context.Context, _ []string, st *contract.IdentityState) {
		mu.Lock()
		last = st.Account.Alias
		mu.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	var wg sync.WaitGroup
	for i := range 50 {
		alias := fmt.Sprint("a", i)
		wg.Go(func() {
			if _, err := bus.Call(t.Context(), cli, contract.AccountSet, &contract.AccountChange{Alias: &alias}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	now := waitState(t, cli, stateReady).Account.Alias
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		mu.Lock()
		told := last
		mu.Unlock()
		if told == now {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("told last of %q, it is %q", told, now)
		}
	}
}
