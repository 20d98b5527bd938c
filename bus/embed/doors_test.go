package embed_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

// service is conference with the commands get and kick; it counts the kicks.
func service(t *testing.T, c *bus.Conn) *atomic.Int64 {
	t.Helper()
	svc, err := bus.NewService(c, "conference", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	var kicks atomic.Int64
	err = errors.Join(
		bus.Serve(svc, contract.RoomGet, func(context.Context, *bus.Request[contract.None]) (*contract.Joined, error) {
			return &contract.Joined{}, nil
		}),
		bus.Serve(svc, contract.RoomKick, func(context.Context, *bus.Request[contract.Target]) (*contract.None, error) {
			kicks.Add(1)
			return &contract.None{}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	return &kicks
}

func subject(d *contract.Def, room, caller string) string {
	return d.Subject(bustest.Account, room, caller)
}

// ask waits for a reply that shows that what was sent before has been handled.
func ask(t *testing.T, c *bus.Conn) {
	t.Helper()
	if _, err := bus.Call(t.Context(), c, contract.RoomGet, &contract.None{}, room, "p1"); err != nil {
		t.Fatal(err)
	}
}

func TestReplySubjectIsNoWayToAnotherCommand(t *testing.T) {
	s := bustest.Start(t)
	kicks := service(t, s.Conn("conference"))
	cli := s.Conn("cli")
	bot := s.Bot(echo, room)
	kick := subject(contract.RoomKick.Def, another, "p1")
	admin := adminConn(t, s)
	spy, err := admin.SubscribeSync(kick)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	media := s.Raw("media")
	get := subject(contract.RoomGet.Def, room, echo)
	if err := bot.PublishRequest(get, kick, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	// cli may ask room.get: its answer must not go where cli could not, or
	// would not, write itself.
	if err := cli.NATS().PublishRequest(subject(contract.RoomGet.Def, room, "p1"), kick, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	// What JetStream stored, sent by it to a command: an envelope without an inbox.
	if err := media.Publish("$KV.leases.media.m1", []byte(`{"participant":"p2"}`)); err != nil {
		t.Fatal(err)
	}
	if err := media.PublishRequest("$JS.API.STREAM.MSG.GET.KV_leases", kick, []byte(`{"last_by_subj":"$KV.leases.media.m1"}`)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bot.Flush(), cli.NATS().Flush(), media.Flush()); err != nil {
		t.Fatal(err)
	}
	m, err := spy.NextMsg(5 * time.Second) // JetStream's answer, the only one that the server carries
	if err != nil {
		t.Fatal(err)
	}
	var target contract.Target
	if err := json.Unmarshal(m.Data, &target); err != nil || target.Participant != "" {
		t.Fatalf("stored bytes came through as a command: %s", m.Data)
	}
	ask(t, cli)
	if n := kicks.Load(); n != 0 {
		t.Fatalf("%d commands ran by way of a reply subject", n)
	}
	if m, err := spy.NextMsg(10 * time.Millisecond); err == nil {
		t.Fatalf("an answer went to %s: %s", m.Subject, m.Data)
	}
}

func TestAServiceAnswersOnlyOnceAndOnlyWhenAsked(t *testing.T) {
	s := bustest.Start(t)
	admin := adminConn(t, s)
	conf := s.Raw("conference")
	requests, err := conf.SubscribeSync(subject(contract.RoomGet.Def, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conf.Flush(); err != nil {
		t.Fatal(err)
	}
	answers, err := admin.SubscribeSync("_INBOX_connect.mine")
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.PublishRequest(subject(contract.RoomGet.Def, room, "p1"), "_INBOX_connect.mine", nil); err != nil {
		t.Fatal(err)
	}
	m, err := requests.NextMsg(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"first", "second"} {
		if err := conf.Publish(m.Reply, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conf.Publish("_INBOX_connect.other", []byte("forged")); err != nil {
		t.Fatal(err)
	}
	if err := conf.Flush(); err != nil {
		t.Fatal(err)
	}
	if m, err = answers.NextMsg(5 * time.Second); err != nil || string(m.Data) != "first" {
		t.Fatalf("the answer: %v, %v", m, err)
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := answers.Pending(); err != nil || n != 0 {
		t.Fatalf("%d more answers, %v", n, err)
	}
}

func TestARollUpClearsNothing(t *testing.T) {
	s := bustest.Start(t)
	ctx := t.Context()
	kv := s.Conn("conference").KV(contract.BucketLeases)
	if _, err := kv.Put(ctx, "conference.main", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("$KV.leases.media.m1")
	m.Header.Set("Nats-Rollup", "all")
	r, err := s.Raw("media").RequestMsg(m, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var a struct{ Error *struct{ Code int } }
	if err := json.Unmarshal(r.Data, &a); err != nil || a.Error == nil {
		t.Fatalf("a roll-up was taken: %s, %v", r.Data, err)
	}
	if _, _, err := kv.Get(ctx, "conference.main"); err != nil {
		t.Fatalf("the lease of another is gone: %v", err)
	}
}

func TestABotSeesNoRepliesToAnother(t *testing.T) {
	s := bustest.Start(t)
	service(t, s.Conn("conference"))
	one, two := s.Bot("one", room), s.Bot("two", room)
	peep, err := two.SubscribeSync("_INBOX.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Request(subject(contract.RoomGet.Def, room, "one"), []byte("{}"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := two.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := peep.Pending(); err != nil || n != 0 {
		t.Fatalf("%d replies of another bot seen, %v", n, err)
	}
}
