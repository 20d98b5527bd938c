package embed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/embed"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
)

// atBoth runs a test at the servers of the bus itself and at those of another operator.
func atBoth(t *testing.T, test func(*testing.T, *bustest.Server)) {
	t.Run("own", func(t *testing.T) { test(t, bustest.Start(t)) })
	t.Run("another's", func(t *testing.T) {
		test(t, bustest.StartAt(t, bustest.StartStock(t, 1), func(*config.Config) {}))
	})
}

// awaited waits for ok.
func awaited(t *testing.T, what string, ok func() bool) {
	t.Helper()
	until(t, what, func(context.Context) error {
		if !ok() {
			return errors.New("not so yet")
		}
		return nil
	})
}

// Who is connected is told of processes and bots, and not of workers.
func TestAnothersServersTellWhoIsConnected(t *testing.T) {
	s := bustest.StartAt(t, bustest.StartStock(t, 1), func(*config.Config) {})
	got := make(chan string, 64)
	conf := s.Conn("conference")
	sub, err := bus.Subscribe(conf, contract.BusConnected, func(_ context.Context, _ []string, e *contract.Connected) { got <- strings.Join(e.Names, " ") })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	if _, err := dial(t, s.URL(), s.Worker("hall2"), nats.Name("media-hall2")); err != nil {
		t.Fatal(err)
	}
	bot := s.Bot(echo, room, contract.RightListen)
	wait := func(ok func(string) bool) {
		t.Helper()
		for limit := time.After(30 * time.Second); ; {
			select {
			case names := <-got:
				if ok(names) {
					return
				}
			case <-limit:
				t.Fatal("never told")
			}
		}
	}
	wait(func(n string) bool {
		return strings.Contains(n, "conference") && strings.Contains(n, echo) && !strings.Contains(n, "hall2")
	})
	bot.Close()
	wait(func(n string) bool { return strings.Contains(n, "conference") && !strings.Contains(n, echo) })
}

// A tenant of the same servers gets nothing of what NODE exports for its bots.
func TestAnotherTenantReachesNothing(t *testing.T) {
	at := bustest.StartStock(t, 1)
	s := bustest.StartAt(t, at, func(*config.Config) {})
	kicks := service(t, s.Conn("conference"))
	node := nodeKey(t, s)
	kick, event := subject(contract.RoomKick.Def, room, echo), contract.RoomEvents.Subject(bustest.Account, room, "joined")
	for name, token := range map[string]func(string) string{
		"without a token": func(string) string { return "" },
		"signed by itself": func(me string) string {
			kp, err := nkeys.CreateAccount()
			if err != nil {
				t.Fatal(err)
			}
			act := jwt.NewActivationClaims(me)
			act.ImportSubject, act.ImportType, act.IssuerAccount = jwt.Subject(kick), jwt.Service, node
			tok, err := act.Encode(kp)
			if err != nil {
				t.Fatal(err)
			}
			return tok
		},
	} {
		creds := at.Account(func(ac *jwt.AccountClaims) {
			ac.Imports.Add(&jwt.Import{Name: "k", Subject: jwt.Subject(kick), Account: node, Type: jwt.Service, Token: token(ac.Subject)})
			ac.Imports.Add(&jwt.Import{Name: "e", Subject: jwt.Subject(event), Account: node, Type: jwt.Stream})
		})
		nc, err := dial(t, s.URL(), creds)
		if err != nil {
			t.Fatal(err)
		}
		events, err := nc.SubscribeSync(event)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Request(kick, []byte(`{"id":"x"}`), time.Second); err == nil {
			t.Errorf("%s: a tenant kicks", name)
		}
		if err := s.Admin().NATS().Publish(event, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		// A bot has it: then the tenant would, too.
		bot := s.Bot("ear-"+strings.ReplaceAll(name, " ", "-"), room, contract.RightListen)
		heard, err := bot.SubscribeSync(event)
		if err != nil || bot.Flush() != nil {
			t.Fatal(err)
		}
		if err := s.Admin().NATS().Publish(event, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if _, err := heard.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		if n, _, err := events.Pending(); err != nil || n != 0 {
			t.Errorf("%s: a tenant hears %d events (%v)", name, n, err)
		}
	}
	if kicks.Load() != 0 {
		t.Error("kicked")
	}
}

func nodeKey(t *testing.T, s *bustest.Server) string {
	t.Helper()
	uc := jwt.NewUserClaims("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")
	is, err := jwt.DecodeUserClaims(s.SignNode(uc))
	if err != nil {
		t.Fatal(err)
	}
	return is.Issuer
}

// What the operator allows the node's account stays, and so does who is out, through starts of either side.
func TestAccountsAreKeptInOrder(t *testing.T) {
	at := bustest.StartStock(t, 1)
	s := bustest.StartAt(t, at, func(*config.Config) {})
	hall2 := s.Worker("hall2")
	if _, err := bus.Call(t.Context(), s.Conn("cli"), contract.BusRevokeWorker, &contract.WorkerName{Name: "hall2"}); err != nil {
		t.Fatal(err)
	}
	sys, err := dial(t, s.URL(), at.System(func(*jwt.UserClaims) {}))
	if err != nil {
		t.Fatal(err)
	}
	node := nodeKey(t, s)
	look := func() *jwt.AccountClaims {
		t.Helper()
		m, err := sys.Request("$SYS.REQ.ACCOUNT."+node+".CLAIMS.LOOKUP", nil, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ac, err := jwt.DecodeAccountClaims(string(m.Data))
		if err != nil {
			t.Fatal(err)
		}
		return ac
	}
	was := look()
	at.Put(func(ac *jwt.AccountClaims) { ac.Limits.Conn = 77 }, was)
	kept := s.Conn("media").NATS()
	s.Restart()
	if now := look(); now.Limits.Conn != 77 || len(now.Revocations) != len(was.Revocations) || len(now.SigningKeys) != len(was.SigningKeys) {
		t.Errorf("%+v", now.Limits)
	}
	before := look().ID
	s.Restart()
	if look().ID != before {
		t.Error("accounts are put again that are in order")
	}
	if kept.Reconnects != 0 {
		t.Errorf("who was connected was cut off %d times", kept.Reconnects)
	}
	// Another tool puts an older state back: the worker is out all the same.
	at.Put(func(ac *jwt.AccountClaims) { ac.Revocations, ac.SigningKeys = nil, jwt.SigningKeys{} }, look())
	awaited(t, "revoked again", func() bool {
		return len(look().Revocations) == len(was.Revocations) && len(look().SigningKeys) == len(was.SigningKeys)
	})
	if _, err := dial(t, s.URL(), hall2); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a revoked worker is let in: %v", err)
	}
}

// A bot is shut out of servers that were away when it was revoked, whether or not the bus was started again.
func TestRevokedWhileServersAreAway(t *testing.T) {
	at := bustest.StartStock(t, 1)
	s := bustest.StartAt(t, at, func(*config.Config) {})
	g, kp := s.Grant(echo, room)
	path := filepath.Join(s.Config().Data, "bus", "accounts", echo+".json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	leaving := strings.Replace(string(raw), `"version": 1,`, `"version": 1, "leaving": true,`, 1)
	if err := os.WriteFile(path, []byte(leaving), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	awaited(t, "shut out", func() bool { _, err := os.Stat(path); return errors.Is(err, os.ErrNotExist) })
	if nc, err := nats.Connect(s.URL(), bustest.BotAuth(g, kp)); err == nil {
		nc.Close()
		t.Error("a revoked bot is let in")
	}
}

func TestClusterOfAnotherOperator(t *testing.T) {
	at := bustest.StartStock(t, 3)
	s := bustest.StartAt(t, at, func(c *config.Config) { c.Bus.Replicas = 3 })
	js, err := jetstream.New(s.Admin().NATS())
	if err != nil {
		t.Fatal(err)
	}
	awaited(t, "three replicas", func() bool {
		for _, name := range []string{contract.StreamRoomEvents, "KV_" + contract.BucketRooms, "KV_" + contract.BucketLeases} {
			st, err := js.Stream(t.Context(), name)
			if err != nil || st.CachedInfo().Config.Replicas != 3 || st.CachedInfo().Config.Storage != jetstream.FileStorage {
				return false
			}
		}
		return true
	})
	service(t, s.Conn("conference"))
	cli := s.Conn("cli")
	worker, stays := s.Worker("hall2"), s.Worker("hall1")
	g, kp := s.Grant(echo, room, contract.Rights...)
	closed := make(chan string, 6)
	for i, url := range at.URLs {
		gone := func(what string) nats.Option {
			return nats.ClosedHandler(func(*nats.Conn) { closed <- fmt.Sprint(what, i) })
		}
		if _, err := dial(t, url, worker, nats.NoReconnect(), gone("worker")); err != nil {
			t.Fatal(err)
		}
		bot, err := nats.Connect(url, bustest.BotAuth(g, kp), nats.NoReconnect(), gone("bot"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(bot.Close)
		if _, err := bot.Request(subject(contract.RoomGet.Def, room, echo), []byte("{}"), 10*time.Second); err != nil {
			t.Errorf("a bot at server %d: %v", i, err)
		}
	}
	_, werr := bus.Call(t.Context(), cli, contract.BusRevokeWorker, &contract.WorkerName{Name: "hall2"})
	_, berr := bus.Call(t.Context(), s.Conn("identity"), contract.BusRevokeBot, &contract.BotName{Name: echo})
	if werr != nil || berr != nil {
		t.Fatal(werr, berr)
	}
	for range 6 {
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("a revoked one is still connected")
		}
	}
	// One that was away meanwhile has it when it is back.
	at.Kill(2)
	other := s.Worker("hall3")
	if _, err := bus.Call(t.Context(), cli, contract.BusRevokeWorker, &contract.WorkerName{Name: "hall3"}); err != nil {
		t.Fatal(err)
	}
	at.Run(2)
	awaited(t, "the third server has the accounts", func() bool {
		_, err := dial(t, at.URLs[2], stays)
		_, gone := dial(t, at.URLs[2], other, nats.NoReconnect())
		return err == nil && errors.Is(gone, nats.ErrAuthorization)
	})
	for i, url := range at.URLs {
		if _, err := dial(t, url, worker); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("server %d lets a revoked worker in: %v", i, err)
		}
	}
}

func TestRefusedOperators(t *testing.T) {
	at := bustest.StartStock(t, 1)
	stranger, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	open := func(path string) string {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name   string
		change func(*config.Bus)
		want   []string
	}{
		{"a key of another operator", func(b *config.Bus) { b.OperatorKey = at.OperatorKey(stranger) }, []string{"bus.operator_key", "does not trust", "signing key"}},
		{"a key of an account", func(b *config.Bus) {
			b.OperatorKey = file("SAANDLKMXL6CUS3CP52WIXBEDN6YJ545GDKC65U5JZPPV6WH6ESWUA6YAI")
		}, []string{"bus.operator_key", "SO"}},
		{"a damaged key", func(b *config.Bus) { b.OperatorKey = file("SOAAAA") }, []string{"bus.operator_key"}},
		{"no key", func(b *config.Bus) { b.OperatorKey = filepath.Join(t.TempDir(), "none") }, []string{"bus.operator_key", "no such file"}},
		{"a key that others read", func(b *config.Bus) { b.OperatorKey = open(at.OperatorKey(stranger)) }, []string{"chmod 600"}},
		{"credentials that others read", func(b *config.Bus) { b.SystemCreds = open(at.System(func(*jwt.UserClaims) {})) }, []string{"bus.system_creds", "chmod 600"}},
		{"no credentials", func(b *config.Bus) { b.SystemCreds = file("x") }, []string{"bus.system_creds", "credentials"}},
		{"a user of another account", func(b *config.Bus) { b.SystemCreds = at.Account(func(*jwt.AccountClaims) {}) }, []string{"bus.system_creds", "system_account"}},
		{"a user whom nobody knows", func(b *config.Bus) { b.SystemCreds = at.User(user, func(*jwt.UserClaims) {}) }, []string{"bus.system_creds", "refuse"}},
		{"a user who may not tell of accounts", func(b *config.Bus) {
			b.SystemCreds = at.System(func(uc *jwt.UserClaims) { uc.Pub.Allow.Add(embed.SystemRights.Publish[1:]...) })
		}, []string{"lacks rights", "$SYS.REQ.CLAIMS.UPDATE"}},
		{"a user who may ask nothing", func(b *config.Bus) {
			b.SystemCreds = at.System(func(uc *jwt.UserClaims) { uc.Pub.Allow.Add("nothing") })
		}, []string{"lacks rights", "$SYS.REQ.SERVER.PING"}},
		{"a user who hears no answers", func(b *config.Bus) {
			b.SystemCreds = at.System(func(uc *jwt.UserClaims) { uc.Sub.Allow.Add("nothing") })
		}, []string{"lacks rights", "_INBOX_parley.>"}},
		{"a server that keeps no accounts", func(b *config.Bus) {
			other := bustest.StartStock(t, 1)
			other.Configure(0, func(conf string) string {
				from, to, _ := strings.Cut(conf, "resolver {")
				_, to, _ = strings.Cut(to, "}")
				return from + "resolver: MEMORY" + to
			})
			b.URL, b.OperatorKey, b.SystemCreds = other.URLs[0], other.Key, other.SystemCreds
		}, []string{"resolver { type: full"}},
		{"a server in no operator mode", func(b *config.Bus) { b.URL = bustest.StartPlain(t) }, []string{"no operator mode", "resolver"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &config.Config{Data: t.TempDir(), Bus: config.Bus{URL: at.URLs[0], OperatorKey: at.Key, SystemCreds: at.SystemCreds}}
			c.change(&cfg.Bus)
			b, err := embed.New(&host.Env{Name: "bus", Version: "test", Config: cfg, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			b.(*embed.Bus).Started = func(string) { cancel() }
			err = b.Run(ctx)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("it started, or never ended: %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}
