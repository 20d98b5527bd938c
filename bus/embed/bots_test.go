package embed_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

func TestSayPassesWithAndWithoutAReply(t *testing.T) {
	s := bustest.Start(t)
	heard := make(chan *nats.Msg, 4)
	media := s.Conn("media").NATS()
	if _, err := media.Subscribe(contract.AudioSay.Subject(), func(m *nats.Msg) {
		if m.Reply != "" {
			if err := m.Respond([]byte(`{"queued_ms":20}`)); err != nil {
				t.Error(err)
			}
		}
		heard <- m
	}); err != nil {
		t.Fatal(err)
	}
	if err := media.Flush(); err != nil {
		t.Fatal(err)
	}
	bot := s.Bot(echo, room, contract.RightSpeak)
	say := contract.AudioSay.Subject(bustest.Account, room, echo)
	frame := nats.NewMsg(say)
	frame.Header.Set(contract.HeaderFormat, contract.FormatPCM48)
	frame.Data = make([]byte, 1920)
	if err := bot.PublishMsg(frame); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-heard:
		if len(m.Data) != 1920 || m.Header.Get(contract.HeaderFormat) != contract.FormatPCM48 || m.Subject != say {
			t.Fatalf("heard %s, %d bytes, %v", m.Subject, len(m.Data), m.Header)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a frame without a reply did not arrive")
	}
	r, err := bot.RequestMsg(frame, 5*time.Second)
	if err != nil || string(r.Data) != `{"queued_ms":20}` {
		t.Fatalf("say asked: %v, %v", r, err)
	}
}

func TestEventsAndAudioReachABotByItsRights(t *testing.T) {
	s := bustest.Start(t)
	g, kp := s.Grant(echo, room, contract.RightListen)
	one, two := s.BotConn("one", g, kp), s.BotConn("two", g, kp) // two replicas
	type sub struct {
		*nats.Subscription
		what string
	}
	var subs []sub
	for _, nc := range []*nats.Conn{one, two} {
		for _, p := range []string{".event.>", ".audio.mix.>", ".audio.from.>"} {
			x, err := nc.SubscribeSync("parley.v1." + bustest.Account + ".room." + room + p)
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, sub{x, p})
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := bus.Publish(context.Background(), s.Conn("conference"), contract.RoomEvents, &contract.RoomEvent{Type: contract.EventJoined}, room, "joined"); err != nil {
		t.Fatal(err)
	}
	media := s.Conn("media").NATS()
	for _, subj := range []string{contract.AudioMix.Subject(bustest.Account, room, "opus"), contract.AudioFrom.Subject(bustest.Account, room, "p1", "opus")} {
		if err := media.Publish(subj, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range subs {
		if _, err := x.NextMsg(5 * time.Second); err != nil {
			t.Errorf("%s: %v", x.what, err)
		}
	}
}

func TestRevokedIsOutAtOnceAndForGood(t *testing.T) { atBoth(t, revokedIsOutAtOnceAndForGood) }

func revokedIsOutAtOnceAndForGood(t *testing.T, s *bustest.Server) {
	g, kp := s.Grant(echo, room, contract.RightListen)
	closed := make(chan struct{})
	nc := s.BotConn(echo, g, kp, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	other := s.Bot("other", room)
	identity := s.Conn("identity")
	for range 2 { // again: harmless
		if _, err := bus.Call(t.Context(), identity, contract.BusRevokeBot, &contract.BotName{Name: echo}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("a revoked bot is still connected")
	}
	nc.Close()
	enter := func() error {
		nc, err := nats.Connect(s.URL(), bustest.BotAuth(g, kp))
		if err == nil {
			nc.Close()
		}
		return err
	}
	if err := enter(); !errors.Is(err, nats.ErrAuthorization) && !errors.Is(err, nats.ErrAuthRevoked) {
		t.Fatalf("a revoked bot came in: %v", err)
	}
	if !other.IsConnected() {
		t.Fatal("another bot was put out with it")
	}
	s.Restart()
	if err := enter(); !errors.Is(err, nats.ErrAuthorization) {
		t.Fatalf("a revoked bot came in after a restart: %v", err)
	}
	// The name is free again; the old credentials stay out.
	s.Bot(echo, room)
	if err := enter(); err == nil {
		t.Fatal("old credentials work for a new bot of that name")
	}
}

func TestBotsOutliveTheBus(t *testing.T) { atBoth(t, botsOutliveTheBus) }

func botsOutliveTheBus(t *testing.T, s *bustest.Server) {
	g, kp := s.Grant(echo, room, contract.RightListen)
	s.Restart()
	service(t, s.Conn("conference"))
	nc := s.BotConn(echo, g, kp)
	if _, err := nc.Request(subject(contract.RoomGet.Def, room, echo), []byte("{}"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestGrantIsCheckedAndRepeatable(t *testing.T) { atBoth(t, grantIsCheckedAndRepeatable) }

func grantIsCheckedAndRepeatable(t *testing.T, s *bustest.Server) {
	identity := s.Conn("identity")
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	good := contract.BusGrant{Account: bustest.Account, Bot: echo, Room: room, Rights: []contract.Right{contract.RightListen}, UserKey: pub}
	with := func(change func(*contract.BusGrant)) contract.BusGrant { g := good; change(&g); return g }
	for name, c := range map[string]struct {
		g    contract.BusGrant
		want *contract.Error
	}{
		"good":             {good, nil},
		"again":            {good, nil},
		"other rights":     {with(func(g *contract.BusGrant) { g.Rights = contract.Rights }), contract.ErrExists},
		"other room":       {with(func(g *contract.BusGrant) { g.Room = another }), contract.ErrExists},
		"wildcard room":    {with(func(g *contract.BusGrant) { g.Room = "*" }), contract.ErrBadRequest},
		"two tokens":       {with(func(g *contract.BusGrant) { g.Room = "main.cmd" }), contract.ErrBadRequest},
		"wildcard bot":     {with(func(g *contract.BusGrant) { g.Bot = ">" }), contract.ErrBadRequest},
		"path":             {with(func(g *contract.BusGrant) { g.Bot = "../x" }), contract.ErrBadRequest},
		"the operator":     {with(func(g *contract.BusGrant) { g.Bot = contract.Operator }), contract.ErrBadRequest},
		"wildcard account": {with(func(g *contract.BusGrant) { g.Account = "*" }), contract.ErrBadRequest},
		"no key":           {with(func(g *contract.BusGrant) { g.UserKey = "U" }), contract.ErrBadRequest},
		"unknown right":    {with(func(g *contract.BusGrant) { g.Rights = []contract.Right{contract.RightAny} }), contract.ErrBadRequest},
	} {
		if name != "good" && name != "again" {
			if _, err := bus.Call(t.Context(), identity, contract.BusGrantBot, &good); err != nil {
				t.Fatal(err)
			}
		}
		_, err := bus.Call(t.Context(), identity, contract.BusGrantBot, &c.g)
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABotThatIsNotWrittenIsNotLetIn(t *testing.T) {
	s := bustest.Start(t)
	dir := filepath.Join(s.Config().Data, "bus", "accounts")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory was: every write fails, as on a full disk
		t.Fatal(err)
	}
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	_, err = bus.Call(t.Context(), s.Conn("identity"), contract.BusGrantBot, &contract.BusGrant{Account: bustest.Account, Bot: echo, Room: room, UserKey: pub})
	if !errors.Is(err, contract.ErrStorage) || !strings.Contains(err.Error(), echo) {
		t.Fatalf("got %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
}
