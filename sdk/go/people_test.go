package parley_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

func TestMessages(t *testing.T) {
	_, bot, s := start(t)
	ident := s.Conn("identity")
	svc, err := bus.NewService(ident, "identity", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	wrote := make(chan contract.MessageSend, 1)
	err = bus.Serve(svc, contract.MessageSendCmd, func(_ context.Context, q *bus.Request[contract.MessageSend]) (*contract.MessageQueued, error) {
		wrote <- q.Body
		return &contract.MessageQueued{ID: "1"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	came, ended := make(chan contract.Message, 1), make(chan error, 1)
	go func() { ended <- bot.Messages(ctx, func(m contract.Message) { came <- m }) }()
	for told := false; !told; { // until it listens
		if err := bus.Publish(ctx, ident, contract.MessageEvents, &contract.Message{From: "alice", Body: "hi"}, "alice"); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-came:
			if told = true; m.From != "alice" || m.Body != "hi" {
				t.Errorf("%+v", m)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
	if q, err := bot.Write(ctx, "alice", "hello"); err != nil || q.ID != "1" {
		t.Errorf("%+v, %v", q, err)
	}
	if m := <-wrote; m.To != "alice" || m.Body != "hello" {
		t.Errorf("%+v", m)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Who comes late gets all first; what was missed is told with all others again.
func TestPresence(t *testing.T) {
	_, bot, s := start(t)
	dht := s.Conn("dht")
	svc, err := bus.NewService(dht, "dht", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	var lists atomic.Int32
	err = bus.Serve(svc, contract.PresenceList, func(context.Context, *bus.Request[contract.None]) (*contract.Presences, error) {
		if lists.Add(1) == 1 {
			return &contract.Presences{Revision: 7, Contacts: []contract.Presence{{ID: "alice"}, {ID: "bob", Online: true}}}, nil
		}
		return &contract.Presences{Revision: 10, Contacts: []contract.Presence{{ID: "alice", Online: true}, {ID: "bob"}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 16)
	go func() {
		err := bot.Presence(t.Context(), func(p contract.Presence) {
			said <- p.ID + map[bool]string{true: " on", false: " off"}[p.Online]
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	hear := func(want ...string) {
		t.Helper()
		var got []string
		for range want {
			select {
			case s := <-said:
				got = append(got, s)
			case <-time.After(10 * time.Second):
				t.Fatalf("heard %v, not %v", got, want)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("heard %v, not %v", got, want)
		}
	}
	hear("alice off", "bob on")
	change := func(id string, online bool, revision uint64) {
		t.Helper()
		e := &contract.PresenceChanged{Presence: contract.Presence{ID: id, Online: online}, Revision: revision}
		if err := bus.Publish(t.Context(), dht, contract.PresenceEvents, e, id); err != nil {
			t.Fatal(err)
		}
	}
	change("bob", true, 7) // the list had it
	change("alice", true, 8)
	hear("alice on")
	change("bob", false, 10)
	hear("alice on", "bob off")
	change("bob", true, 11)
	hear("bob on")
}
