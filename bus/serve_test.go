package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

func serve[Q, A any](t *testing.T, s *bustest.Server, cmd contract.Command[Q, A], fn func(context.Context, *bus.Request[Q]) (*A, error)) {
	t.Helper()
	c := s.Conn(cmd.Service)
	svc, err := bus.NewService(c, cmd.Service, "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	if err := bus.Serve(svc, cmd, fn); err != nil {
		t.Fatal(err)
	}
	if err := c.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestAKeyGivesOneEffect(t *testing.T) {
	s := bustest.Start(t)
	var made, listed atomic.Int32
	serve(t, s, contract.RoomCreateCmd, func(context.Context, *bus.Request[contract.RoomCreate]) (*contract.Room, error) {
		made.Add(1)
		return &contract.Room{}, nil
	})
	serve(t, s, contract.RoomListCmd, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		listed.Add(1)
		return &contract.RoomList{}, nil
	})
	cli := s.Conn("cli")
	ctx := bus.WithKey(t.Context(), "k1")
	for range 3 {
		if _, err := bus.Call(ctx, cli, contract.RoomCreateCmd, &contract.RoomCreate{}); err != nil {
			t.Fatal(err)
		}
		if err := list(ctx, cli); err != nil {
			t.Fatal(err)
		}
	}
	if made.Load() != 1 {
		t.Errorf("%d effects", made.Load())
	}
	if listed.Load() != 3 {
		t.Errorf("a question asked 3 times was answered from memory: %d", listed.Load())
	}
	long := bus.WithKey(t.Context(), strings.Repeat("k", 129))
	if _, err := bus.Call(long, cli, contract.RoomCreateCmd, &contract.RoomCreate{}); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("a key of 129 bytes: %v", err)
	}
}

func TestAnAnswerThatIsTooLargeIsAnError(t *testing.T) {
	s := bustest.Start(t)
	serve(t, s, contract.RoomListCmd, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		return &contract.RoomList{Rooms: []contract.Room{{RoomSettings: contract.RoomSettings{Title: strings.Repeat("<", 200_000)}}}}, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := list(ctx, s.Conn("cli")); !errors.Is(err, contract.ErrInternal) {
		t.Fatal(err)
	}
}

// TestAHandlerKnowsHowLongItsCallerWaits: what nobody waits for need not be done.
func TestAHandlerKnowsHowLongItsCallerWaits(t *testing.T) {
	s := bustest.Start(t)
	left := make(chan time.Duration, 1)
	serve(t, s, contract.RoomListCmd, func(ctx context.Context, _ *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		at, _ := ctx.Deadline()
		left <- time.Until(at)
		return &contract.RoomList{}, nil
	})
	cli := s.Conn("cli")
	for _, d := range []time.Duration{time.Second, 20 * time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		err := list(ctx, cli)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if got := <-left; got > d || got < d-time.Second {
			t.Errorf("the caller waits %v, the handler has %v", d, got)
		}
	}
	if _, err := cli.NATS().Request(contract.RoomListCmd.Subject(bustest.Account), nil, 10*time.Second); err != nil { // as any NATS client
		t.Fatal(err)
	}
	if got := <-left; got > bus.DefaultTimeout || got <= 0 {
		t.Errorf("without the header: %v", got)
	}
}

// TestAHandlerOutOfTime answers what its caller can act on.
func TestAHandlerOutOfTime(t *testing.T) {
	s := bustest.Start(t)
	serve(t, s, contract.RoomListCmd, func(ctx context.Context, _ *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("looking at rooms: %w", ctx.Err())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := list(ctx, s.Conn("cli")); !errors.Is(err, contract.ErrTimeout) {
		t.Fatal(err)
	}
}

// What was received before, and is delivered after, is not begun when Stop has returned.
func TestNothingRunsAfterStop(t *testing.T) {
	s := bustest.Start(t)
	c := s.Conn("conference")
	cli := s.Conn("cli").NATS()
	for range 20 {
		svc, err := bus.NewService(c, "conference", "1.0.0", "test")
		if err != nil {
			t.Fatal(err)
		}
		var stopped atomic.Bool
		var late atomic.Int32
		err = bus.Serve(svc, contract.RoomListCmd, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
			if stopped.Load() {
				late.Add(1)
			}
			return &contract.RoomList{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.NATS().Flush(); err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			if err := cli.PublishRequest(contract.RoomListCmd.Subject(bustest.Account), cli.NewInbox(), []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		if err := cli.Flush(); err != nil {
			t.Fatal(err)
		}
		svc.Stop()
		stopped.Store(true)
		if err := c.NATS().Flush(); err != nil { // what micro still had is delivered meanwhile
			t.Fatal(err)
		}
		if n := late.Load(); n != 0 {
			t.Fatalf("%d commands began after Stop", n)
		}
	}
}
