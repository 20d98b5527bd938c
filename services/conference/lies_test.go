// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// say publishes a beat as the bus lets m1's or m2's process do: under its own subject.
func (m *fakeMedia) say(b contract.WorkerBeat) {
	m.t.Helper()
	if err := bus.Publish(context.Background(), m.c, contract.MediaBeat, &b, m.name); err != nil {
		m.t.Fatal(err)
	}
}

// raw publishes what is no beat, or one that Go's types cannot say.
func (w *world) raw(m *fakeMedia, body string) {
	w.t.Helper()
	subject := w.c.Account() + ".media." + m.name + ".event.beat"
	if err := w.bus.Raw("media").Publish(subject, []byte(body)); err != nil {
		w.t.Fatal(err)
	}
}

// TestAWorkerLies has a second worker tell lies of itself and of the first: whoever joins has a leg, where one is to
// be had, and who is in stays where he is.
func TestAWorkerLies(t *testing.T) {
	honest := func(name string) contract.WorkerBeat {
		return contract.WorkerBeat{Worker: name, Started: "s", TrunkKey: []byte("key of " + name), TrunkAddress: "192.0.2.1:24000"}
	}
	for _, c := range []struct {
		name string
		fail *contract.Error // what the liar answers; nil: it does take legs
		hang bool            // it never answers
		lie  func(w *world, m *fakeMedia)
	}{
		{"it is empty, and refuses", contract.ErrBusy, false, func(_ *world, m *fakeMedia) { m.say(honest("m2")) }},
		{"it is empty, and is silent", nil, true, func(_ *world, m *fakeMedia) { m.say(honest("m2")) }},
		{"huge", contract.ErrBusy, false, func(_ *world, m *fakeMedia) {
			b := honest("m2")
			b.MaxLegs, b.CPU = 1<<62, 0
			m.say(b)
		}},
		{"negative", contract.ErrBusy, false, func(_ *world, m *fakeMedia) {
			b := honest("m2")
			b.Legs, b.MaxLegs, b.CPU, b.RSS, b.At = -1<<62, -5, -1e300, -1, -7
			m.say(b)
		}},
		{"no numbers", contract.ErrBusy, false, func(w *world, m *fakeMedia) {
			w.raw(m, `{"worker":"m2","started":"s","legs":NaN,"cpu":NaN}`)
			w.raw(m, `{"worker":"m2","started":"s","legs":0,"cpu":1e999}`)
			w.raw(m, `{"worker":"m2","started":"s","legs":1e99}`)
			w.raw(m, "\x00\xff")
			w.raw(m, `[]`)
			w.raw(m, `null`)
			w.raw(m, strings.Repeat("[", 100_000))
		}},
		{"another's name", contract.ErrBusy, false, func(_ *world, m *fakeMedia) {
			b := honest("m1")
			b.Legs, b.MaxLegs, b.Late, b.Started, b.TrunkAddress = 5, 5, true, "x", "192.0.2.66:1"
			m.say(b)
		}},
		{"many names", contract.ErrBusy, false, func(_ *world, m *fakeMedia) {
			for i := range 2 * maxKnown {
				m.say(honest(fmt.Sprint("ghost", i)))
			}
		}},
		{"too often", contract.ErrBusy, false, func(_ *world, m *fakeMedia) {
			for range 2000 {
				m.say(honest("m2"))
			}
		}},
		{"started anew each time", contract.ErrBusy, false, func(_ *world, m *fakeMedia) {
			for i := range 2000 {
				b := honest("m2")
				b.Started = fmt.Sprint(i)
				m.say(b)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.until("m1 beats", func() bool { return w.conf.s.workers.alive("m1") })
			for i := range 3 { // m1 is not the emptiest, so that new rooms go to the liar
				w.join("main", fmt.Sprint("early", i))
			}
			must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "hall"})
			m2 := startMedia(t, w.bus, "m2")
			m2.mute()
			m2.mu.Lock()
			m2.fail = c.fail
			if c.hang {
				m2.hold = make(chan struct{})
				t.Cleanup(func() { close(m2.hold) })
			}
			m2.mu.Unlock()
			c.lie(w, m2)
			m2.say(honest("m2"))
			w.until("m2 is heard of", func() bool { return w.conf.s.workers.alive("m2") })
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { // it lies all the time
				defer close(done)
				tick := time.NewTicker(300 * time.Millisecond)
				defer tick.Stop()
				for {
					c.lie(w, m2)
					select {
					case <-tick.C:
					case <-ctx.Done():
						return
					}
				}
			}()
			t.Cleanup(func() { stop(); <-done })
			start := time.Now()
			for i := range 5 {
				w.join("hall", fmt.Sprint("h", i))
				w.join("main", fmt.Sprint("m", i))
			}
			t.Logf("10 joins took %v", time.Since(start).Round(time.Millisecond))
			w.media.mu.Lock()
			legs := len(w.media.legs)
			w.media.mu.Unlock()
			if legs != 13 {
				t.Errorf("%d legs at the honest worker", legs)
			}
			for _, room := range []string{"main", "hall"} {
				for _, p := range w.get(room).Room.Participants {
					if p.Worker != "m1" {
						t.Errorf("%s of %s is at %s", p.ID, room, p.Worker)
					}
				}
			}
			w.conf.s.workers.mu.Lock()
			known, m1 := len(w.conf.s.workers.by), w.conf.s.workers.by["m1"].last
			w.conf.s.workers.mu.Unlock()
			if known > 2 || m1.Late || m1.MaxLegs != 0 || m1.TrunkAddress != "192.0.2.1:24000" {
				t.Errorf("%d workers are known, m1 as %+v", known, m1)
			}
		})
	}
}

// TestAWorkerSpeaksForOthers: what a worker tells of legs that are elsewhere is not believed.
func TestAWorkerSpeaksForOthers(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	m2 := startMedia(t, w.bus, "m2")
	w.until("m2 beats", func() bool { return w.conf.s.workers.alive("m2") })
	tell := func(m *fakeMedia) {
		check(t, bus.Publish(t.Context(), m.c, contract.MediaVoice, &contract.VoiceChange{Leg: "ann", Room: "main", Speaking: true, Level: 10}, m.name))
		check(t, bus.Publish(t.Context(), m.c, contract.MediaDigit, &contract.DigitPressed{Leg: "ann", Room: "main", Digit: "5"}, m.name))
		check(t, bus.Publish(t.Context(), m.c, contract.MediaLeg, &contract.LegChange{Leg: "ann", Room: "main", State: "closed"}, m.name))
		check(t, bus.Publish(t.Context(), m.c, contract.MediaStats, &contract.LegStats{Worker: "m1", Legs: []contract.LegInfo{{Leg: "ann", Room: "main", Codec: "lies"}}}, m.name))
	}
	tell(m2)
	w.join("main", "bob") // after it
	w.until("bob is in", func() bool { return len(w.get("main").Room.Participants) == 2 })
	for _, p := range w.get("main").Room.Participants {
		if p.ID == "ann" && (p.Speaking || p.Codec == "lies") {
			t.Errorf("ann is %+v", p)
		}
	}
	tell(w.media)
	w.until("m1 is believed", func() bool {
		for _, p := range w.get("main").Room.Participants {
			if p.ID == "ann" && p.Codec == "lies" {
				return true
			}
		}
		return false
	})
}
