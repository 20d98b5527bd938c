// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// maxChat is the size of a message in bytes.
const maxChat = 8192

// Each who writes has a bucket of chatBurst messages that fills by chatRate a second.
const (
	chatBurst = 20
	chatRate  = 5
)

// bucket is what one writer has left.
type bucket struct {
	left float64
	at   time.Time
}

// mayWrite takes one message of id's bucket.
func (l *live) mayWrite(now time.Time, id string) error {
	b, ok := l.chats[id]
	if !ok {
		b = &bucket{left: chatBurst, at: now}
		l.chats[id] = b
	}
	b.left = min(b.left+max(now.Sub(b.at), 0).Seconds()*chatRate, chatBurst)
	b.at = now
	if b.left < 1 {
		return contract.ErrSlowDown.With("at most %d messages at once and then %d a second; wait a little", chatBurst, chatRate)
	}
	b.left--
	return nil
}

// forgetWriters drops the buckets that are full again.
func (l *live) forgetWriters(now time.Time) {
	for id, b := range l.chats {
		if b.left+now.Sub(b.at).Seconds()*chatRate >= chatBurst {
			delete(l.chats, id)
		}
	}
}

// chat has swarm commit a message; then the room is told.
func (s *Service) chat(ctx context.Context, r *bus.Request[contract.ChatPost]) (*contract.ChatMessage, error) {
	q, name, id := r.Body, r.Param(1), r.Param(2)
	if q.Body == "" || len(q.Body) > maxChat || !utf8.ValidString(q.Body) {
		return nil, contract.ErrBadRequest.With("a message has 1 to %d bytes of UTF-8", maxChat)
	}
	if q.Key = cmp.Or(q.Key, r.Key); q.Key == "" {
		q.Key = rand.Text()
	}
	q.From = id
	w, err := ask(ctx, s, name, func(l *live) (writer, error) {
		n, err := s.chatName(l, id)
		if err == nil {
			err = l.mayWrite(s.now(), id)
		}
		return writer{n, l.r.Settings().Account, l.chatReady()}, err
	})
	if err != nil {
		return nil, err
	}
	if w.ready != nil {
		if err := s.awaitChat(ctx, name, w.ready); err != nil {
			return nil, err
		}
	}
	q.Name = w.name
	// The key goes in the body alone, where swarm tells senders apart; as the
	// command's own key it would be one for all who write in the room.
	m, err := s.post(ctx, name, w.account, &q)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	// It is committed: the answer is yes whatever becomes of the event.
	s.toRoom(name, func(l *live) { l.r.Said(s.now(), id, body) })
	return m, nil
}

// How long swarm has to commit a message before it is asked again, and the pause
// while it is not there at all: one that dies with a message in hand is back sooner
// than a caller gives up.
const (
	postTry   = 1500 * time.Millisecond
	postPause = 100 * time.Millisecond
)

// post has swarm commit a message. It asks until the caller's time ends; the
// message's key lets that have one effect.
func (s *Service) post(ctx context.Context, name, account string, q *contract.ChatPost) (*contract.ChatMessage, error) {
	for {
		try, cancel := context.WithTimeout(ctx, postTry)
		m, err := bus.Call(try, s.as(account), contract.SwarmPost, q, name)
		cancel()
		if !errors.Is(err, contract.ErrUnavailable) && !errors.Is(err, contract.ErrTimeout) {
			return m, err
		}
		select {
		case <-time.After(postPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// as is the bus as used for a room's account.
func (s *Service) as(account string) *bus.Conn {
	if account == "" {
		return s.bus
	}
	return s.bus.For(account)
}

// writer is who writes, and what he has to wait for; nil: nothing.
type writer struct {
	name    string
	account string // of the room
	ready   <-chan struct{}
}

// chatName is the name under which somebody writes. A bot may write without
// having joined.
func (s *Service) chatName(l *live, id string) (string, error) {
	if m, ok := l.r.Member(id); ok {
		return m.Name, nil
	}
	if id == contract.Operator {
		return s.alias(l.r.Settings().Account), nil
	}
	if _, ok := s.bots.get(id, l.name); ok {
		return id, nil
	}
	return "", contract.ErrForbidden.With("you are not in the room; join")
}

// chatReady returns nil when the room's chat is its own, else what is closed when the
// one of an earlier room has been put aside, or could not be.
func (l *live) chatReady() <-chan struct{} {
	if !l.r.Settings().NewChat {
		return nil
	}
	l.converse()
	return l.conversed
}

// awaitChat waits until the chat of a new room is its own.
func (s *Service) awaitChat(ctx context.Context, name string, ready <-chan struct{}) error {
	select {
	case <-ready:
	case <-ctx.Done():
	}
	old, err := ask(ctx, s, name, func(l *live) (bool, error) { return l.r.Settings().NewChat, nil })
	if err == nil && old {
		err = contract.ErrUnavailable.With("the chat of room %s is being made; try again", name)
	}
	return err
}

func (s *Service) history(ctx context.Context, r *bus.Request[contract.ChatQuery]) (*contract.ChatHistory, error) {
	if r.Body.Limit < 0 || r.Body.Limit > 200 {
		return nil, contract.ErrBadRequest.With("limit is 1 to 200")
	}
	name := r.Param(1)
	old, err := ask(ctx, s, name, func(l *live) (bool, error) { return l.r.Settings().NewChat, nil })
	if err != nil {
		return nil, err
	}
	if old { // swarm still has what was said in an earlier room of this name
		return &contract.ChatHistory{Messages: []contract.ChatMessage{}}, nil
	}
	return bus.Call(ctx, s.bus, contract.SwarmRead, &r.Body, name)
}

// converse learns the id of the room's conversation, in the background: nobody
// waits for it. Before, what an earlier room of this name said is put aside; until
// that is on the disk nobody writes, so doing it once more after a kill is harmless.
func (l *live) converse() {
	set := l.r.Settings()
	if set.Conversation != "" || l.conversing {
		return
	}
	l.conversing, l.conversed = true, make(chan struct{})
	s, name := l.s, l.name
	s.spawn(func(ctx context.Context) {
		id, err := s.conversation(ctx, name, set)
		terr := s.rooms.Tell(name, func(_ context.Context, l *live) {
			l.conversing = false
			defer close(l.conversed)
			if err != nil || id == "" || l.removed {
				return // the next tick asks again
			}
			set := l.r.Settings()
			set.Conversation, set.NewChat = id, false
			if err := s.dir.Save(set); err != nil {
				l.log.Warn("conversation not noted", zap.Error(err))
				if l.r.Settings().NewChat {
					return
				}
			}
			l.r.SetConversation(id)
			s.copies.changed(name)
		})
		if terr != nil {
			s.log.Debug("conversation not noted", zap.String("room", name), zap.Error(terr))
		}
	})
}

// conversationsAtOnce bounds those that swarm is asked for at once: each new one is a signature of identity, and
// of thousands at once none would be answered in time.
const conversationsAtOnce = 8

// conversation asks swarm for a room's conversation; for a new room without what was said
// in an earlier one of that name.
func (s *Service) conversation(ctx context.Context, name string, set room.Settings) (string, error) {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if set.NewChat {
		if _, err := bus.Call(ctx, s.bus, contract.SwarmDetach, &contract.None{}, name); err != nil {
			return "", err
		}
	}
	conv, err := bus.Call(ctx, s.as(set.Account), contract.SwarmOpen, &contract.None{}, name)
	if err != nil {
		return "", err
	}
	return conv.ID, nil
}
