// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/placement"
)

const (
	trunkTime  = time.Second            // for one order
	trunkRetry = 200 * time.Millisecond // after one that failed
)

// trunks keep the workers of each room joined, as many as they are. A room says where its
// legs are, a worker by its beat how it is reached; what follows is sent to each worker whole, until it has it.
type trunks struct {
	workers *workers
	send    func(ctx context.Context, worker string, q *contract.TrunksSet) error
	log     *zap.Logger

	mu      sync.Mutex
	rooms   map[string]*joined
	version uint64 // of the last set
	wake    chan struct{}
}

// joined is a room at several workers, or one that was.
type joined struct {
	epoch   uint64
	workers []string // sorted
	links   map[string][]placement.Link
	nonces  map[[2]string]string
	known   map[string][]contract.TrunkPeer // what each worker was told last and took
	starts  map[string]int                  // of each worker: what it took before its last one is gone
	again   bool                            // something changed since the last round
	sending bool
}

func newTrunks(w *workers, log *zap.Logger, send func(context.Context, string, *contract.TrunksSet) error) *trunks {
	return &trunks{workers: w, send: send, log: log, rooms: map[string]*joined{}, wake: make(chan struct{}, 1)}
}

// want says at which workers a room is; it never waits.
func (t *trunks) want(name string, epoch uint64, at []string) {
	t.mu.Lock()
	j := t.rooms[name]
	if j == nil {
		if len(at) < 2 {
			t.mu.Unlock()
			return
		}
		j = &joined{nonces: map[[2]string]string{}, known: map[string][]contract.TrunkPeer{}, starts: map[string]int{}}
		t.rooms[name] = j
	}
	j.epoch, j.workers, j.again = epoch, at, true
	t.mu.Unlock()
	t.signal()
}

// started says that a worker was started anew or is reached in another way: it has no trunks,
// and those to it lead nowhere.
func (t *trunks) started(worker string) {
	t.mu.Lock()
	for _, j := range t.rooms {
		if slices.Contains(j.workers, worker) {
			delete(j.known, worker)
			j.starts[worker]++
			j.again = true
		}
	}
	t.mu.Unlock()
	t.signal()
}

func (t *trunks) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run joins until ctx ends.
func (t *trunks) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		t.mu.Lock()
		for name, j := range t.rooms {
			if j.again && !j.sending {
				j.again, j.sending = false, true
				wg.Go(func() { t.tell(ctx, name, j) })
			}
		}
		t.mu.Unlock()
	}
}

// tell brings the workers of a room up to date, all at once: until both ends of a trunk know of it
// nothing goes through.
func (t *trunks) tell(ctx context.Context, name string, j *joined) {
	sets, starts := t.plan(name, j)
	var wg sync.WaitGroup
	failed := make(chan struct{}, len(sets))
	for worker, q := range sets {
		wg.Go(func() {
			octx, cancel := context.WithTimeout(ctx, trunkTime)
			defer cancel()
			err := t.send(octx, worker, q)
			t.mu.Lock()
			defer t.mu.Unlock()
			switch {
			case err == nil:
				if j.starts[worker] == starts[worker] {
					j.known[worker] = q.Peers
				}
			case errors.Is(err, contract.ErrStale): // another process of conference has the room
				t.log.Warn("trunks of a room are another's", zap.String("room", name), zap.String("worker", worker))
			case t.workers.alive(worker):
				failed <- struct{}{}
				t.log.Warn("worker not joined with the others of a room; trying again", zap.String("room", name), zap.String("worker", worker), zap.Error(err))
			default: // when it beats again it is told
				delete(j.known, worker)
			}
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(trunkRetry):
		}
	}
	t.mu.Lock()
	j.sending = false
	j.again = j.again || len(failed) > 0
	again := j.again
	if !again && len(j.workers) < 2 && len(j.known) == 0 {
		delete(t.rooms, name)
	}
	t.mu.Unlock()
	if again {
		t.signal()
	}
}

// plan is what each worker of a room has to be told that does not know it, and which start of each
// that is for.
func (t *trunks) plan(name string, j *joined) (sets map[string]*contract.TrunksSet, starts map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ends := map[string]contract.TrunkPeer{}
	var there []string
	for _, w := range j.workers {
		if e, ok := t.workers.reached(w); ok {
			ends[w] = e
			there = append(there, w)
		}
	}
	if len(there) == 1 {
		there = nil
	}
	j.links = placement.Trunks(there, j.links)
	nonces := map[[2]string]string{}
	sets = map[string]*contract.TrunksSet{}
	t.version++
	for w := range maps.Keys(j.known) { // those that have no leg any more, too
		if len(j.links[w]) == 0 {
			sets[w] = &contract.TrunksSet{Room: name, Epoch: j.epoch, Version: t.version, Peers: []contract.TrunkPeer{}}
		}
	}
	for w, links := range j.links {
		q := &contract.TrunksSet{Room: name, Epoch: j.epoch, Version: t.version}
		for _, l := range links {
			p := ends[l.To]
			pair := [2]string{min(w, l.To), max(w, l.To)}
			if nonces[pair] == "" {
				if nonces[pair] = j.nonces[pair]; nonces[pair] == "" {
					nonces[pair] = rand.Text()
				}
			}
			p.Nonce, p.Leaf = nonces[pair], l.Leaf
			q.Peers = append(q.Peers, p)
		}
		if !slices.EqualFunc(q.Peers, j.known[w], samePeer) {
			sets[w] = q
		}
	}
	for w, q := range sets {
		if len(q.Peers) == 0 && !t.workers.alive(w) {
			delete(sets, w) // it has nothing to forget any more
			delete(j.known, w)
		}
	}
	j.nonces = nonces
	return sets, maps.Clone(j.starts)
}

func samePeer(a, b contract.TrunkPeer) bool {
	return a.Worker == b.Worker && a.Started == b.Started && a.Address == b.Address && a.Nonce == b.Nonce && a.Leaf == b.Leaf && bytes.Equal(a.Key, b.Key)
}

// sendTrunks tells a worker.
func (s *Service) sendTrunks(ctx context.Context, worker string, q *contract.TrunksSet) error {
	q.Term = s.term
	_, err := bus.Call(ctx, s.bus, contract.MediaTrunks, q, worker)
	return err
}

// spread tells where the room's legs are, when that has changed.
func (l *live) spread() {
	at := slices.Sorted(slices.Values(l.places.workers))
	if slices.Equal(at, l.at) {
		return
	}
	l.at = at
	l.s.trunks.want(l.name, l.r.Epoch(), at)
}

// places are the workers at which a room has members, first where the first of them came.
type places struct {
	of      map[string]string // member to worker
	count   map[string]int
	workers []string
}

// note takes where a member is now; nowhere: he has left.
func (p *places) note(id, worker string) {
	was := p.of[id]
	if was == worker {
		return
	}
	if p.of == nil {
		p.of, p.count = map[string]string{}, map[string]int{}
	}
	if worker == "" {
		delete(p.of, id)
	} else {
		p.of[id] = worker
		if p.count[worker]++; p.count[worker] == 1 {
			p.workers = append(p.workers, worker)
		}
	}
	if was == "" {
		return
	}
	if p.count[was]--; p.count[was] == 0 {
		delete(p.count, was)
		p.workers = slices.DeleteFunc(p.workers, func(w string) bool { return w == was })
	}
}
