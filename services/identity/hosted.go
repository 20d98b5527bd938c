package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/identity/account"
)

// hosted is one of the accounts of this process.
type hosted struct {
	*Service
	acc   *account.Account
	conn  *bus.Conn          // for this account's subjects
	stop  context.CancelFunc // ends what is done in the background
	isPut atomic.Bool        // is what the account has to put into the overlay put

	contactNews contactNews
	export      export
	lookSoon    chan struct{} // has an element when the overlay is to be looked at now
	watch       *watches      // of the keys of the overlay that matter to it
	inbox       *inbox        // nil: its files cannot be used
	connections *connections
}

func (s *hosted) id() string { return s.acc.Chain.JamiID.String() }

// begin starts what is done for the account until the service ends or it is retired. The
// name of the main one is that of the node on the bus.
func (s *hosted) begin(main bool) {
	if main {
		s.Service.conn.SetAccount(s.id())
	}
	s.conn = s.Service.conn.For(s.id())
	ctx, stop := context.WithCancel(s.ctx)
	s.stop = stop
	s.lookSoon = make(chan struct{}, 1)
	s.watch = newWatches(s.conn, s.env.Log, s.leaseEvery, s.pause)
	s.wg.Go(func() { s.watch.run(ctx) })
	if s.inbox = s.openInbox(); s.inbox != nil {
		s.wg.Go(func() { s.inbox.run(ctx) })
	}
	s.connections = newConnections(s)
	s.wg.Go(func() { s.connections.run(ctx) })
	s.wg.Go(func() { s.overlay(ctx) })
	s.wg.Go(func() { s.keepContacts(ctx) })
	if s.acc.Managed().Server != "" {
		s.wg.Go(func() { s.keepManaged(ctx) })
	}
}

// view is what others may know of the account, and what the operator should.
func (s *hosted) view() contract.Account {
	v := publicView(s.acc)
	var notes []string
	note := func(text string) {
		if text != "" {
			notes = append(notes, text)
		}
	}
	note(s.archiveState())
	if err := s.acc.Dates(s.now()); err != nil {
		s.env.Log.Warn("dates of the account's certificates", zap.String("id", s.id()), zap.Error(err))
		note("peers may refuse it: " + err.Error())
	}
	if err := s.acc.Revoked(); err != nil {
		v.Ended = true
		if s.id() == s.Service.conn.Account() {
			note(err.Error())
		} else {
			why, _ := errors.AsType[*account.DamagedError](err)
			note(fmt.Sprintf("%v; parley account retire %s takes it out of use", why.Err, s.id()))
		}
	}
	v.Note = strings.Join(notes, "; ")
	return v
}

// publicView is what others may know of an account.
func publicView(a *account.Account) contract.Account {
	set := a.Settings()
	return contract.Account{ID: a.Chain.JamiID.String(), Alias: set.Alias, Rendezvous: set.Rendezvous,
		DeviceID: a.Chain.DeviceID.String(), DeviceShort: a.Chain.DeviceShort.String(), Archive: string(a.Guard()),
		Server: a.Managed().Server, Name: set.Name}
}

// accounts is how many the node has.
func (s *Service) accounts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.hosts)
}

// all are the accounts that the node has now.
func (s *Service) all() []*hosted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hosts)
}

// host returns the account with that id; nil: the node has none.
func (s *Service) host(id string) *hosted {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hosts {
		if h.id() == id {
			return h
		}
	}
	return nil
}

// of has a command done for the account that its subject names.
func of[Q, A any](s *Service, fn func(*hosted, context.Context, *bus.Request[Q]) (*A, error)) func(context.Context, *bus.Request[Q]) (*A, error) {
	return func(ctx context.Context, r *bus.Request[Q]) (*A, error) {
		h := s.host(r.Param(0))
		if h == nil {
			return nil, contract.ErrNotFound.With("the node has no account %.64q", r.Param(0))
		}
		return fn(h, ctx, r)
	}
}

// ofMain has a command done that is for the main account alone: rooms and bots have its
// name on the bus.
func ofMain[Q, A any](s *Service, fn func(context.Context, *bus.Request[Q]) (*A, error)) func(context.Context, *bus.Request[Q]) (*A, error) {
	return func(ctx context.Context, r *bus.Request[Q]) (*A, error) {
		if r.Param(0) != s.conn.Account() {
			return nil, contract.ErrNotFound.With("%.64q is not the main account of the node", r.Param(0))
		}
		return fn(ctx, r)
	}
}

// tellShutOut tells that the account's own device is shut out, if it is.
func (s *hosted) tellShutOut() {
	err := s.acc.Revoked()
	if err == nil {
		return
	}
	s.env.Log.Error("this device was revoked", zap.String("id", s.id()), zap.Error(err))
	s.changing.Lock()
	defer s.changing.Unlock()
	s.tell()
}

// shown tells of a changed account and returns it as it is. The caller holds s.changing.
func (s *hosted) shown() *contract.Account {
	s.tell()
	v := s.view()
	return &v
}
