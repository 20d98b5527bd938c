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
	if err := s.bots.CanAdd(q.Name); err != nil {
		return nil, s.botError(err)
	}
	g, err := bus.Call(ctx, s.conn, contract.BusGrantBot, &contract.BusGrant{Account: s.conn.Account(), Bot: q.Name, Room: q.Room,
		Rights: q.Rights, UserKey: q.UserKey})
	if err != nil {
		return nil, err
	}
	b := bots.Bot{Name: q.Name, Room: q.Room, Rights: rightNames(q.Rights), UserKey: q.UserKey, Created: time.Now().UTC()}
	if err := s.bots.Add(b); err != nil {
		// Nobody has the JWT yet; what was granted is taken back where possible.
		if _, rerr := bus.Call(context.WithoutCancel(ctx), s.conn, contract.BusRevokeBot, &contract.BotName{Name: q.Name}); rerr != nil {
			s.env.Log.Warn("grant of a bot that was not made is still there", zap.String("bot", q.Name), zap.Error(rerr))
		}
		return nil, s.botError(err)
	}
	return &contract.BotCredentials{Bot: botView(b), JWT: g.JWT, URL: g.URL, InboxPrefix: botInbox, Publish: g.Publish, Subscribe: g.Subscribe}, nil
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
// a failure between the two is harmless.
func (s *Service) botRevoke(ctx context.Context, r *bus.Request[contract.BotName]) (*contract.Bot, error) {
	if err := s.botsReady(); err != nil {
		return nil, err
	}
	if err := s.lockBots(ctx); err != nil {
		return nil, err
	}
	defer s.unlockBots()
	if _, err := s.bots.Get(r.Body.Name); err != nil {
		return nil, s.botError(err)
	}
	if _, err := bus.Call(ctx, s.conn, contract.BusRevokeBot, &r.Body); err != nil && !errors.Is(err, contract.ErrNotFound) {
		return nil, err
	}
	b, err := s.bots.Revoke(r.Body.Name, time.Now().UTC())
	if err != nil {
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
