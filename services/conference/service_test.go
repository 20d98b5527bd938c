// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

const patience = 10 * time.Second

// world is a bus with a conference and hand-written peers around it.
type world struct {
	t     testing.TB
	bus   *bustest.Server
	media *fakeMedia
	swarm *fakeSwarm
	ident *fakeIdentity
	c     *bus.Conn // of who may do anything
	op    *bus.Conn // as the command line
	conf  *running
	ev    *recorder
	grace time.Duration // of bots; 0: as it is
}

type running struct {
	s      *Service
	cancel context.CancelFunc
	done   chan error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldAt(t, bustest.Start(t))
}

func newWorldAt(t testing.TB, s *bustest.Server) *world {
	t.Helper()
	w := &world{t: t, bus: s, c: s.Admin(), op: s.Admin()}
	w.ident = startIdentity(t, s)
	w.media = startMedia(t, s, "m1")
	w.swarm = startSwarm(t, s)
	w.ev = recordEvents(t, w.c)
	w.start()
	t.Cleanup(func() {
		if w.conf != nil {
			w.stop()
		}
	})
	return w
}

// start runs conference on the world's data directory.
func (w *world) start() {
	w.t.Helper()
	env := w.bus.Env("conference")
	env.Config.Rooms.Default = "main"
	env.Config.Media.Worker = "m1"
	if os.Getenv("CONFERENCE_TEST_LOG") != "" {
		env.Log = zaptest.NewLogger(w.t)
	}
	r, err := New(env)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if w.grace != 0 {
		r.(*Service).botGrace = w.grace
	}
	w.conf = &running{s: r.(*Service), cancel: cancel, done: make(chan error, 1)}
	go func(run *running) { run.done <- run.s.Run(ctx) }(w.conf)
	w.until("conference is ready", func() bool {
		select {
		case err := <-w.conf.done:
			w.t.Fatalf("conference: %v", err)
		default:
		}
		return env.Ready()
	})
}

// stop ends conference in order.
func (w *world) stop() {
	w.t.Helper()
	w.conf.cancel()
	if err := <-w.conf.done; err != nil && !errors.Is(err, context.Canceled) {
		w.t.Errorf("conference: %v", err)
	}
	w.conf = nil
}

// until polls cond.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	end := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(end) {
			w.t.Fatalf("not within %s: %s", patience, what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func call[Q, A any](w *world, cmd contract.Command[Q, A], q *Q, params ...string) (*A, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := w.c
	if cmd.Service == "conference" && len(params) == 0 {
		c = w.op
	}
	return bus.Call(ctx, c, cmd, q, params...)
}

func must[Q, A any](w *world, cmd contract.Command[Q, A], q *Q, params ...string) *A {
	w.t.Helper()
	a, err := call(w, cmd, q, params...)
	if err != nil {
		w.t.Fatalf("%s: %v", cmd.Name, err)
	}
	return a
}

func wantCode(t testing.TB, err error, want *contract.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %s", err, want.Code)
	}
}

func browser(name string) *contract.Join {
	return &contract.Join{Name: name, Kind: contract.KindBrowser, Transport: contract.TransportWebRTC, Offer: "offer of " + name, Source: "192.0.2.1"}
}

func (w *world) join(room, id string) *contract.Joined {
	w.t.Helper()
	return must(w, contract.RoomJoin, browser(id), room, id)
}

func (w *world) get(room string) *contract.Joined {
	w.t.Helper()
	return must(w, contract.RoomGet, &contract.None{}, room, contract.Operator)
}

// roster is who is in, as "id:role" in the order of joining.
func (w *world) roster(room string) string {
	w.t.Helper()
	out := ""
	for _, p := range w.get(room).Room.Participants {
		out += fmt.Sprintf("%s:%s ", p.ID, p.Role)
	}
	return out
}

// recorder keeps the events of rooms.
type recorder struct {
	mu  sync.Mutex
	all []contract.RoomEvent
}

func recordEvents(t testing.TB, c *bus.Conn) *recorder {
	t.Helper()
	r := new(recorder)
	sub, err := bus.Subscribe(c, contract.RoomEvents, func(_ context.Context, _ []string, e *contract.RoomEvent) {
		r.mu.Lock()
		r.all = append(r.all, *e)
		r.mu.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	return r
}

func (r *recorder) find(match func(e *contract.RoomEvent) bool) *contract.RoomEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.all {
		if match(&r.all[i]) {
			return &r.all[i]
		}
	}
	return nil
}

// wait waits for an event of a type about a participant ("" any).
func (w *world) wait(typ contract.EventType, id string) *contract.RoomEvent {
	w.t.Helper()
	var e *contract.RoomEvent
	w.until(fmt.Sprintf("event %s of %q", typ, id), func() bool {
		e = w.ev.find(func(e *contract.RoomEvent) bool {
			return e.Type == typ && (id == "" || e.Participant != nil && e.Participant.ID == id)
		})
		return e != nil
	})
	return e
}
