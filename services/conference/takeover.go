// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/keyfile"
	"github.com/parley-jami/parley/services/conference/room"
)

// leaseKey is the lease of all rooms: who holds it is the only conference that serves.
const leaseKey = "conference.rooms"

// leaseTTL is how long the rooms stay with a machine that is gone. The servers of the bus take 4 to 9 s to
// have a leader again when that one is gone, and when one that was cut off is back: who holds the rooms need not
// yield for it.
const leaseTTL = 15 * time.Second

// leaseTry is how often it is looked whether the lease is free.
const leaseTry = 250 * time.Millisecond

// helloTime bounds asking the node whether one may stand by.
const helloTime = 2 * time.Second

// errYield ends a conference whose lease is another's, or may be. Its process is started again and waits.
var errYield = errors.New("the lease of the rooms was lost; another machine may have them")

// shared reports whether conference may run on several machines, and under which name this one takes the lease.
func (s *Service) shared() (owner string, ok bool) {
	if s.guest != "" {
		return "standby-" + s.guest, true
	}
	return "node", s.env.Config.LeasedRooms()
}

// hold waits until the rooms are this process's; nil: they are nobody else's anyway.
func (s *Service) hold(ctx context.Context) (*actor.Lease, error) {
	var err error
	if s.guest, err = s.env.Guest(); err != nil {
		return nil, err
	}
	owner, ok := s.shared()
	if !ok {
		return nil, nil
	}
	if err := s.wanted(ctx); err != nil {
		return nil, err
	}
	spec := actor.LeaseSpec{Owner: owner, Instance: rand.Text(), TTL: s.leaseTime, Loss: actor.YieldOnLoss, Log: s.log}
	kv, said := s.bus.KV(contract.BucketLeases), ""
	began := time.Now()
	for {
		l, err := actor.Acquire(ctx, kv, leaseKey, spec)
		if err == nil {
			s.log.Info("the rooms are held here", zap.String("as", owner), zap.Uint64("term", l.Epoch()), zap.Duration("waited", time.Since(began)))
			return l, nil
		}
		if e, ok := errors.AsType[*contract.Error](err); !ok || e.Message != said {
			if ok {
				said = e.Message
			}
			s.log.Info("the rooms are not held here; standing by", zap.Error(err))
		}
		s.env.SetReady(errors.Is(err, contract.ErrExists)) // somebody serves
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(leaseTry):
		}
	}
}

// wanted asks the node whether its rooms may be stood by for: its own conference may hold no lease, and
// would go on beside this one. A node that is gone is not waited for.
func (s *Service) wanted(ctx context.Context) error {
	if s.guest == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	_, err := bus.Call(ctx, s.bus, contract.BusWorkerHello, &contract.WorkerHello{Version: s.env.Version, Contract: contract.Version}, s.guest)
	if errors.Is(err, contract.ErrForbidden) || errors.Is(err, contract.ErrVersion) {
		return err
	}
	return nil
}

// handOver lets what is under way end, and leaves the rooms as they are.
func (s *Service) handOver() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), drainTime)
	defer cancel()
	s.orders.drain(ctx)
	s.formers.drain(ctx)
	for _, n := range s.names() {
		s.copies.settle(ctx, n)
	}
}

// release ends the lease, so that another machine need not wait for its end.
func (s *Service) release(l *actor.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := l.Release(ctx); err != nil {
		s.log.Warn("lease of the rooms not given back; another machine waits for its end", zap.Error(err))
	}
}

// takeOver gets the rooms as who held them last left them.
func (s *Service) takeOver(ctx context.Context, base string, l *actor.Lease) error {
	if l == nil {
		return nil
	}
	s.term = l.Epoch()
	key, err := keyfile.Load(host.RoomsKey(s.env.Config), host.RoomsKeySize)
	if err != nil {
		return fmt.Errorf("key of the rooms' copies: %w", err)
	}
	if s.copies, err = newCopies(s.bus.KV(contract.BucketRooms), key, s.term, s.log); err != nil {
		return err
	}
	s.copies.take = s.copyOf
	termFile := filepath.Join(base, "term")
	own, err := lastTerm(termFile)
	if err != nil {
		return err
	}
	names, err := s.copies.kv.Keys(ctx)
	if err != nil {
		return fmt.Errorf("copies of rooms: %w", err)
	}
	n := 0
	for _, name := range names {
		r, revision, err := s.copies.read(ctx, name)
		if err != nil {
			return err
		}
		s.copies.stateLocked(name).revision = revision // nothing else runs yet
		if r == nil || r.Term == own {
			continue // what is on this disk is as new, or newer
		}
		if err := s.adopt(name, r); err != nil {
			return err
		}
		n++
	}
	if n > 0 {
		s.log.Info("rooms taken over", zap.Int("rooms", n))
	}
	if err := atomicfile.Write(termFile, []byte(strconv.FormatUint(s.term, 10)), 0o600); err != nil {
		return fmt.Errorf("term: %w", err)
	}
	return nil
}

// adopt puts a copy in the place of the room's files.
func (s *Service) adopt(name string, r *copied) error {
	if r.Settings == nil {
		return s.dir.Remove(name)
	}
	recs := make([][]byte, len(r.Records))
	for i := range r.Records {
		recs[i] = r.Records[i]
	}
	return s.dir.Adopt(*r.Settings, recs)
}

// lastTerm is in which term the files of this machine were written; 0: in none.
func lastTerm(path string) (uint64, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	var n uint64
	if err == nil {
		n, err = strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w; remove it: the rooms are then taken from their copies", path, err)
	}
	return n, nil
}

// copyOf is a room as it is now.
func (s *Service) copyOf(ctx context.Context, name string) (*copied, error) {
	r, err := ask(ctx, s, name, func(l *live) (*copied, error) {
		set := l.r.Settings()
		snap := l.r.Snapshot()
		b, err := json.Marshal(record{Snapshot: &snap})
		return &copied{Settings: &set, Records: []json.RawMessage{b}}, err
	})
	if errors.Is(err, contract.ErrNotFound) {
		return new(copied), nil // removed
	}
	return r, err
}

// epochOf is the first epoch of a room's actor in this term: higher than any of a former one.
func (s *Service) epochOf(r *room.Room) {
	if s.term > 0 {
		r.SetEpoch(s.term << termShift)
	}
}

// termShift leaves room for the actor to be started anew within a term, and an epoch below 2^53.
const termShift = 12
