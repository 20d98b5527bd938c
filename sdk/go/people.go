package parley

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
)

// peopleAhead is how many messages and changes of presence wait for a slow bot; what is beyond is lost.
const peopleAhead = 1024

// Write writes to all devices of an account, by its Jami Id, with the right "messages". It
// returns when the message waits to be sent.
func (r *Room) Write(ctx context.Context, to, body string) (*contract.MessageQueued, error) {
	return Call(ctx, r, contract.MessageSendCmd, contract.MessageSend{To: to, Body: body})
}

// Messages calls fn with each message that people write to the account, until ctx ends, with
// the right "messages". What came before is not told.
func (r *Room) Messages(ctx context.Context, fn func(contract.Message)) error {
	came, stop, err := follow(r, contract.MessageEvents)
	if err != nil {
		return err
	}
	defer stop()
	for {
		m, err := take(ctx, came, contract.MessageEvents)
		if err != nil {
			return err
		}
		fn(*m)
	}
}

// Presence calls fn with each of the account's contacts of whom it is known whether they are online, then with
// each who comes or goes, until ctx ends, with the right "presence". What was missed is
// told with all others anew.
func (r *Room) Presence(ctx context.Context, fn func(contract.Presence)) error {
	changes, stop, err := follow(r, contract.PresenceEvents)
	if err != nil {
		return err
	}
	defer stop()
	var revision uint64
	all := func() error {
		l, err := Call(ctx, r, contract.PresenceList, contract.None{})
		if err != nil {
			return err
		}
		revision = l.Revision
		for _, p := range l.Contacts {
			fn(p)
		}
		return nil
	}
	if err := all(); err != nil {
		return err
	}
	for {
		e, err := take(ctx, changes, contract.PresenceEvents)
		switch {
		case err != nil:
			return err
		case e.Revision <= revision: // the list had it
		case e.Revision == revision+1:
			revision = e.Revision
			fn(e.Presence)
		default:
			if err := all(); err != nil {
				return err
			}
			revision = max(revision, e.Revision)
		}
	}
}

// follow subscribes an event of the account.
func follow[E any](r *Room, ev contract.Event[E]) (came chan *nats.Msg, stop func(), err error) {
	came = make(chan *nats.Msg, peopleAhead)
	sub, err := r.nc.ChanSubscribe(ev.For(r.Account, r.Name, r.Me), came)
	if err == nil {
		err = r.nc.Flush()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", ev.Name, err)
	}
	return came, func() { _ = sub.Unsubscribe() }, nil // fails only with the connection closed
}

func take[E any](ctx context.Context, came chan *nats.Msg, ev contract.Event[E]) (*E, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case m := <-came:
		e := new(E)
		if err := json.Unmarshal(m.Data, e); err != nil {
			return nil, fmt.Errorf("%s: %w", ev.Name, err)
		}
		return e, nil
	}
}
