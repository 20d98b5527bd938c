package parley

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
)

const (
	stayPause = 200 * time.Millisecond // before the first try to come back, then twice as long each time
	stayMost  = 5 * time.Second        // between two tries
	stayGood  = 30 * time.Second       // a stay so long was none that failed at once
)

// away reports whether err says that the node, or a part of it, does not answer just now.
func away(err error) bool {
	for _, e := range []error{nats.ErrNoResponders, nats.ErrTimeout, context.DeadlineExceeded, contract.ErrUnavailable, contract.ErrTimeout, contract.ErrBusy} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// outError says that the bot was put out of the room.
type outError struct{ reason string }

func (e *outError) Error() string { return "put out of the room: " + e.reason }

// Stay joins, name being what people see, runs fn and leaves when it returns. When the node or a
// part of it was away, or has put the bot out as it restarted, Stay joins again and runs fn again:
// the context of fn ends when the bot is not in the room any more. Other errors of fn end it, a
// refusal to join does, and so does a moderator who puts the bot out ([contract.ErrGone]).
func (r *Room) Stay(ctx context.Context, name string, fn func(ctx context.Context, j *contract.Joined) error) error {
	defer func() { _ = r.Leave() }() // fails where the node is away, and then the bot is out soon
	for pause := stayPause; ; pause = min(2*pause, stayMost) {
		began := time.Now()
		again, err := r.stay(ctx, name, fn)
		if !again {
			return err
		}
		if time.Since(began) > stayGood {
			pause = stayPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stay is one stay in the room; again: it ended for what may pass.
func (r *Room) stay(ctx context.Context, name string, fn func(ctx context.Context, j *contract.Joined) error) (again bool, err error) {
	j, err := r.Join(ctx, name)
	if err != nil {
		return away(err) && ctx.Err() == nil, err
	}
	in, end := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer end(nil)
	watch.Go(func() {
		end(r.Events(in, j.Seq+1, func(e contract.RoomEvent) {
			if e.Type == contract.EventLeft && e.Participant != nil && e.Participant.ID == r.Me {
				end(&outError{e.Reason})
			}
		}))
	})
	if err = fn(in, j); err == nil || ctx.Err() != nil {
		return false, err
	}
	if errors.Is(err, contract.ErrNotFound) || errors.Is(err, contract.ErrGone) { // of the bot's seat, if the event says so
		select {
		case <-in.Done():
		case <-time.After(tryTime):
		}
	}
	cause := context.Cause(in)
	if errors.Is(err, context.Canceled) && cause != nil {
		err = cause
	}
	out, ok := errors.AsType[*outError](cause)
	if ok && out.reason == contract.ReasonKicked {
		return false, contract.ErrGone.With("a moderator has put the bot out of the room")
	}
	return ok || away(err) || away(cause), err
}
