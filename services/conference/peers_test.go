// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

// fakeMedia is a media worker that makes legs of nothing.
type fakeMedia struct {
	t    testing.TB
	c    *bus.Conn
	name string

	mu      sync.Mutex
	started int
	legs    map[string]*contract.LegInfo
	opened  int
	asked   map[string]contract.LegOpen // the last one of each leg
	proved  map[string]bool
	listen  map[string]contract.Listen
	fail    *contract.Error // answers leg.open
	hold    chan struct{}   // leg.open waits for it
	came    int             // leg.open, those that wait too
	maxLegs int
	trunks  map[string]contract.TrunksSet // the last one of each room
	refuse  *contract.Error               // answers trunks
	silent  bool                          // no more beats
}

func startMedia(t testing.TB, s *bustest.Server, name string) *fakeMedia {
	t.Helper()
	m := &fakeMedia{t: t, c: s.Conn("media"), name: name, legs: map[string]*contract.LegInfo{}, asked: map[string]contract.LegOpen{}, proved: map[string]bool{}, listen: map[string]contract.Listen{}, trunks: map[string]contract.TrunksSet{}}
	svc := serveFake(t, m.c, "media")
	check(t, bus.Serve(svc, contract.MediaLegOpen, m.open, name))
	check(t, bus.Serve(svc, contract.MediaLegSDP, m.sdp, name))
	check(t, bus.Serve(svc, contract.MediaLegSet, m.set, name))
	check(t, bus.Serve(svc, contract.MediaLegClose, m.close, name))
	check(t, bus.Serve(svc, contract.MediaTrunks, m.joinWorkers, name))
	check(t, bus.Serve(svc, contract.MediaInfo, m.info, name))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			m.beat()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

func serveFake(t testing.TB, c *bus.Conn, name string) *bus.Service {
	t.Helper()
	svc, err := bus.NewService(c, name, "0.0.0", "a fake")
	check(t, err)
	t.Cleanup(svc.Stop)
	return svc
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mute ends the beats.
func (m *fakeMedia) mute() {
	m.mu.Lock()
	m.silent = true
	m.mu.Unlock()
}

func (m *fakeMedia) beat() {
	m.mu.Lock()
	if m.silent {
		m.mu.Unlock()
		return
	}
	b := &contract.WorkerBeat{Worker: m.name, Started: fmt.Sprint(m.started), Legs: len(m.legs), MaxLegs: m.maxLegs,
		TrunkKey: []byte("key of " + m.name), TrunkAddress: "192.0.2.1:24000"}
	m.mu.Unlock()
	if err := bus.Publish(context.Background(), m.c, contract.MediaBeat, b, m.name); err != nil {
		m.t.Log(err)
	}
}

// restart loses all legs but those kept.
// closeInOrder ends all legs as a process does that is told to end, and starts anew.
func (m *fakeMedia) closeInOrder() {
	m.mu.Lock()
	legs := slices.Collect(maps.Values(m.legs))
	m.mu.Unlock()
	for _, l := range legs {
		if err := bus.Publish(context.Background(), m.c, contract.MediaLeg, &contract.LegChange{Leg: l.Leg, Room: l.Room, State: "closed", Reason: "shutdown"}, m.name); err != nil {
			m.t.Error(err)
		}
	}
	m.restart()
}

func (m *fakeMedia) restart(keep ...string) {
	m.mu.Lock()
	m.started++
	maps.DeleteFunc(m.legs, func(id string, _ *contract.LegInfo) bool { return !slices.Contains(keep, id) })
	clear(m.trunks)
	m.mu.Unlock()
	m.beat()
}

func (m *fakeMedia) joinWorkers(_ context.Context, r *bus.Request[contract.TrunksSet]) (*contract.None, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.trunks[r.Body.Room]
	if r.Body.Epoch < was.Epoch || r.Body.Epoch == was.Epoch && r.Body.Version <= was.Version {
		return nil, contract.ErrStale
	}
	if m.refuse != nil {
		return nil, m.refuse
	}
	m.trunks[r.Body.Room] = r.Body
	return &contract.None{}, nil
}

func (m *fakeMedia) open(ctx context.Context, r *bus.Request[contract.LegOpen]) (*contract.LegOpened, error) {
	m.mu.Lock()
	m.came++
	hold, fail := m.hold, m.fail
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, contract.ErrTimeout
		}
	}
	if fail != nil {
		return nil, fail
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	q := r.Body
	if m.maxLegs > 0 && len(m.legs) >= m.maxLegs && m.legs[q.Leg] == nil {
		return nil, contract.ErrBusy
	}
	m.opened++
	m.asked[q.Leg] = q
	m.legs[q.Leg] = &contract.LegInfo{Leg: q.Leg, Room: q.Room, Transport: string(q.Transport), Codec: "opus", CanSpeak: q.CanSpeak, Muted: q.Muted,
		Connected: q.Transport == contract.TransportBus}
	return &contract.LegOpened{SDP: "answer to " + q.Offer, Transport: string(q.Transport), Codec: "opus"}, nil
}

func (m *fakeMedia) sdp(_ context.Context, r *bus.Request[contract.LegSDP]) (*contract.LegOpened, error) {
	if _, ok := m.leg(r.Body.Leg); !ok {
		return nil, contract.ErrNotFound
	}
	return &contract.LegOpened{SDP: "again " + r.Body.SDP, Transport: "webrtc", Codec: "opus"}, nil
}

func (m *fakeMedia) set(_ context.Context, r *bus.Request[contract.LegSet]) (*contract.LegInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.legs[r.Body.Leg]
	if !ok {
		return nil, contract.ErrNotFound
	}
	if r.Body.CanSpeak != nil {
		l.CanSpeak = *r.Body.CanSpeak
	}
	if r.Body.Muted != nil {
		l.Muted = *r.Body.Muted
	}
	if r.Body.Listen != nil {
		m.listen[r.Body.Leg] = *r.Body.Listen
	}
	m.proved[r.Body.Leg] = m.proved[r.Body.Leg] || r.Body.Proved
	c := *l
	return &c, nil
}

func (m *fakeMedia) close(_ context.Context, r *bus.Request[contract.LegClose]) (*contract.None, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.legs[r.Body.Leg] == nil {
		return nil, contract.ErrNotFound
	}
	delete(m.legs, r.Body.Leg)
	return &contract.None{}, nil
}

// info answers in pages of two.
func (m *fakeMedia) info(_ context.Context, r *bus.Request[contract.MediaQuery]) (*contract.WorkerInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &contract.WorkerInfo{Worker: m.name, Started: fmt.Sprint(m.started)}
	for _, id := range slices.Sorted(maps.Keys(m.legs)) {
		if id <= r.Body.After {
			continue
		}
		if out.More = len(out.Legs) == 2; out.More {
			break
		}
		out.Legs = append(out.Legs, *m.legs[id])
	}
	return out, nil
}

// request is the last one for a leg.
func (m *fakeMedia) request(id string) contract.LegOpen {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[id]
}

func (m *fakeMedia) leg(id string) (contract.LegInfo, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.legs[id]
	if !ok {
		return contract.LegInfo{}, false
	}
	return *l, true
}

// connect says that the first packet of a leg came.
func (m *fakeMedia) connect(room, id string) {
	m.mu.Lock()
	if l := m.legs[id]; l != nil {
		l.Connected = true
	}
	m.mu.Unlock()
	check(m.t, bus.Publish(context.Background(), m.c, contract.MediaLeg, &contract.LegChange{Leg: id, Room: room, State: "connected"}, m.name))
}

// fakeSwarm keeps chats in memory.
type fakeSwarm struct {
	mu       sync.Mutex
	posts    map[string][]contract.ChatMessage
	fail     *contract.Error // posts
	stuck    *contract.Error // detaching
	mute     int             // posts that get no answer
	keys     []string        // of all posts
	detached map[string]int
	hold     chan struct{} // conversations are opened once it is closed; nil: at once
	opening  int
	most     int
}

func startSwarm(t testing.TB, s *bustest.Server) *fakeSwarm {
	t.Helper()
	f := &fakeSwarm{posts: map[string][]contract.ChatMessage{}, detached: map[string]int{}}
	svc := serveFake(t, s.Conn("swarm"), "swarm")
	check(t, bus.Serve(svc, contract.SwarmOpen, func(ctx context.Context, r *bus.Request[contract.None]) (*contract.Conversation, error) {
		f.mu.Lock()
		hold := f.hold
		f.opening++
		f.most = max(f.most, f.opening)
		f.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.opening--
		return &contract.Conversation{Room: r.Param(1), ID: "c0ffee"}, nil
	}))
	check(t, bus.Serve(svc, contract.SwarmDetach, func(_ context.Context, r *bus.Request[contract.None]) (*contract.None, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.stuck != nil {
			return nil, f.stuck
		}
		delete(f.posts, r.Param(1))
		f.detached[r.Param(1)]++
		return &contract.None{}, nil
	}))
	check(t, bus.Serve(svc, contract.SwarmPost, func(ctx context.Context, r *bus.Request[contract.ChatPost]) (*contract.ChatMessage, error) {
		f.mu.Lock()
		f.keys = append(f.keys, r.Body.Key)
		if f.mute > 0 {
			f.mute--
			f.mu.Unlock()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		defer f.mu.Unlock()
		if f.fail != nil {
			return nil, f.fail
		}
		m := contract.ChatMessage{ID: fmt.Sprint(len(f.posts)), Room: r.Param(1), From: r.Body.From, Name: r.Body.Name, Body: r.Body.Body}
		f.posts[m.Room] = append(f.posts[m.Room], m)
		return &m, nil
	}))
	check(t, bus.Serve(svc, contract.SwarmRead, func(_ context.Context, r *bus.Request[contract.ChatQuery]) (*contract.ChatHistory, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return &contract.ChatHistory{Messages: slices.Clone(f.posts[r.Param(1)])}, nil
	}))
	return f
}

// fakeIdentity is an account with a list of bots.
type fakeIdentity struct {
	t  testing.TB
	c  *bus.Conn
	mu sync.Mutex
	contract.Account
	bots []contract.Bot
}

func startIdentity(t testing.TB, s *bustest.Server) *fakeIdentity {
	t.Helper()
	f := &fakeIdentity{t: t, c: s.Conn("identity"), Account: contract.Account{ID: bustest.Account, Alias: "The Node", Rendezvous: true}}
	svc := serveFake(t, f.c, "identity")
	check(t, bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return &contract.IdentityState{State: "ready", Account: f.Account, Accounts: []contract.Account{f.Account}}, nil
	}))
	check(t, bus.Serve(svc, contract.BotListCmd, func(context.Context, *bus.Request[contract.None]) (*contract.BotList, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return &contract.BotList{Bots: slices.Clone(f.bots)}, nil
	}))
	return f
}

func (f *fakeIdentity) setBots(b ...contract.Bot) {
	f.mu.Lock()
	f.bots = b
	f.mu.Unlock()
}

func (f *fakeIdentity) setRendezvous(on bool) {
	f.mu.Lock()
	f.Rendezvous = on
	st := &contract.IdentityState{State: "ready", Account: f.Account, Accounts: []contract.Account{f.Account}}
	f.mu.Unlock()
	check(f.t, bus.Publish(context.Background(), f.c, contract.IdentityReady, st))
}
