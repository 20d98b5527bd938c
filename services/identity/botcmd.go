package identity

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/identity/bots"
)

// A bot's and a room's name is one token of a subject. A bot's public key is an
// nkey of a user; the bus checks its check sum.
var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	userPattern = regexp.MustCompile(`^U[A-Z2-7]{55}$`)
)

// botInbox is the inbox prefix of bots: each has a NATS account of its own.
const botInbox = "_INBOX"

func (s *Service) botCreate(ctx context.Context, r *bus.Request[contract.BotCreate]) (*contract.BotCredentials, error) {
	q := &r.Body
	if err := s.botsReady(); err != nil {
		return nil, err
	}
	if err := checkBot(q); err != nil {
		return nil, err
	}
	if err := s.lockBots(ctx); err != nil {
		return nil, err
	}
	defer s.unlockBots()
	// The list says what is about to happen before it does: whatever ends this in
	// between, the bot is shut out at the next try or start.
	b := bots.Bot{Name: q.Name, Room: q.Room, Rights: rightNames(q.Rights), UserKey: q.UserKey, Created: s.now().UTC()}
	again := s.isPending(q.Name)
	if err := s.bots.Begin(b); err != nil {
		return nil, s.botError(err)
	}
	if again { // with another key or other rights, it may be
		if err := s.shutOut(ctx, q.Name); err != nil {
			return nil, err
		}
	}
	g, err := bus.Call(ctx, s.conn, contract.BusGrantBot, &contract.BusGrant{Account: s.conn.Account(), Bot: q.Name, Room: q.Room,
		Rights: q.Rights, UserKey: q.UserKey})
	if err != nil {
		s.takeBack(ctx, q.Name, err)
		return nil, err
	}
	if err := s.bots.Done(q.Name); err != nil {
		s.takeBack(ctx, q.Name, err)
		return nil, s.botError(err)
	}
	return &contract.BotCredentials{Bot: botView(b), JWT: g.JWT, URL: g.URL, Access: g.Access, InboxPrefix: botInbox, Publish: g.Publish, Subscribe: g.Subscribe}, nil
}

// shutOut has the bus shut a bot out, known to it or not.
func (s *Service) shutOut(ctx context.Context, name string) error {
	if _, err := bus.Call(ctx, s.conn, contract.BusRevokeBot, &contract.BotName{Name: name}); err != nil && !errors.Is(err, contract.ErrNotFound) {
		return err
	}
	return nil
}

func (s *Service) isPending(name string) bool {
	b, err := s.bots.Get(name)
	return err == nil && b.Pending
}

// takeBack ends a creation that failed. Where that fails too, the bot stays pending.
func (s *Service) takeBack(ctx context.Context, name string, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bus.DefaultTimeout)
	defer cancel()
	err := s.shutOut(ctx, name)
	if err == nil {
		err = s.bots.Drop(name)
	}
	if err != nil {
		s.env.Log.Warn("a bot that was not made may be let in until the next start", zap.String("bot", name), zap.Error(why), zap.NamedError("then", err))
	}
}

// reconcile shuts out what a killed process may have let in without telling anybody.
func (s *Service) reconcile(ctx context.Context) {
	for wait := s.pause; s.botsErr == nil; wait = min(2*wait, max(retryMost, s.pause)) {
		err := s.reconcileOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.env.Log.Warn("bots that were not made may still be let in; trying again", zap.Error(err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (s *Service) reconcileOnce(ctx context.Context) error {
	if err := s.lockBots(ctx); err != nil {
		return err
	}
	defer s.unlockBots()
	for _, b := range s.bots.Pending() {
		if err := s.shutOut(ctx, b.Name); err != nil {
			return err
		}
		if err := s.bots.Drop(b.Name); err != nil {
			return err
		}
		s.env.Log.Info("a bot that was not made in full is shut out", zap.String("bot", b.Name))
	}
	return nil
}

func (s *Service) botList(context.Context, *bus.Request[contract.None]) (*contract.BotList, error) {
	if err := s.botsReady(); err != nil {
		return nil, err
	}
	list := s.bots.List()
	out := &contract.BotList{Bots: make([]contract.Bot, len(list))}
	for i, b := range list {
		out.Bots[i] = botView(b)
	}
	return out, nil
}

// botRevoke shuts the bot out first and then writes that down: repeating it after
// a failure between the two is harmless. It shuts out also who is in no list: the
// list may have been lost.
func (s *Service) botRevoke(ctx context.Context, r *bus.Request[contract.BotName]) (*contract.Bot, error) {
	name := r.Body.Name
	if !namePattern.MatchString(name) {
		return nil, contract.ErrBadRequest.With("a bot's name has 1 to 64 letters, digits, _ and -")
	}
	if err := s.lockBots(ctx); err != nil {
		return nil, err
	}
	defer s.unlockBots()
	if err := s.shutOut(ctx, name); err != nil {
		return nil, err
	}
	if err := s.botsReady(); err != nil {
		return nil, contract.ErrStateDamaged.With("the bot is shut out, which could not be noted: %v", s.botsErr)
	}
	b, err := s.bots.Revoke(name, s.now().UTC())
	switch {
	case errors.Is(err, bots.ErrNotFound):
		return nil, contract.ErrNotFound.With("there is no bot of that name in the list; had there been one on the bus, it is shut out now")
	case err != nil:
		return nil, s.botError(err)
	}
	v := botView(b)
	return &v, nil
}

// botsReady refuses while the list is damaged.
func (s *Service) botsReady() error {
	if s.botsErr != nil {
		return contract.ErrStateDamaged.With("%v", s.botsErr)
	}
	return nil
}

func checkBot(q *contract.BotCreate) error {
	switch {
	case !namePattern.MatchString(q.Name):
		return contract.ErrBadRequest.With("a bot's name has 1 to 64 letters, digits, _ and -")
	case !namePattern.MatchString(q.Room):
		return contract.ErrBadRequest.With("a room's name has 1 to 64 letters, digits, _ and -")
	case !userPattern.MatchString(q.UserKey):
		return contract.ErrBadRequest.With("user_key has to be the public nkey of a user, U…")
	case len(q.Rights) == 0:
		return contract.ErrBadRequest.With("name at least one right of %v", contract.Rights)
	}
	for i, right := range q.Rights {
		if !slices.Contains(contract.Rights, right) || slices.Contains(q.Rights[:i], right) {
			return contract.ErrBadRequest.With("right %q: each of %v at most once", right, contract.Rights)
		}
	}
	return nil
}

// lockBots lets one change of the list run at a time, the bus's part included:
// else of two that make the same name the loser would revoke the winner.
func (s *Service) lockBots(ctx context.Context) error {
	select {
	case s.botTurn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return contract.ErrBusy
	}
}

func (s *Service) unlockBots() { <-s.botTurn }

// botError says it in the words of the contract.
func (s *Service) botError(err error) error {
	switch {
	case errors.Is(err, bots.ErrExists):
		return contract.ErrExists.With("a bot of that name exists; revoke it first")
	case errors.Is(err, bots.ErrNotFound):
		return contract.ErrNotFound.With("there is no bot of that name")
	case errors.Is(err, bots.ErrFull):
		return contract.ErrFull.With("%v", err)
	}
	s.env.Log.Error("list of bots not written", zap.Error(err))
	return contract.ErrStorage.With("the list of bots could not be written: %v", err)
}

func rightNames(in []contract.Right) []string {
	out := make([]string, len(in))
	for i, r := range in {
		out[i] = string(r)
	}
	return out
}

func botView(b bots.Bot) contract.Bot {
	rights := make([]contract.Right, len(b.Rights))
	for i, r := range b.Rights {
		rights[i] = contract.Right(r)
	}
	return contract.Bot{Name: b.Name, Room: b.Room, Rights: rights, Created: b.Created, Revoked: b.Revoked}
}
