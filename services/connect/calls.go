package connect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/sip"
)

const (
	// maxRinging bounds the calls of the node's that are not taken yet.
	maxRinging = 32
	// callTime is more than all of reaching, ringing and being cancelled take.
	callTime     = reachTime + sip.RingTime + 15*time.Second
	progressTime = 2 * time.Second
	// failedTime is how long the operator's page shows why a call came to nothing.
	failedTime = 30 * time.Second
	// While the DHT has no device of who is called, it is asked every lookAgain, for lookTime.
	lookAgain = 2 * time.Second
	lookTime  = 9 * time.Second
)

// calls are those that the node makes: it calls people into rooms. Who may, conference says.
type calls struct {
	bus    *bus.Conn
	sip    *sip.Server
	barred *barred
	hosts  []string // of phones that may be called
	log    *zap.Logger

	// dial is [devices.dial]; nil: no Jami devices are connected to.
	dial func(ctx context.Context, account, of jami.ID, name, hint string, fn func(to *trust.Chain, c channel.Channel, err error)) (missing int, err error)

	again, patience time.Duration // lookAgain and lookTime, but for tests

	ctx  context.Context //nolint:containedctx // ends the ringing
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	by    map[string]*placed // by participant
	n     int                // that are not taken
	shown map[string]shown   // that ring, or came to nothing a moment ago
}

// shown is what was told last of a call; until is when it is shown no more, zero: as long as
// it rings.
type shown struct {
	contract.CallProgress
	until time.Time
}

// placed is a call from its beginning to its end.
type placed struct {
	contract.CallProgress // what all its steps have in common
	cancel                context.CancelCauseFunc
	entered, taken        bool
	left                  string                     // reason, where it was heard before taken
	steps                 chan contract.CallProgress // to be told, in order
}

func newCalls(conn *bus.Conn, srv *sip.Server, b *barred, hosts []string, log *zap.Logger) *calls {
	c := &calls{bus: conn, sip: srv, barred: b, hosts: hosts, log: log, again: lookAgain, patience: lookTime, by: map[string]*placed{}, shown: map[string]shown{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// close ends what rings and waits.
func (c *calls) close() {
	c.stop()
	c.wg.Wait()
}

// call serves room.call. It answers when the seat is reserved.
func (c *calls) call(ctx context.Context, r *bus.Request[contract.CallOut]) (*contract.CallPlaced, error) {
	if r.Param(0) != c.bus.Account() {
		return nil, contract.ErrNotFound.With("the node's rooms are those of its main account, %s", c.bus.Account())
	}
	o, err := c.outgoing(ctx, r.Param(1), r.Param(2), &r.Body)
	if err != nil {
		return nil, err
	}
	p := &placed{CallProgress: contract.CallProgress{Room: o.Room, Call: o.ID, To: r.Body.To, By: o.By}, steps: make(chan contract.CallProgress, 64)}
	cctx, cancel := context.WithCancelCause(c.ctx)
	p.cancel = cancel
	if err := c.begin(p); err != nil {
		cancel(nil)
		return nil, err
	}
	entered := make(chan struct{})
	done := make(chan error, 1)
	o.Entered = func() { c.enter(p); close(entered) }
	o.Ringing = func(device string) {
		p.step(contract.CallProgress{State: contract.CallRinging, Device: device})
	}
	o.Taken = func(device string) { c.take(p, device) }
	c.wg.Go(func() { c.tell(p) })
	c.wg.Go(func() {
		tctx, stop := context.WithTimeoutCause(cctx, callTime, sip.ErrNoAnswer)
		defer stop()
		err := c.sip.Call(tctx, *o)
		c.over(p, err)
		done <- err
	})
	select {
	case <-entered:
		return &contract.CallPlaced{Call: o.ID}, nil
	case err := <-done:
		select {
		case <-entered:
			return &contract.CallPlaced{Call: o.ID}, nil
		default:
		}
		return nil, callError(o, err)
	case <-ctx.Done():
		cancel(sip.ErrHungUp)
		return nil, contract.ErrTimeout
	}
}

// outgoing reads what is asked for.
func (c *calls) outgoing(ctx context.Context, room, by string, q *contract.CallOut) (*sip.Outgoing, error) {
	face, err := bus.Call(ctx, c.bus, contract.RoomFaceCmd, &contract.RoomRef{Room: room})
	if err != nil {
		return nil, err
	}
	o := &sip.Outgoing{Room: room, By: by, Name: q.Name, Caller: face.Title}
	if o.Caller == "" {
		o.Caller = face.Name
	}
	if to := strings.ToLower(q.To); strings.HasPrefix(to, "sip:") || strings.HasPrefix(to, "sips:") {
		return o, c.toPhone(ctx, o, q.To)
	}
	of, err := jami.ParseID(strings.TrimPrefix(strings.TrimPrefix(q.To, "jami:"), "ring:"))
	if err != nil || of.IsZero() {
		return nil, contract.ErrBadRequest.With("who is called is a Jami Id, of 40 hex digits, or a sip: or sips: URI")
	}
	if c.dial == nil {
		return nil, contract.ErrUnavailable.With("Jami devices are not connected to; give jami.listen an address")
	}
	return o, c.toJami(ctx, o, face.Account, of)
}

func (c *calls) toJami(ctx context.Context, o *sip.Outgoing, account string, of jami.ID) error {
	if account == "" {
		account = c.bus.Account()
	}
	own, err := accountOf(ctx, c.bus, account)
	if err != nil {
		return err
	}
	if own.Ended {
		return contract.ErrNotFound.With("the room's account %s is not on this node", account)
	}
	if o.Account, err = jami.ParseID(account); err != nil {
		return contract.ErrInternal.With("%v", err)
	}
	if o.Account == of {
		return contract.ErrBadRequest.With("that is the room's own account")
	}
	o.ID, o.JamiID, o.Device = sip.NewID("jami"), of.String(), own.DeviceShort
	if o.Name == "" {
		o.Name = "Jami " + o.JamiID[:8]
	}
	o.Reach = func(ctx context.Context, fn func(channel.Channel)) error { return c.reach(ctx, o.Account, of, fn) }
	return nil
}

// reach opens a channel to each device of an account that can be reached; the error says why
// there is none. While the DHT has no device of the account it is asked again: what was put
// there a moment ago, by a device that just started say, may not be where this node looks.
func (c *calls) reach(ctx context.Context, account, of jami.ID, fn func(channel.Channel)) error {
	ctx, stop := context.WithTimeout(ctx, reachTime)
	defer stop()
	var r reached
	patience := time.After(c.patience)
	for {
		missing, err := c.dial(ctx, account, of, "sip", "audioCall", func(to *trust.Chain, ch channel.Channel, err error) {
			r.note(err)
			if err != nil {
				c.log.Info("a device is not reached", zap.Stringer("jami_id", of), zap.Stringer("device", to.DeviceID), zap.Error(err))
				return
			}
			fn(ch)
		})
		switch {
		case r.reached > 0:
			return nil
		case err != nil:
			return contract.ErrUnreachable.With("nobody of %s can be reached: %v", of, err)
		case r.failed > 0:
			return contract.ErrUnreachable.With("nobody of %s can be reached: of %d devices none answers (%v)", of, r.failed, r.why)
		}
		select {
		case <-time.After(c.again):
			continue
		case <-patience:
		case <-ctx.Done():
		}
		if missing > 0 {
			return contract.ErrUnreachable.With("nobody of %s can be reached: the certificates of its %d devices are not in the DHT now", of, missing)
		}
		return contract.ErrUnreachable.With("nobody of %s can be reached: no device of it is online: it is off, or in another network (setting dht.overlay)", of)
	}
}

// reached counts what came of the devices of an account.
type reached struct {
	mu              sync.Mutex
	reached, failed int
	why             error // of the first that failed
}

func (r *reached) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.reached++
	} else if r.failed++; r.why == nil {
		r.why = err
	}
}

// begin notes a call, unless there are too many.
func (c *calls) begin(p *placed) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= maxRinging || c.ctx.Err() != nil {
		return contract.ErrBusy.With("%d calls are ringing; try again", c.n)
	}
	c.n++
	c.by[p.Call] = p
	return nil
}

func (c *calls) enter(p *placed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.entered = true
	p.step(contract.CallProgress{State: contract.CallReaching})
}

func (c *calls) take(p *placed, device string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.taken = true
	p.step(contract.CallProgress{State: contract.CallTaken, Device: device})
	if p.left != "" {
		c.endLocked(p, contract.CallProgress{State: contract.CallEnded, Reason: p.left})
	}
}

// over is told when a call rings no more.
func (c *calls) over(p *placed, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	if err == nil {
		return // taken; its end is an event of the room
	}
	c.barred.forget(p.Call)
	c.endLocked(p, failure(p.To, err))
}

// endLocked tells of the end. The caller holds c.mu.
func (c *calls) endLocked(p *placed, last contract.CallProgress) {
	if c.by[p.Call] != p {
		return
	}
	delete(c.by, p.Call)
	if p.entered { // else the command's answer says it
		p.step(last)
	}
	close(p.steps)
}

// step queues a step. The queue holds all that can come of 16 devices.
func (p *placed) step(x contract.CallProgress) {
	x.Time, x.Room, x.Call, x.To, x.By = time.Now(), p.Room, p.Call, p.To, p.By
	select {
	case p.steps <- x:
	default:
	}
}

// tell tells the steps of a call in order. One that is taken is told of as long as this
// process lives.
func (c *calls) tell(p *placed) {
	defer p.cancel(nil)
	for {
		select {
		case x, ok := <-p.steps:
			if !ok {
				return
			}
			c.show(x)
			ctx, stop := context.WithTimeout(context.WithoutCancel(c.ctx), progressTime)
			if err := bus.Publish(ctx, c.bus, contract.RoomCalling, &x, x.Room, x.Call); err != nil {
				c.log.Info("a step of a call was not told", zap.String("call", x.Call), zap.String("state", string(x.State)), zap.Error(err))
			}
			stop()
		case <-c.ctx.Done():
			c.mu.Lock()
			taken := p.taken
			c.mu.Unlock()
			if taken {
				return
			}
			for x := range p.steps { // the end comes: ringing has stopped
				c.log.Debug("call", zap.String("call", x.Call), zap.String("state", string(x.State)))
			}
			return
		}
	}
}

// show notes a step for who asks how calls go.
func (c *calls) show(x contract.CallProgress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := shown{CallProgress: x}
	switch x.State {
	case contract.CallTaken, contract.CallEnded: // the roster tells of it
		delete(c.shown, x.Call)
		return
	case contract.CallRefused, contract.CallFailed:
		v.until = x.Time.Add(failedTime)
	}
	c.shown[x.Call] = v
}

// going are the last steps of calls that ring, or came to nothing within [failedTime].
func (c *calls) going() []contract.CallProgress {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, now := []contract.CallProgress{}, time.Now()
	for id, v := range c.shown {
		if !v.until.IsZero() && now.After(v.until) {
			delete(c.shown, id)
			continue
		}
		out = append(out, v.CallProgress)
	}
	slices.SortFunc(out, func(a, b contract.CallProgress) int { return strings.Compare(a.Call, b.Call) })
	return out
}

// failure is the last step of a call that was not taken.
func failure(to string, err error) contract.CallProgress {
	x := contract.CallProgress{State: contract.CallFailed}
	if no, ok := errors.AsType[*sip.Declined](err); ok {
		x.Status, x.Reason, x.Code = no.Status, no.Reason, contract.ErrDeclined.Code
		if no.Final() {
			x.State = contract.CallRefused
		}
		return x
	}
	e, ok := errors.AsType[*contract.Error](err)
	switch {
	case errors.Is(err, sip.ErrNoAnswer):
		e = contract.ErrNoAnswer
	case errors.Is(err, sip.ErrHungUp), errors.Is(err, sip.ErrStopping), errors.Is(err, context.Canceled):
		e = contract.ErrHungUp
	case !ok:
		e = contract.ErrUnreachable.With("%s: %v", to, err)
	}
	x.Code, x.Reason = e.Code, e.Message
	return x
}

// callError is a failure before anything rang as the answer to the command.
func callError(o *sip.Outgoing, err error) error {
	if _, ok := errors.AsType[*contract.Error](err); ok {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return contract.ErrTimeout
	}
	return contract.ErrUnavailable.With("the call of %s was not begun: %v", o.ID, err)
}

// hangUp serves room.hangup.
func (c *calls) hangUp(ctx context.Context, r *bus.Request[contract.CallEnd]) (*contract.None, error) {
	room, by, id := r.Param(1), r.Param(2), r.Body.Call
	c.mu.Lock()
	p := c.by[id]
	var own bool
	if p != nil {
		own = p.By == by && !p.taken
	}
	c.mu.Unlock()
	if p == nil || p.Room != room {
		return nil, contract.ErrNotFound.With("the node makes no call %q into %s", id, room)
	}
	if !own {
		if _, err := bus.Call(ctx, c.bus, contract.RoomKick, &contract.Target{Participant: id}, room, by); err != nil {
			return nil, fmt.Errorf("hanging up: %w", err)
		}
	}
	p.cancel(sip.ErrHungUp)
	return &contract.None{}, nil
}

// event ends the calls of who is put out, leaves, or whose room is closed. It does not wait.
func (c *calls) event(e *contract.RoomEvent) {
	if e.Type != contract.EventLeft && e.Type != contract.EventClosed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.by {
		if p.Room != e.Room || e.Type == contract.EventLeft && (e.Participant == nil || e.Participant.ID != id) {
			continue
		}
		if !p.taken {
			p.left = e.Reason
			p.cancel(sip.ErrHungUp)
			continue
		}
		c.endLocked(p, contract.CallProgress{State: contract.CallEnded, Reason: e.Reason})
	}
}
