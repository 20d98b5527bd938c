package identity

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// swarmTime bounds what swarm is asked for a contact.
const swarmTime = 4 * time.Second

// maxNotice bounds a notice, in bytes: an invitation may bring a picture.
const maxNotice = contract.MaxMessage

// notices are the types of messages that are not for people.
var notices = []string{contract.NoticeCommit, contract.NoticeInvite, contract.NoticeAsk}

func isNotice(typ string) bool { return slices.Contains(notices, typ) }

// notice hands on what a device tells of conversations. One that is lost is told again by the next.
func (b *inbox) notice(ctx context.Context, contact bool, w *written) (verdict, error) {
	if !contact && !b.words.strangers.Allow() {
		return verdictFull, errMany
	}
	n := &contract.Notice{From: w.from.String(), Device: w.device.String(), Type: w.typ, Body: w.body}
	if err := bus.Publish(ctx, b.s.conn, contract.NoticeEvents, n, n.From); err != nil {
		return verdictLater, err
	}
	return verdictTaken, nil
}

// noticeSend sends one.
func (s *hosted) noticeSend(_ context.Context, r *bus.Request[contract.NoticeSend]) (*contract.MessageQueued, error) {
	to, err := jami.ParseID(r.Body.To)
	if err != nil || to.IsZero() || !isNotice(r.Body.Type) || r.Body.Body == "" || len(r.Body.Body) > maxNotice {
		return nil, contract.ErrBadRequest.With("a notice has a Jami Id, one of %v and 1 to %d bytes", notices, maxNotice)
	}
	if err := s.mayWrite(to); err != nil {
		return nil, err
	}
	id, err := newMessageID()
	if err != nil {
		return nil, err
	}
	if err := s.inbox.words.send(&outMessage{id: id, to: to, typ: r.Body.Type, body: r.Body.Body, quiet: true, done: map[jami.ID]bool{}}); err != nil {
		return nil, err
	}
	return &contract.MessageQueued{ID: jami.MessageID(id)}, nil
}

// commit writes a text into the conversation with a contact; nil: there is none that the contact
// has joined, or swarm does not run.
func (s *hosted) commit(ctx context.Context, to jami.ID, body string) (*contract.MessageQueued, error) {
	ctx, cancel := context.WithTimeout(ctx, swarmTime)
	defer cancel()
	p, err := bus.Call(ctx, s.conn, contract.ConversationPut, &contract.ConversationWrite{With: to.String(), Body: body})
	if errors.Is(err, contract.ErrNotFound) || errors.Is(err, contract.ErrUnavailable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	q := &contract.MessageQueued{ID: p.ID[:16], Conversation: p.Conversation, Commit: p.ID}
	st := &contract.MessageState{ID: q.ID, To: to.String(), State: contract.MessageSent}
	if err := bus.Publish(ctx, s.conn, contract.MessageStates, st, st.To); err != nil {
		s.env.Log.Warn("state of a message not published", zap.String("id", st.ID), zap.Error(err))
	}
	return q, nil
}

// postFetched tells that a device has what the account wrote into a conversation.
func (s *hosted) postFetched(ctx context.Context, r *bus.Request[contract.PostFetched]) (*contract.None, error) {
	_, err1 := jami.ParseMessageID(r.Body.ID)
	_, err2 := jami.ParseID(r.Body.To)
	_, err3 := jami.ParseLongID(r.Body.Device)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	st := &contract.MessageState{ID: r.Body.ID, To: r.Body.To, State: contract.MessageDelivered, Device: r.Body.Device}
	return &contract.None{}, bus.Publish(ctx, s.conn, contract.MessageStates, st, st.To)
}

// conversationWith has swarm make the conversation that a new contact is invited to; empty: it does not
// run, and the contact is one all the same.
func (s *hosted) conversationWith(ctx context.Context, id jami.ID, what account.Change) string {
	c, _ := s.acc.Contact(id)
	if what != account.Add || c.ConversationID != "" && c.Active() || id == s.acc.Chain.JamiID || id.IsZero() {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, swarmTime)
	defer cancel()
	conv, err := bus.Call(ctx, s.conn, contract.ConversationStart, &contract.ConversationWith{ID: id.String()})
	if err != nil {
		s.env.Log.Info("a contact without a conversation", zap.String("account", s.id()), zap.Stringer("contact", id), zap.Error(err))
		return ""
	}
	return conv.ID
}
