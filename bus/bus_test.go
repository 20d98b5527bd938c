package bus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

type listHandler = func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error)

// serveList answers room.list on a connection as conference.
func serveList(t *testing.T, s *bustest.Server, fn listHandler) *bus.Conn {
	t.Helper()
	c := s.Conn("conference")
	svc, err := bus.NewService(c, "conference", "9b79dfc-dirty", "a build without a tag")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	if err := bus.Serve(svc, contract.RoomListCmd, fn); err != nil {
		t.Fatal(err)
	}
	if err := c.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	return c
}

func list(ctx context.Context, c *bus.Conn) error {
	_, err := bus.Call(ctx, c, contract.RoomListCmd, &contract.RoomQuery{})
	return err
}

func TestErrorsOfACall(t *testing.T) {
	s := bustest.Start(t)
	var answer atomic.Value
	cli, swarm := s.Conn("cli"), s.Conn("swarm")
	if err := list(t.Context(), cli); !errors.Is(err, contract.ErrUnavailable) {
		t.Errorf("nobody serves it: %v", err)
	}
	serveList(t, s, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		return nil, answer.Load().(error)
	})
	answer.Store(error(contract.ErrLocked.With("shut")))
	var e *contract.Error
	if err := list(t.Context(), cli); !errors.As(err, &e) || *e != *contract.ErrLocked.With("shut") {
		t.Errorf("the service's own error: %v", err)
	}
	if err := list(t.Context(), swarm); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("who may not: %v", err)
	}
	cli.SetAccount("")
	if err := list(t.Context(), cli); !errors.Is(err, contract.ErrUnavailable) {
		t.Errorf("without an account: %v", err)
	}
}

func TestACallInFlightEndsWithTheConnection(t *testing.T) {
	s := bustest.Start(t)
	asked := make(chan struct{})
	serveList(t, s, func(ctx context.Context, _ *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		close(asked)
		<-ctx.Done()
		return nil, contract.ErrUnavailable
	})
	cli := s.Conn("cli")
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { done <- list(ctx, cli) }()
	<-asked
	s.Stop()
	select {
	case err := <-done:
		if !errors.Is(err, contract.ErrUnavailable) {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still waits for an answer that cannot come")
	}
}

func TestWhatIsSentWhileTheBusIsAwayArrives(t *testing.T) {
	s := bustest.Start(t)
	conf := serveList(t, s, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		return &contract.RoomList{}, nil
	})
	cli := s.Conn("connect")
	got := make(chan string, 1)
	sub, err := bus.Subscribe(cli, contract.RoomEvents, func(_ context.Context, p []string, e *contract.RoomEvent) { got <- p[1] })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	back := make(chan struct{}, 2)
	for _, c := range []*bus.Conn{cli, conf} {
		c.OnReconnect(func() { back <- struct{}{} })
	}
	s.Stop()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for cli.Connected() || conf.Connected() {
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatal("still connected")
		}
	}
	called := make(chan error, 1)
	go func() { called <- list(t.Context(), cli) }()
	s.Restart()
	<-back
	<-back
	if err := <-called; err != nil && !errors.Is(err, contract.ErrUnavailable) { // conference may come back a moment later
		t.Fatal(err)
	}
	// The server answers this when it has read what conference serves.
	if err := conf.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := list(t.Context(), cli); err != nil {
		t.Fatal(err)
	}
	if err := bus.Publish(context.Background(), conf, contract.RoomEvents, &contract.RoomEvent{Type: contract.EventJoined}, "main", "joined"); err != nil {
		t.Fatal(err)
	}
	if room := <-got; room != "main" {
		t.Fatal(room)
	}
}

func TestKV(t *testing.T) {
	s := bustest.Start(t)
	ctx := t.Context()
	kv := s.Conn("conference").KV(contract.BucketRooms)
	if _, _, err := kv.Get(ctx, "a"); !errors.Is(err, contract.ErrNotFound) {
		t.Fatal(err)
	}
	one, err := kv.Update(ctx, "a", []byte("1"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Update(ctx, "a", []byte("2"), 0, 0); !errors.Is(err, contract.ErrStale) {
		t.Fatalf("an update of a stale revision: %v", err)
	}
	two, err := kv.Update(ctx, "a", []byte("2"), one, 0)
	if err != nil || two <= one {
		t.Fatal(two, err)
	}
	if v, rev, err := kv.Get(ctx, "a"); err != nil || string(v) != "2" || rev != two {
		t.Fatal(string(v), rev, err)
	}
	if keys, err := kv.Keys(ctx); err != nil || len(keys) != 1 || keys[0] != "a" {
		t.Fatal(keys, err)
	}
	if err := kv.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	_, rev, err := kv.Get(ctx, "a")
	if !errors.Is(err, contract.ErrNotFound) || rev <= two {
		t.Fatal(rev, err)
	}
	if _, err := kv.Update(ctx, "a", []byte("3"), rev, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Conn("media").KV(contract.BucketRooms).Put(ctx, "a", nil); !errors.Is(err, contract.ErrForbidden) {
		t.Fatalf("another process writes it: %v", err)
	}
}
