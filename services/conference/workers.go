// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/placement"
	"github.com/parley-jami/parley/services/conference/room"
)

// What a worker says of itself is not believed without bounds: it may be broken, or somebody else's.
const (
	// maxKnown bounds the workers that are remembered.
	maxKnown = 1024
	// maxStarts is how often a worker may be started anew at once, and one time more each startsEvery: at
	// each start all its legs are compared and its trunks are made again.
	maxStarts   = 8
	startsEvery = 5 * time.Second
	// refusedFor and silentFor are how long a worker that refused a leg, or did not answer, gets those
	// alone that nobody else takes.
	refusedFor = 2 * time.Second
	silentFor  = 30 * time.Second
)

const (
	// compareEvery mends what a lost event left behind.
	compareEvery = 30 * time.Second
	compareRetry = 250 * time.Millisecond
	compareTries = 40
)

// anyEpoch closes legs of rooms that are no more, whose epochs nobody knows.
const anyEpoch = math.MaxUint64

// workers knows the media workers by their beats.
type workers struct {
	home string // the worker of this node: tried when no beat has come yet
	now  func() time.Time

	mu      sync.Mutex
	by      map[string]*worker
	drained map[string]bool // by the operator
}

type worker struct {
	placement.Worker
	expected  time.Time // since when it may be there without having beaten
	started   string
	starts    float64            // changes of started, of which one is forgotten each startsEvery
	startedAt time.Time          // of the last one
	shyUntil  time.Time          // it refused, or did not answer
	trunk     contract.TrunkPeer // how others reach it
	last      contract.WorkerBeat
	mourned   bool // that it is silent was acted upon
	comparing bool
	repeat    bool // compare again when that is done
	compared  time.Time
}

// alive reports whether the worker beats.
func (x *worker) alive(now time.Time) bool { return now.Sub(x.Seen) <= placement.Alive }

// gone reports whether the worker has been silent for too long, from when it could be heard.
func (x *worker) gone(now time.Time) bool {
	return !x.alive(now) && now.Sub(x.expected) > placement.Alive
}

// other reports whether the worker speaks another version of the contract: it would misunderstand.
func (x *worker) other() bool { return cmp.Or(x.last.Contract, 1) != contract.Version }

func newWorkers(home string, now func() time.Time) *workers {
	return &workers{home: home, now: now, by: map[string]*worker{}, drained: map[string]bool{}}
}

// beat notes a beat and reports whether the worker's legs have to be compared: it
// is new, was started anew, was silent, or the last comparison is old.
// joins says that trunks to it have to be made anew.
func (w *workers) beat(b *contract.WorkerBeat) (due, joins bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	x := w.by[b.Worker]
	if x == nil {
		if !w.roomLocked(now) {
			return false, false
		}
		x = new(worker)
		w.by[b.Worker] = x
	}
	if x.started != b.Started {
		x.starts = max(0, x.starts-float64(now.Sub(x.startedAt))/float64(startsEvery))
		x.startedAt = now
		if x.starts >= maxStarts {
			return false, false // and after a while it counts as dead
		}
		x.starts++
	}
	due = x.started != b.Started || !x.alive(now) || now.Sub(x.compared) > compareEvery
	end := contract.TrunkPeer{Worker: b.Worker, Started: b.Started, Key: b.TrunkKey, Address: b.TrunkAddress}
	joins = !samePeer(end, x.trunk) || !x.alive(now)
	x.Worker = placement.Worker{Name: b.Worker, Legs: max(0, b.Legs), MaxLegs: max(0, b.MaxLegs), CPU: max(0, b.CPU), Late: b.Late, Near: nearTo(b.Near), Seen: now}
	x.started, x.trunk, x.last, x.mourned = b.Started, end, *b, false
	return due, joins
}

// expect says that the workers may be there, though nothing is known of them yet: who does not beat from now on
// is gone.
func (w *workers) expect(names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		if now := w.now(); w.by[name] == nil && w.roomLocked(now) {
			w.by[name] = newWorker(name, now)
		}
	}
}

func newWorker(name string, now time.Time) *worker {
	return &worker{Worker: placement.Worker{Name: name}, expected: now}
}

// heardAgain says that beats could not be heard until now: that one is silent says nothing yet.
func (w *workers) heardAgain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.by {
		if !x.mourned {
			x.expected = w.now()
		}
	}
}

// maxNear bounds the networks of one worker.
const maxNear = 64

// nearTo takes what a beat says; what is no prefix is left out.
func nearTo(said []string) (out []netip.Prefix) {
	for _, s := range said[:min(len(said), maxNear)] {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// roomLocked reports whether one more worker can be remembered; one that fell silent may have to go for it.
func (w *workers) roomLocked(now time.Time) bool {
	if len(w.by) < maxKnown {
		return true
	}
	for name, x := range w.by {
		if !x.comparing && x.gone(now.Add(-time.Minute)) {
			delete(w.by, name)
			return true
		}
	}
	return false
}

// listWorkers serves worker.list.
func (s *Service) listWorkers(ctx context.Context, _ *bus.Request[contract.None]) (*contract.Workers, error) {
	rooms := map[string][]string{}
	for _, n := range s.names() {
		at, err := ask(ctx, s, n, func(l *live) ([]string, error) { return slices.Clone(l.places.workers), nil })
		if err != nil {
			continue // a room that cannot be asked is refused by other commands, with the reason
		}
		for _, w := range at {
			rooms[w] = append(rooms[w], n)
		}
	}
	out := &contract.Workers{Workers: []contract.Worker{}, Rooms: s.guest}
	s.workers.mu.Lock()
	defer s.workers.mu.Unlock()
	for name, x := range s.workers.by {
		if x.last.Worker == "" {
			continue // never heard of
		}
		out.Workers = append(out.Workers, contract.Worker{WorkerBeat: x.last, Alive: x.alive(s.now()), Drain: s.workers.drained[name], Other: x.other(), Rooms: append([]string{}, rooms[name]...)})
	}
	slices.SortFunc(out.Workers, func(a, b contract.Worker) int { return strings.Compare(a.Worker, b.Worker) })
	return out, nil
}

// alive reports whether a worker beats.
func (w *workers) alive(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.by[name]
	return x != nil && x.alive(w.now())
}

// choose returns the worker for a leg of a room that is at the given ones. Before any
// beat it is the node's own: a join right after the start need not wait a second. Those that were asked and
// took nobody are not chosen.
func (w *workers) choose(from netip.Addr, at []string, asked ...string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := 0
	list := make([]placement.Worker, 0, len(w.by))
	alive := 0
	for name, x := range w.by {
		if w.drained[name] || x.other() {
			continue
		}
		if x.alive(w.now()) {
			alive++
			if x.Late {
				late++
			}
		}
		if slices.Contains(asked, name) {
			continue
		}
		x.Shy = w.now().Before(x.shyUntil)
		list = append(list, x.Worker)
	}
	got := placement.Choose(w.now(), list, from, at...)
	switch {
	case got != "":
		w.by[got].Legs++ // before the next beat tells of it
		return got, nil
	case alive > 0 && late > 0:
		return "", contract.ErrBusy.With("none of the %d media workers takes anybody: %d cannot keep their time, the others have as many legs as they may (media.max_legs); try again later, or add a worker (parley join)", alive, late)
	case alive > 0:
		return "", contract.ErrBusy.With("each of the %d media workers has as many legs as it may (media.max_legs); add a worker (parley join)", alive)
	case w.drained[w.home]:
		return "", contract.ErrBusy.With("the media workers that are left take nobody (worker drain)")
	case len(at) > 0:
		return at[0], nil
	}
	return w.home, nil
}

// reached is how other workers reach one; false: it is not there, or has not told.
func (w *workers) reached(name string) (contract.TrunkPeer, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.by[name]
	if x == nil || x.trunk.Address == "" || !x.alive(w.now()) {
		return contract.TrunkPeer{}, false
	}
	return x.trunk, true
}

// refused notes that a worker took no leg, or did not answer: for a while others are better.
func (w *workers) refused(name string, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.by[name]
	if x == nil {
		return
	}
	x.shyUntil = w.now().Add(refusedFor)
	if !errors.Is(why, contract.ErrBusy) {
		x.shyUntil = w.now().Add(silentFor)
	}
}

// left notes that a worker ends in order: until it beats again it is as if it had been silent for long.
func (w *workers) left(name string) {
	w.mu.Lock()
	if x := w.by[name]; x != nil {
		x.Seen, x.expected = time.Time{}, time.Time{}
	}
	w.mu.Unlock()
}

// died returns the workers that have fallen silent since it was asked last, and who takes over; none
// while nobody can.
func (w *workers) died() (gone []string, heir string) {
	all, heir := w.dead()
	if heir == "" {
		return nil, ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range all {
		if x := w.by[name]; !x.mourned {
			x.mourned = true
			gone = append(gone, name)
		}
	}
	return gone, heir
}

// dead returns the workers that are silent, and who takes over; "" when nobody can.
func (w *workers) dead() (gone []string, heir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	list := make([]placement.Worker, 0, len(w.by))
	for name, x := range w.by {
		if x.gone(now) {
			gone = append(gone, name)
		}
		if !w.drained[name] && !x.other() {
			list = append(list, x.Worker)
		}
	}
	return gone, placement.Choose(now, list, netip.Addr{})
}

// begin says that a comparison with a worker may begin; one at a time.
func (w *workers) begin(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.by[name]
	if x == nil {
		x = newWorker(name, w.now())
		w.by[name] = x
	}
	if x.comparing {
		x.repeat = true
		return false
	}
	x.comparing, x.repeat = true, false
	return true
}

// end ends it and reports whether another one was asked for meanwhile.
func (w *workers) end(name string, ok bool) (repeat bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.by[name]
	x.comparing = false
	if ok {
		x.compared = w.now()
	}
	return x.repeat
}

// again has all workers compared: a room was loaded.
func (w *workers) again(s *Service) {
	w.mu.Lock()
	names := []string{w.home}
	for n := range w.by {
		if n != w.home {
			names = append(names, n)
		}
	}
	w.mu.Unlock()
	for _, n := range names {
		s.compare(n)
	}
}

// compare asks a worker for its legs and gives each room its own, in the
// background.
func (s *Service) compare(name string) {
	if !s.workers.begin(name) {
		return
	}
	s.spawn(func(ctx context.Context) {
		for {
			ok := s.compareTry(ctx, name)
			if !s.workers.end(name, ok) || ctx.Err() != nil || !s.workers.begin(name) {
				return
			}
		}
	})
}

// compareTry tries until the worker answers, for some seconds: it may be
// starting.
func (s *Service) compareTry(ctx context.Context, name string) bool {
	for range compareTries {
		asked := s.now()
		legs, err := s.legsOf(ctx, name, contract.MediaQuery{})
		if err == nil {
			s.compared(name, asked, legs)
			return true
		}
		select {
		case <-time.After(compareRetry):
		case <-ctx.Done():
			return false
		}
	}
	s.log.Warn("media worker does not answer", zap.String("worker", name))
	return false
}

// legsOf asks a worker for legs, page by page.
func (s *Service) legsOf(ctx context.Context, name string, q contract.MediaQuery) ([]contract.LegInfo, error) {
	var all []contract.LegInfo
	started := ""
	q.Term = s.term // from now on the worker takes no order of who had the rooms before
	for {
		page, err := bus.Call(ctx, s.bus, contract.MediaInfo, &q, name)
		if err != nil {
			return nil, err
		}
		if started != "" && page.Started != started {
			return nil, contract.ErrUnavailable.With("the media worker was started anew meanwhile")
		}
		started, all = page.Started, append(all, page.Legs...)
		if !page.More || len(page.Legs) == 0 {
			return all, nil
		}
		q.After = page.Legs[len(page.Legs)-1].Leg
	}
}

func (s *Service) compared(name string, asked time.Time, legs []contract.LegInfo) {
	by := map[string][]room.Leg{}
	for _, n := range s.names() {
		by[n] = nil // rooms without a leg are told so
	}
	for i := range legs {
		l := &legs[i]
		if _, ok := by[l.Room]; !ok {
			s.orders.put(l.Room, anyEpoch, room.Order{Verb: room.LegClose, Leg: l.Leg, Worker: name, Reason: room.ReasonRemoved})
			continue
		}
		by[l.Room] = append(by[l.Room], leg(l))
	}
	for n, legs := range by {
		if s.known(n) != nil {
			continue // damaged: its legs go on, for what is refused is only the file
		}
		err := s.rooms.Tell(n, func(_ context.Context, l *live) {
			l.r.Reconcile(s.now(), asked, name, legs, l.orderly)
			l.commitSoft()
		})
		if err != nil {
			s.log.Warn("room not compared with its legs", zap.String("room", n), zap.Error(err))
		}
	}
}
