// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// peers are whom a worker is joined with in a room.
func (m *fakeMedia) peers(room string) []contract.TrunkPeer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trunks[room].Peers
}

func (m *fakeMedia) change(fn func(m *fakeMedia)) {
	m.mu.Lock()
	fn(m)
	m.mu.Unlock()
	m.beat()
}

// atTwo is a world in which two legs are at m1, which takes no more, and one at m2.
func atTwo(t *testing.T) (w *world, m2 *fakeMedia) {
	w = newWorld(t)
	w.media.change(func(m *fakeMedia) { m.maxLegs = 2 })
	m2 = startMedia(t, w.bus, "m2")
	w.until("both beat", func() bool { return w.conf.s.workers.alive("m1") && w.conf.s.workers.alive("m2") })
	w.join("main", "a")
	w.join("main", "b")
	w.join("main", "c")
	m2.mu.Lock()
	defer m2.mu.Unlock()
	if len(m2.legs) != 1 || m2.legs["c"] == nil {
		t.Fatalf("legs at m2: %v", m2.legs)
	}
	return w, m2
}

// linked waits until both workers know of the same trunk, and returns its nonce.
func (w *world) linked(a, b *fakeMedia, not string) (nonce string) {
	w.t.Helper()
	w.until("both are joined", func() bool {
		x, y := a.peers("main"), b.peers("main")
		if len(x) != 1 || len(y) != 1 || x[0].Nonce != y[0].Nonce || x[0].Nonce == not {
			return false
		}
		if x[0].Worker != b.name || string(y[0].Key) != "key of "+a.name || x[0].Address == "" || x[0].Leaf {
			w.t.Fatalf("%+v and %+v", x, y)
		}
		nonce = x[0].Nonce
		return true
	})
	return nonce
}

// TestRoomSpreads: who does not fit at the room's worker is at another, the two are joined
// while both have somebody, and with other keys when that happens again.
func TestRoomSpreads(t *testing.T) {
	w, m2 := atTwo(t)
	first := w.linked(w.media, m2, "")
	if _, err := call(w, contract.RoomLeave, &contract.Leave{Reason: contract.ReasonLeft}, "main", "c"); err != nil {
		t.Fatal(err)
	}
	w.until("both are alone", func() bool { return len(w.media.peers("main"))+len(m2.peers("main")) == 0 })
	w.join("main", "d")
	w.linked(w.media, m2, first)
}

func TestAllWorkersAreFull(t *testing.T) {
	w, m2 := atTwo(t)
	m2.change(func(m *fakeMedia) { m.maxLegs = 1 })
	w.until("m2 is full", func() bool { _, err := w.conf.s.workers.choose(netip.Addr{}, nil); return err != nil })
	_, err := call(w, contract.RoomJoin, browser("d"), "main", "d")
	if !errors.Is(err, contract.ErrBusy) {
		t.Fatalf("a join beyond: %v", err)
	}
	if got := w.get("main"); len(got.Room.Participants) != 3 {
		t.Errorf("in the room: %d", len(got.Room.Participants))
	}
	w.join("main", "a") // who is in may come back
}

// TestWorkerRefuses: a worker that is full before its beat says so sends the next one on; where there is
// no other, it is its reason that is told.
func TestWorkerRefuses(t *testing.T) {
	w := newWorld(t)
	w.media.change(func(m *fakeMedia) { m.fail = contract.ErrBusy.With("no port is free") })
	_, err := call(w, contract.RoomJoin, browser("a"), "main", "a")
	if !errors.Is(err, contract.ErrBusy) || !strings.Contains(err.Error(), "no port is free") {
		t.Errorf("refused by the only worker: %v", err)
	}
	m2 := startMedia(t, w.bus, "m2")
	w.until("m2 beats", func() bool { return w.conf.s.workers.alive("m2") })
	w.join("main", "b")
	m2.mu.Lock()
	defer m2.mu.Unlock()
	if m2.legs["b"] == nil {
		t.Error("b is not at m2")
	}
}

// TestWorkerStartsAnew: a worker that was started anew is told of its trunks again, and the other one
// of its new start.
func TestWorkerStartsAnew(t *testing.T) {
	w, m2 := atTwo(t)
	w.linked(w.media, m2, "")
	was := w.media.peers("main")[0].Started
	m2.restart("c")
	w.until("m1 knows the new start", func() bool { p := w.media.peers("main"); return len(p) == 1 && p[0].Started != was })
	w.linked(w.media, m2, "")
}

// TestTrunksAreTriedAgain: an order that a worker refuses is given again; what the other one was told stays.
func TestTrunksAreTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.media.change(func(m *fakeMedia) { m.maxLegs = 1 })
	m2 := startMedia(t, w.bus, "m2")
	m2.change(func(m *fakeMedia) { m.refuse = contract.ErrUnavailable })
	w.until("both beat", func() bool { return w.conf.s.workers.alive("m1") && w.conf.s.workers.alive("m2") })
	w.join("main", "a")
	w.join("main", "b")
	w.until("m1 is told", func() bool { return len(w.media.peers("main")) == 1 })
	if p := m2.peers("main"); len(p) != 0 {
		t.Fatalf("m2 took %v", p)
	}
	m2.change(func(m *fakeMedia) { m.refuse = nil })
	w.linked(w.media, m2, "")
}

// TestConferenceStartsAnew: the next process joins the workers under its own epoch.
func TestConferenceStartsAnew(t *testing.T) {
	w, m2 := atTwo(t)
	first := w.linked(w.media, m2, "")
	m2.mu.Lock()
	epoch := m2.trunks["main"].Epoch
	m2.mu.Unlock()
	w.stop()
	w.start()
	w.linked(w.media, m2, first)
	m2.mu.Lock()
	defer m2.mu.Unlock()
	if got := m2.trunks["main"].Epoch; got <= epoch {
		t.Errorf("epoch %d after %d", got, epoch)
	}
}

// TestBotsAreTogether: one worker alone tells the bus what is heard in a room.
func TestBotsAreTogether(t *testing.T) {
	w := newWorld(t)
	w.media.change(func(m *fakeMedia) { m.maxLegs = 2 })
	m2 := startMedia(t, w.bus, "m2")
	w.until("both beat", func() bool { return w.conf.s.workers.alive("m1") && w.conf.s.workers.alive("m2") })
	w.join("main", "a")
	w.join("main", "b")
	for _, id := range []string{"bot1", "bot2"} {
		if _, err := call(w, contract.RoomJoin, &contract.Join{Kind: contract.KindBot}, "main", id); err != nil {
			t.Fatal(err)
		}
	}
	w.media.change(func(m *fakeMedia) { m.maxLegs = 0 })
	w.until("m1 has places", func() bool {
		at, err := w.conf.s.workers.choose(netip.Addr{}, []string{"m1"})
		return err == nil && at == "m1"
	})
	if _, err := call(w, contract.RoomJoin, &contract.Join{Kind: contract.KindBot}, "main", "bot3"); err != nil {
		t.Fatal(err)
	}
	m2.mu.Lock()
	defer m2.mu.Unlock()
	for _, id := range []string{"bot1", "bot2", "bot3"} {
		if m2.legs[id] == nil {
			t.Errorf("%s is not at m2: %v", id, m2.legs)
		}
	}
}

// TestManyWorkers: a room at more workers than are joined each with each is a tree.
func TestManyWorkers(t *testing.T) {
	w := newWorld(t)
	w.media.change(func(m *fakeMedia) { m.maxLegs = 1 })
	all := []*fakeMedia{w.media}
	for i := range 19 {
		m := startMedia(t, w.bus, fmt.Sprint("w", i))
		m.change(func(m *fakeMedia) { m.maxLegs = 1 })
		all = append(all, m)
	}
	w.until("all beat", func() bool {
		return !slices.ContainsFunc(all, func(m *fakeMedia) bool { return !w.conf.s.workers.alive(m.name) })
	})
	for i := range 20 {
		w.join("main", fmt.Sprint("p", i))
	}
	hubs := 0
	w.until("a tree", func() bool {
		hubs = 0
		links := 0
		for _, m := range all {
			p := m.peers("main")
			links += len(p)
			if slices.ContainsFunc(p, func(p contract.TrunkPeer) bool { return p.Leaf }) {
				hubs++
			}
		}
		return links == 2*(15+10) // 15 leaves, and 5 hubs each with each
	})
	if hubs != 5 {
		t.Errorf("%d hubs", hubs)
	}
}

// TestDrain: who is at a drained worker negotiates anew and is at another one; the old leg ends when the
// new one is connected. A drained worker gets nobody, also after a restart of conference.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	w.join("main", "a")
	m2 := startMedia(t, w.bus, "m2")
	w.until("both beat", func() bool { return w.conf.s.workers.alive("m1") && w.conf.s.workers.alive("m2") })
	if _, err := call(w, contract.WorkerDrain, &contract.Drain{}, "m9"); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("a worker that is not there: %v", err)
	}
	if got := must(w, contract.WorkerDrain, &contract.Drain{}, "m1"); !got.Drain || !got.Alive {
		t.Errorf("%+v", got)
	}
	if e := w.wait(contract.EventMedia, "a"); e.Reason != "moved" {
		t.Errorf("told %q", e.Reason)
	}
	must(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "another offer"}, "main", "a")
	has := func(m *fakeMedia) bool { _, ok := m.leg("a"); return ok }
	if !has(w.media) || !has(m2) {
		t.Errorf("the leg is at m1: %t, at m2: %t", has(w.media), has(m2))
	}
	check(t, bus.Publish(context.Background(), m2.c, contract.MediaLeg, &contract.LegChange{Leg: "a", Room: "main", State: "connected"}, "m2"))
	w.until("the old leg ends", func() bool { return !has(w.media) })
	w.stop()
	w.start()
	w.until("m2 is heard of again", func() bool { return w.conf.s.workers.alive("m2") })
	w.join("main", "b")
	if _, ok := w.media.leg("b"); ok {
		t.Error("b is at the drained worker")
	}
	must(w, contract.WorkerDrain, &contract.Drain{}, "m2")
	if _, err := call(w, contract.RoomJoin, browser("c"), "main", "c"); !errors.Is(err, contract.ErrBusy) {
		t.Errorf("with all workers drained: %v", err)
	}
	must(w, contract.WorkerDrain, &contract.Drain{Undo: true}, "m1")
	w.join("main", "c")
}

// TestOfferOfTheNode: a Jami peer whose leg moves gets an offer of the node's, and only then.
func TestOfferOfTheNode(t *testing.T) {
	w := newWorld(t)
	j := browser("jami")
	j.Kind, j.Transport = contract.KindJami, contract.TransportJami
	must(w, contract.RoomJoin, j, "main", "jami")
	ask := &contract.Negotiate{}
	if _, err := call(w, contract.RoomNegotiate, ask, "main", "jami"); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("for a leg that is there: %v", err)
	}
	w.media.restart()
	w.wait(contract.EventMedia, "jami")
	must(w, contract.RoomNegotiate, ask, "main", "jami")
	if q := w.media.asked["jami"]; q.Offer != "" || q.Transport != contract.TransportJami {
		t.Errorf("asked for %+v", q)
	}
	w.join("main", "a")
	if _, err := call(w, contract.RoomNegotiate, ask, "main", "a"); !errors.Is(err, contract.ErrBadRequest) {
		t.Errorf("for a browser: %v", err)
	}
}

// TestWorkerEndsInOrder: who is at a worker that is told to end is at another one at once.
func TestWorkerEndsInOrder(t *testing.T) {
	w, m2 := atTwo(t)
	w.media.change(func(m *fakeMedia) { m.maxLegs = 0 })
	m2.mute()
	check(t, bus.Publish(context.Background(), m2.c, contract.MediaLeg, &contract.LegChange{Leg: "c", Room: "main", State: "closed", Reason: "shutdown"}, "m2"))
	began := time.Now()
	w.wait(contract.EventMedia, "c")
	if took := time.Since(began); took > time.Second { // without a word it takes 1.6 s
		t.Errorf("told after %v", took)
	}
	must(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "another offer"}, "main", "c")
	if _, ok := w.media.leg("c"); !ok {
		t.Error("c is not at m1")
	}
}

func TestPlaces(t *testing.T) {
	var p places
	for _, step := range []struct{ id, worker, want string }{
		{"a", "", "[]"}, {"a", "m1", "[m1]"}, {"b", "m2", "[m1 m2]"}, {"c", "m1", "[m1 m2]"}, {"a", "m1", "[m1 m2]"},
		{"a", "m3", "[m1 m2 m3]"}, {"c", "m3", "[m2 m3]"}, {"b", "", "[m3]"}, {"b", "", "[m3]"}, {"a", "", "[m3]"}, {"c", "", "[]"}, {"a", "m2", "[m2]"},
	} {
		p.note(step.id, step.worker)
		if got := fmt.Sprint(p.workers); got != step.want {
			t.Errorf("%s at %q: %s, want %s", step.id, step.worker, got, step.want)
		}
	}
}

// Who come into an empty room at the same time are at one worker, though another has as few legs.
func TestWhoComeTogetherStayTogether(t *testing.T) {
	w := newWorld(t)
	all := []*fakeMedia{w.media, startMedia(t, w.bus, "m2")}
	w.until("both are there", func() bool { return w.conf.s.workers.alive("m1") && w.conf.s.workers.alive("m2") })
	hold := make(chan struct{}) // nobody is seated before all were sent somewhere
	came := func() (n int) {
		for _, m := range all {
			m.mu.Lock()
			m.hold = hold
			n += m.came
			m.mu.Unlock()
		}
		return n
	}
	before := came()
	var joined sync.WaitGroup
	for i := range 6 {
		joined.Go(func() {
			id := fmt.Sprint("p", i)
			if _, err := bus.Call(t.Context(), w.c, contract.RoomJoin, browser(id), "main", id); err != nil {
				t.Error(err)
			}
		})
	}
	w.until("all were sent somewhere", func() bool { return came() == before+6 })
	close(hold)
	joined.Wait()
	at := map[string]int{}
	for _, p := range w.get("main").Room.Participants {
		at[p.Worker]++
	}
	if len(at) != 1 {
		t.Errorf("at %v", at)
	}
}
