package connect

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/sip"
)

// switchboard is what calls are made with, beside hand-written peers.
type switchboard struct {
	t     *testing.T
	c     *calls
	op    *bus.Conn
	steps chan contract.CallProgress
	dials chan string
	dial  func(ctx context.Context) error // how a device is reached
	alive func() error                    // not nil: there is a device, and what came of it
	left  chan string
	may   *contract.Error // conference's word
}

func newSwitchboard(t *testing.T, hosts ...string) *switchboard {
	t.Helper()
	b := bustest.Start(t)
	w := &switchboard{t: t, op: b.Conn("cli"), steps: make(chan contract.CallProgress, 64), dials: make(chan string, 8), left: make(chan string, 8)}
	conf, err := bus.NewService(b.Conn("conference"), "conference", "0.0.0-test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conf.Stop)
	id, err := bus.NewService(b.Conn("identity"), "identity", "0.0.0-test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Stop)
	conn := b.Conn("connect")
	watch := newBarred(nil, zap.NewNop())
	p := phones{bus: conn, signalling: "connect", barred: watch}
	s, err := sip.New(sip.Config{Dir: t.TempDir(), Rooms: p, Code: errorCode, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	w.c = newCalls(conn, s, watch, hosts, zap.NewNop())
	w.c.again, w.c.patience = time.Minute, 0
	w.c.dial = func(ctx context.Context, account, of jami.ID, name, hint string, fn func(*trust.Chain, channel.Channel, error)) (int, error) {
		w.dials <- account.String() + " " + of.String() + " " + name + " " + hint
		if w.alive != nil {
			fn(&trust.Chain{}, nil, w.alive())
		}
		return 0, w.dial(ctx)
	}
	own, err := bus.NewService(conn.For(bus.Any), "connect", "0.0.0-test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	t.Cleanup(w.c.close)
	sub, err := bus.Subscribe(w.op, contract.RoomCalling, func(_ context.Context, _ []string, x *contract.CallProgress) { w.steps <- *x })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	err = errors.Join(
		bus.Serve(own, contract.RoomCall, w.c.call), bus.Serve(own, contract.RoomHangUp, w.c.hangUp),
		bus.Serve(id, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			return &contract.IdentityState{Accounts: []contract.Account{{ID: bustest.Account, DeviceShort: "d1"}, {ID: workID, DeviceShort: "d2"}}}, nil
		}),
		bus.Serve(conf, contract.RoomFaceCmd, func(_ context.Context, q *bus.Request[contract.RoomRef]) (*contract.RoomFace, error) {
			return &contract.RoomFace{Name: q.Body.Room}, nil
		}),
		bus.Serve(conf, contract.RoomJoin, func(_ context.Context, q *bus.Request[contract.Join]) (*contract.Joined, error) {
			if w.may != nil {
				return nil, w.may
			}
			if q.Body.By == "" || q.Body.Offer != "" {
				return nil, contract.ErrBadRequest
			}
			return &contract.Joined{SDP: "offer"}, nil
		}),
		bus.Serve(conf, contract.RoomLeave, func(_ context.Context, q *bus.Request[contract.Leave]) (*contract.None, error) {
			w.left <- q.Param(2)
			return &contract.None{}, nil
		}),
		bus.Serve(conf, contract.RoomKick, func(_ context.Context, q *bus.Request[contract.Target]) (*contract.None, error) {
			if q.Param(2) != contract.Operator {
				return nil, contract.ErrForbidden
			}
			return &contract.None{}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *switchboard) step(want contract.CallState) contract.CallProgress {
	w.t.Helper()
	select {
	case x := <-w.steps:
		if x.State != want {
			w.t.Fatalf("%+v, want %s", x, want)
		}
		return x
	case <-time.After(10 * time.Second):
		w.t.Fatalf("no step %s", want)
		return contract.CallProgress{}
	}
}

func (w *switchboard) call(room, to string) (*contract.CallPlaced, error) {
	return bus.Call(w.t.Context(), w.op, contract.RoomCall, &contract.CallOut{To: to}, room, contract.Operator)
}

// Nobody there is told of with the reason, and the seat is given back.
func TestCallsNobody(t *testing.T) {
	w := newSwitchboard(t)
	w.dial = func(context.Context) error { return nil }
	for range 2 {
		p, err := w.call("main", "jami:"+annID)
		if err != nil {
			t.Fatal(err)
		}
		if x := w.step(contract.CallReaching); x.Call != p.Call || x.Room != "main" || x.By != contract.Operator || !strings.HasPrefix(x.Call, "jami-") {
			t.Errorf("%+v", x)
		}
		if got, want := <-w.dials, bustest.Account+" "+annID+" sip audioCall"; got != want {
			t.Errorf("dialled %q, want %q", got, want)
		}
		if x := w.step(contract.CallFailed); x.Code != contract.ErrUnreachable.Code || !strings.HasPrefix(x.Reason, "nobody of "+annID+" can be reached: ") {
			t.Errorf("%+v", x)
		}
		if got := <-w.left; got != p.Call {
			t.Errorf("%s left", got)
		}
		if on := w.c.going(); !slices.ContainsFunc(on, func(x contract.CallProgress) bool { return x.Call == p.Call && x.State == contract.CallFailed }) {
			t.Errorf("shown: %+v", on)
		}
	}
}

// A device that the DHT has only a moment later is called all the same.
func TestCallsWhoComesOnline(t *testing.T) {
	w := newSwitchboard(t)
	w.c.again, w.c.patience = time.Millisecond, time.Minute
	looks := 0
	w.dial = func(context.Context) error {
		if looks++; looks == 3 {
			w.alive = func() error { return errors.New("it is asleep") }
		}
		return nil
	}
	if _, err := w.call("main", annID); err != nil {
		t.Fatal(err)
	}
	w.step(contract.CallReaching)
	if x := w.step(contract.CallFailed); x.Reason != "nobody of "+annID+" can be reached: of 1 devices none answers (it is asleep)" || looks != 4 {
		t.Errorf("after %d looks: %+v", looks, x)
	}
}

func TestCallsGivenUp(t *testing.T) {
	w := newSwitchboard(t)
	w.dial = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	p, err := w.call("main", annID)
	if err != nil {
		t.Fatal(err)
	}
	w.step(contract.CallReaching)
	_, err = bus.Call(t.Context(), w.op, contract.RoomHangUp, &contract.CallEnd{Call: p.Call}, "main", "somebody")
	if !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("another's call: %v", err)
	}
	_, err = bus.Call(t.Context(), w.op, contract.RoomHangUp, &contract.CallEnd{Call: p.Call}, "office", contract.Operator)
	if !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("in another room: %v", err)
	}
	if _, err := bus.Call(t.Context(), w.op, contract.RoomHangUp, &contract.CallEnd{Call: p.Call}, "main", contract.Operator); err != nil {
		t.Fatal(err)
	}
	if x := w.step(contract.CallFailed); x.Code != contract.ErrHungUp.Code {
		t.Errorf("%+v", x)
	}
	if _, err = w.call("main", annID); err != nil {
		t.Fatal(err)
	}
	w.step(contract.CallReaching)
	w.c.event(&contract.RoomEvent{Type: contract.EventClosed, Room: "main"})
	w.step(contract.CallFailed)
}

// Whom the operator did not name is not called, and neither is anybody by who may not.
func TestCallsRefused(t *testing.T) {
	w := newSwitchboard(t, "192.0.2.0/28", "pbx.example.org", "127.0.0.1")
	w.may = contract.ErrForbidden
	for to, want := range map[string]*contract.Error{
		annID: contract.ErrForbidden, annID[:39]: contract.ErrBadRequest, "": contract.ErrBadRequest, strings.Repeat("0", 40): contract.ErrBadRequest, bustest.Account: contract.ErrBadRequest,
		"sip:bob@192.0.2.16": contract.ErrForbidden, "sip:bob@example.org": contract.ErrForbidden, "sip:bob@pbx.example.org.evil.example": contract.ErrForbidden,
		"sip:bob@[::ffff:192.0.2.16]": contract.ErrForbidden, "sip:bob@localhost": contract.ErrForbidden,
		"sip:bob@192.0.2.7;maddr=10.0.0.1": contract.ErrBadRequest, "sip:bob@127.0.0.1": contract.ErrBadRequest, // no such transport is open here
	} {
		if _, err := w.call("main", to); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", to, err, want)
		}
	}
	if _, err := bus.Call(t.Context(), w.op.For(workID), contract.RoomCall, &contract.CallOut{To: annID}, "main", contract.Operator); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("of another account: %v", err)
	}
	select {
	case x := <-w.steps:
		t.Errorf("told of %+v", x)
	default:
	}
}

func TestNamedHosts(t *testing.T) {
	list := []string{"192.0.2.0/28", "PBX.example.org", "2001:db8::7"}
	for _, h := range []string{"192.0.2.7", "::ffff:192.0.2.7", "pbx.example.org", "2001:db8::7"} {
		if !named(list, h) {
			t.Errorf("%s is not taken", h)
		}
	}
	if i := slices.IndexFunc([]string{"192.0.2.16", "example.org", "x.pbx.example.org", "2001:db8::8", ""}, func(h string) bool { return named(list, h) }); i >= 0 {
		t.Errorf("the %d. is taken", i)
	}
}
