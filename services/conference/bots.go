// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// botsEvery is how often identity is asked for its bots: a revoked one has lost
// the bus at once and leaves the roster this much later at most.
const botsEvery = 2 * time.Second

// bots is what identity says of its bots. What a bot sends has passed the bus's
// permissions already; the list tells a bot that says it was a browser from
// one, and gives moderators their role.
type bots struct {
	mu    sync.Mutex
	heard bool
	by    map[string]contract.Bot
}

// get returns a bot that may be in a room now.
func (b *bots) get(name, roomName string) (contract.Bot, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x, ok := b.by[name]
	return x, ok && x.Room == roomName && x.Revoked == nil
}

// known reports whether identity has ever answered.
func (b *bots) known() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard
}

// set takes a new list and returns the bots that were revoked or are gone since
// the last one.
func (b *bots) set(list []contract.Bot) (gone []contract.Bot) {
	by := make(map[string]contract.Bot, len(list))
	for _, x := range list {
		by[x.Name] = x
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, old := range b.by {
		if now, ok := by[name]; old.Revoked == nil && (!ok || now.Revoked != nil) {
			gone = append(gone, old)
		}
	}
	if !b.heard { // revoked while this process was away
		for _, x := range list {
			if x.Revoked != nil {
				gone = append(gone, x)
			}
		}
	}
	b.by, b.heard = by, true
	return gone
}

// refreshBots asks identity once.
func (s *Service) refreshBots(ctx context.Context) error {
	list, err := bus.Call(ctx, s.bus, contract.BotListCmd, &contract.None{})
	if err != nil {
		return err
	}
	for _, b := range s.bots.set(list.Bots) {
		s.toRoom(b.Room, func(l *live) {
			if m, ok := l.r.Member(b.Name); ok && m.Kind == room.Bot {
				l.r.Leave(s.now(), b.Name, room.ReasonRevoked)
			}
		})
	}
	return nil
}

// watchBots asks identity now and then until ctx ends.
func (s *Service) watchBots(ctx context.Context) {
	t := time.NewTicker(botsEvery)
	defer t.Stop()
	for failed := false; ; {
		tctx, cancel := context.WithTimeout(ctx, botsEvery)
		err := s.refreshBots(tctx)
		cancel()
		if err != nil && !failed && ctx.Err() == nil {
			s.log.Debug("identity's list of bots is not to be had; the last one counts", zap.Error(err))
		}
		failed = err != nil
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// connected tells the rooms with bots which of them have a connection.
func (s *Service) connected(e *contract.Connected) {
	names := make(map[string]bool, len(e.Names))
	for _, n := range e.Names {
		names[n] = true
	}
	for _, n := range s.names() {
		if s.isQuiet(n) {
			continue
		}
		s.toRoom(n, func(l *live) {
			l.r.Connections(s.now(), e.Life, func(id string) bool { return names[id] }, s.botGrace)
		})
	}
}

// caller says what the sender of a command may do. natsOnly names commands
// that the bus lets through only from bots with the right to moderate: for these a
// bot in the roster is believed while identity has not been heard.
func (s *Service) caller(l *live, id string, natsOnly bool) room.Caller {
	c := room.Caller{ID: id, Operator: id == contract.Operator}
	if b, ok := s.bots.get(id, l.name); ok {
		c.Trusted = slices.Contains(b.Rights, contract.RightModerate)
	} else if natsOnly && !s.bots.known() {
		m, in := l.r.Member(id)
		c.Trusted = in && m.Kind == room.Bot
	}
	return c
}
