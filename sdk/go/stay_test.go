package parley_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// out puts the bot out.
func (r *room) out(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := contract.RoomEvent{Seq: uint64(len(r.events) + 1), Type: contract.EventLeft, Room: "main", Participant: &contract.Participant{ID: "echo"}, Reason: reason}
	r.events = append(r.events, e)
	if err := bus.Publish(context.Background(), r.conf, contract.RoomEvents, &e, "main", string(e.Type)); err != nil {
		r.t.Error(err)
	}
}

// A bot comes back for what passes, and for nothing else.
func TestStay(t *testing.T) {
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		stays []func(r *room, ctx context.Context) error
		want  error
	}{
		"a part of the node is away": {[]func(*room, context.Context) error{
			func(*room, context.Context) error { return nats.ErrNoResponders },
			func(*room, context.Context) error { return contract.ErrUnavailable },
			func(*room, context.Context) error { return nil },
		}, nil},
		"the node has put it out, and a command says so first": {[]func(*room, context.Context) error{
			func(r *room, _ context.Context) error {
				go r.out(contract.ReasonShutdown)
				return contract.ErrNotFound
			},
			func(*room, context.Context) error { return mine },
		}, mine},
		"the node has put it out, and it hears nothing else": {[]func(*room, context.Context) error{
			func(r *room, ctx context.Context) error {
				r.out(contract.ReasonLost)
				<-ctx.Done()
				return ctx.Err()
			},
			func(*room, context.Context) error { return nil },
		}, nil},
		"a moderator has put it out": {[]func(*room, context.Context) error{
			func(r *room, ctx context.Context) error {
				r.out(contract.ReasonKicked)
				<-ctx.Done()
				return ctx.Err()
			},
		}, contract.ErrGone},
		"something else is not there": {[]func(*room, context.Context) error{
			func(*room, context.Context) error { return contract.ErrNotFound },
		}, contract.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, bot, _ := start(t)
			n := 0
			err := bot.Stay(t.Context(), "Echo", func(ctx context.Context, j *contract.Joined) error {
				n++
				if j.Participant.ID != "echo" || n > len(c.stays) {
					t.Fatalf("stay %d: %+v", n, j)
				}
				return c.stays[n-1](r, ctx)
			})
			r.mu.Lock()
			defer r.mu.Unlock()
			if !errors.Is(err, c.want) || n != len(c.stays) || r.joins != n {
				t.Errorf("%v after %d stays and %d joins", err, n, r.joins)
			}
		})
	}
}
