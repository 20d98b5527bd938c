// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/conference/room"
	"github.com/parley-jami/parley/services/conference/store"
)

// drainTime bounds each step of an orderly end; host allows 4 s for all.
const drainTime = time.Second

// lookTime is how often it is looked whether a media worker is gone.
const lookTime = 200 * time.Millisecond

// Service is the conference process.
type Service struct {
	// fixed after New
	env     *host.Env
	log     *zap.Logger
	metrics *metrics
	bots    bots
	workers *workers
	orders  *orders
	drainMu sync.Mutex // held while the drained workers change
	guest   string     // under which name it stands by on another machine; empty: the node's own
	formers *orders    // that end legs which go on at another worker
	trunks  *trunks
	asking  chan struct{} // holds an element for each conversation that swarm is asked for in the background
	now     func() time.Time
	// botGrace is room.BotGrace, leaseTime leaseTTL; tests are less patient.
	botGrace, leaseTime time.Duration

	// fixed after the start of Run
	ctx         context.Context //nolint:containedctx // of what the process does in the background
	bus         *bus.Conn
	feed        *bus.Feed
	dir         *store.Dir
	drainedFile string
	page        int // rooms in a page of the list
	rooms       *actor.Registry[*live]
	term        uint64  // of the lease; 0: the rooms can be nobody else's
	copies      *copies // for other machines; nil with term 0
	svc         *bus.Service
	subs        []*bus.Subscription

	// atomic
	accounts atomic.Pointer[map[string]contract.Account] // of the node, by id
	halfOpen atomic.Int64
	confirms sync.Map // room -> *confirmCounter
	quiet    sync.Map // rooms without anybody and with nothing to do, which few ticks are for

	wg     sync.WaitGroup // what spawn began
	making sync.Mutex     // held while rooms are made or removed; before mu

	mu     sync.Mutex
	exist  map[string]error // every room; the error says why it is refused
	ending bool             // spawn begins nothing more
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	s := &Service{env: env, log: env.Log, metrics: newMetrics(env.Registry), now: time.Now, asking: make(chan struct{}, conversationsAtOnce),
		botGrace: room.BotGrace, leaseTime: leaseTTL, page: contract.RoomPage, exist: map[string]error{}}
	s.workers = newWorkers(env.Config.Media.Worker, s.now)
	s.orders = newOrders(s.log, s.metrics, s.sendOrder)
	s.formers = newOrders(s.log, s.metrics, s.sendOrder)
	s.trunks = newTrunks(s.workers, s.log, s.sendTrunks)
	return s, nil
}

// Run serves until ctx ends, then tells all rooms and leaves their state on disk.
func (s *Service) Run(ctx context.Context) (err error) {
	base, err := s.env.Dir()
	if err != nil {
		return err
	}
	if s.dir, err = store.Open(filepath.Join(base, "rooms")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.dir.Close()) }()
	if err := s.loadDrained(filepath.Join(base, "drained.json")); err != nil {
		return err
	}
	c, _, err := s.env.ConnectAccount(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	s.bus = c
	if err := s.learnAccounts(ctx); err != nil {
		return err
	}
	lease, err := s.hold(ctx)
	if err != nil {
		return err
	}
	if lease != nil {
		var stop context.CancelCauseFunc
		ctx, stop = context.WithCancelCause(ctx)
		defer stop(nil)
		defer s.release(lease)
		go func() {
			select {
			case <-lease.Lost():
				// Nothing goes out any more: neither what waits nor a farewell.
				c.NATS().Close()
				stop(errYield)
			case <-ctx.Done():
			}
		}()
		if err := s.takeOver(ctx, base, lease); err != nil {
			return err
		}
		if err := s.learnAccounts(ctx); err != nil { // since the start
			s.log.Warn("accounts not asked for; they are as they were", zap.Error(err))
		}
	}
	// What runs in the background outlives ctx until the rooms have drained.
	bg, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.ctx = bg
	defer s.endSpawned(cancel)
	if s.feed, err = bus.NewFeed(c, contract.StreamRoomEvents, s.confirmedEvent); err != nil {
		return err
	}
	defer s.feed.Stop()
	s.rooms = actor.NewRegistry(actor.Spec[*live]{Name: "room", Start: s.load, Stop: s.unload, Mailbox: mailbox, Log: s.log})
	return s.serve(ctx)
}

// serve is Run with the bus and the rooms' directory at hand.
func (s *Service) serve(ctx context.Context) error {
	defer s.closeRooms()
	if err := s.loadRooms(ctx); err != nil {
		return err
	}
	if err := s.hearMedia(); err != nil {
		return err
	}
	defer func() {
		for _, sub := range s.subs {
			sub.Stop()
		}
	}()
	s.bus.OnReconnect(s.busBack)
	if s.copies != nil {
		s.spawn(s.copies.run)
	}
	s.spawn(s.orders.run)
	s.spawn(s.formers.run)
	s.spawn(s.trunks.run)
	s.spawn(s.watchBots)
	s.spawn(s.tick)
	svc, err := bus.NewService(s.bus, "conference", s.env.Version, "rooms: who is in, what each may do, what happened")
	if err != nil {
		return err
	}
	s.svc = svc
	if err := s.handle(svc); err != nil {
		svc.Stop()
		return err
	}
	if err := s.bus.NATS().FlushTimeout(drainTime); err != nil { // the bus has the subscriptions
		s.log.Warn("bus flush", zap.Error(err))
	}
	s.env.SetReady(true)
	s.log.Info("conference is up", zap.Int("rooms", len(s.names())))
	<-ctx.Done()
	s.env.SetReady(false)
	if errors.Is(context.Cause(ctx), errYield) {
		return errYield
	}
	svc.Stop()
	if s.copies != nil { // the rooms go on at another machine
		s.handOver()
		return ctx.Err()
	}
	s.drain()
	return ctx.Err()
}

// handle serves every command of conference.
func (s *Service) handle(svc *bus.Service) error {
	return errors.Join(
		bus.Serve(svc, contract.RoomCreateCmd, s.create),
		bus.Serve(svc, contract.RoomRemoveCmd, s.remove),
		bus.Serve(svc, contract.WorkerList, s.listWorkers),
		bus.Serve(svc, contract.WorkerDrain, s.drainWorker),
		bus.Serve(svc, contract.RoomFaceCmd, s.face),
		bus.Serve(svc, contract.RoomSIPSecret, s.sipSecret),
		bus.Serve(svc, contract.RoomJoin, s.join),
		bus.Serve(svc, contract.RoomLeave, s.leave),
		bus.Serve(svc, contract.RoomPress, s.press),
		bus.Serve(svc, contract.RoomGet, s.get),
		bus.Serve(svc, contract.RoomConnections, s.connections),
		bus.Serve(svc, contract.RoomNegotiate, s.negotiate),
		bus.Serve(svc, contract.RoomConfirm, s.confirm),
		bus.Serve(svc, contract.RoomReplay, s.replay),
		bus.Serve(svc, contract.RoomLease, s.lease),
		bus.Serve(svc, contract.RoomHand, s.hand),
		bus.Serve(svc, contract.RoomMute, s.mute),
		bus.Serve(svc, contract.RoomListen, s.listen),
		bus.Serve(svc, contract.RoomChat, s.chat),
		bus.Serve(svc, contract.RoomHistory, s.history),
		bus.Serve(svc, contract.RoomKick, s.kick),
		bus.Serve(svc, contract.RoomRole, s.role),
		bus.Serve(svc, contract.RoomLock, s.lock),
		bus.Serve(svc, contract.RoomListCmd, s.list), // last: whom it answers, the others answer too
	)
}

// spawn runs fn in the background; Run waits for it.
func (s *Service) spawn(fn func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ending {
		s.wg.Go(func() { fn(s.ctx) })
	}
}

func (s *Service) endSpawned(cancel context.CancelFunc) {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	cancel()
	s.wg.Wait()
}

// learnAccounts asks identity for the node's accounts.
func (s *Service) learnAccounts(ctx context.Context) error {
	st, err := bus.Call(ctx, s.bus, contract.IdentityGet, &contract.None{})
	if err == nil && st.State == "ready" {
		s.setAccounts(st)
	}
	return err
}

// alias is the display name of a room's account.
func (s *Service) alias(account string) string {
	if a, ok := s.account(account); ok && a.Alias != "" {
		return a.Alias
	}
	return "operator"
}

// busBack goes on where the bus was lost. It is called on the bus client's
// goroutine.
func (s *Service) busBack() {
	for _, n := range s.names() {
		if s.known(n) != nil {
			continue
		}
		if err := s.rooms.Tell(n, func(_ context.Context, l *live) { l.resync() }); err != nil {
			s.log.Warn("room not told that the bus is back", zap.String("room", n), zap.Error(err))
		}
	}
	s.workers.heardAgain()
	s.workers.again(s) // what media told meanwhile was lost
	s.spawn(func(ctx context.Context) {
		if err := s.learnAccounts(ctx); err != nil {
			s.log.Warn("accounts not asked for; their settings stay as they were", zap.Error(err))
		}
	})
}

// tick wakes the rooms once a second until ctx ends.
func (s *Service) tick(ctx context.Context) {
	t, look := time.NewTicker(time.Second), time.NewTicker(lookTime)
	defer t.Stop()
	defer look.Stop()
	for count := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C: // who is at a machine that is gone hears nothing
			if gone, heir := s.workers.died(); len(gone) > 0 {
				s.log.Warn("media workers are gone; their participants go to another", zap.Strings("workers", gone), zap.String("to", heir))
				s.bury(gone, heir)
			}
			continue
		case <-t.C:
		}
		gone, heir := s.workers.dead()
		draining := s.workers.drains()
		count++
		for i, n := range s.names() {
			if s.known(n) != nil || s.isQuiet(n) && (i+count)%quietTicks != 0 {
				continue
			}
			err := s.rooms.Tell(n, func(_ context.Context, l *live) {
				now := s.now()
				for _, w := range gone {
					if heir != "" {
						l.r.Moved(now, w, heir)
					}
				}
				l.drain(now, draining)
				l.tick(now)
				l.converse()
				if l.quiet() {
					s.quiet.Store(n, nil)
				}
			})
			if err != nil {
				s.metrics.dropped.Inc()
			}
		}
	}
}

// quietTicks is how many ticks there are for one of a quiet room: thousands of them cost next to nothing.
const quietTicks = 16

func (s *Service) isQuiet(name string) bool {
	_, ok := s.quiet.Load(name)
	return ok
}

// bury has all rooms know that workers are gone.
func (s *Service) bury(gone []string, heir string) {
	for _, n := range s.names() {
		s.toRoom(n, func(l *live) {
			for _, w := range gone {
				l.r.Moved(s.now(), w, heir)
			}
		})
	}
}

// drain tells everybody that the process ends. The rosters stay on disk.
func (s *Service) drain() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), drainTime)
	defer cancel()
	for _, n := range s.names() {
		if s.known(n) != nil {
			continue
		}
		_, err := askDurable(ctx, s, n, func(l *live) (bool, error) {
			l.asking = false // no answer is waited for any more
			l.r.Close(s.now(), "", room.ReasonShutdown)
			return true, nil
		})
		if err != nil {
			s.log.Warn("room not closed in order", zap.String("room", n), zap.Error(err))
		}
	}
	s.orders.drain(ctx)
	s.formers.drain(ctx)
}

// closeRooms ends the actors.
func (s *Service) closeRooms() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := s.rooms.Close(ctx); err != nil {
		s.log.Warn("rooms did not end in time", zap.Error(fmt.Errorf("close: %w", err)))
	}
}
