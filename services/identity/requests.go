package identity

import (
	"cmp"
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

// request treats a trust request, or the confirmation of one of ours (§3.8).
func (b *inbox) request(ctx context.Context, v *jami.Value) (verdict, error) {
	r, err := jami.ParseTrustRequest(v.Data)
	if err != nil {
		return verdictJunk, err
	}
	if r.Service != jami.TrustService {
		return verdictJunk, errNoMessage
	}
	from, why, err := b.author(ctx, v)
	if err != nil {
		return why, err
	}
	c, known := b.s.acc.Contact(from.JamiID)
	switch {
	case from.JamiID == b.s.acc.Chain.JamiID:
		return verdictJunk, account.ErrOwnContact
	case c.Blocked(): // meanwhile
		return verdictDropped, errBlocked
	case c.Active():
		return b.confirmed(ctx, from.JamiID, c, r)
	case r.Confirm:
		return verdictDropped, account.ErrNoContact
	}
	received := b.s.now().Unix()
	if known { // it was removed, maybe in this second, and asks again
		received = max(received, c.Removed+1)
	}
	return b.ask(ctx, map[jami.ID]jami.PendingRequest{from.JamiID: {Device: v.Owner, ConversationID: r.ConversationID,
		Received: received, Payload: r.Payload}})
}

// confirmed notes that a contact wants to be one, and tells it the same where it asked.
func (b *inbox) confirmed(ctx context.Context, id jami.ID, c jami.Contact, r *jami.TrustRequest) (verdict, error) {
	// The conversation is the one that who accepts says, also where another was offered (swarm §4.1).
	conversation := ""
	if r.ConversationID != c.ConversationID && (r.Confirm || c.ConversationID == "") {
		conversation = r.ConversationID
	}
	if !c.Confirmed || conversation != "" {
		if _, err := b.s.acc.AnswerContact(id, account.Confirm, conversation, b.s.now()); errors.Is(err, account.ErrNoContact) {
			return verdictDropped, err // removed meanwhile
		} else if err != nil {
			return verdictLater, err
		}
		b.s.env.Log.Info("contact confirmed", zap.String("account", b.s.id()), zap.Stringer("contact", id))
		b.s.tellContact(ctx, id)
		b.sync.changed() // another device may have had this before it had the contact
	}
	if !r.Confirm {
		b.out.send(id, sentConfirm)
	}
	return verdictTaken, nil
}

// ask keeps requests and tells of those that are new.
func (b *inbox) ask(ctx context.Context, came map[jami.ID]jami.PendingRequest) (verdict, error) {
	news, err := b.store.AddRequests(came, b.s.now())
	full := errors.Is(err, account.ErrManyPending)
	if err != nil && !full {
		b.s.env.Log.Error("request not written; it is taken when it comes again", zap.Error(err))
		return verdictLater, err
	}
	for _, id := range news {
		b.s.metrics.requests.Inc()
		r, ok := b.store.Request(id)
		if !ok {
			continue // answered meanwhile
		}
		e := requestView(id, r)
		b.s.env.Log.Info("somebody asks to be a contact", zap.String("account", b.s.id()), zap.Stringer("from", id))
		if err := bus.Publish(ctx, b.s.conn, contract.RequestEvents, &e); err != nil {
			b.s.env.Log.Warn("request not published; it is in the list", zap.Error(err))
		}
	}
	if len(news) > 0 {
		b.sync.changed()
	}
	if full {
		b.s.env.Log.Warn("a request found no place: answer some (parley account requests)", zap.String("account", b.s.id()))
		return verdictDropped, err
	}
	return verdictTaken, nil
}

func requestView(id jami.ID, r jami.PendingRequest) contract.ContactRequest {
	return contract.ContactRequest{ID: id.String(), Name: jami.VCardName(r.Payload), Received: r.Received, Conversation: r.ConversationID}
}

// errNoInbox is for commands that need what the files of the inbox should hold.
var errNoInbox = contract.ErrStateDamaged.With("the requests of the account cannot be read: the log of identity names the file")

func (s *hosted) requestList(context.Context, *bus.Request[contract.None]) (*contract.ContactRequests, error) {
	if s.inbox == nil {
		return nil, errNoInbox
	}
	out := &contract.ContactRequests{Requests: []contract.ContactRequest{}}
	for id, r := range s.inbox.store.Requests() {
		out.Requests = append(out.Requests, requestView(id, r))
	}
	slices.SortFunc(out.Requests, func(x, y contract.ContactRequest) int {
		return cmp.Or(cmp.Compare(y.Received, x.Received), cmp.Compare(x.ID, y.ID))
	})
	return out, nil
}

func (s *hosted) requestAnswer(ctx context.Context, r *bus.Request[contract.RequestAnswer]) (*contract.Contact, error) {
	what, ok := map[string]account.Change{"accept": account.Accept, "refuse": account.Refuse, "block": account.Block}[r.Body.Answer]
	if !ok {
		return nil, contract.ErrBadRequest.With("answer is one of accept, refuse and block")
	}
	if s.inbox == nil {
		return nil, errNoInbox
	}
	id, err := jami.ParseID(r.Body.ID)
	if err != nil {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	if _, ok := s.inbox.store.Request(id); !ok {
		return nil, contract.ErrNotFound.With("%s does not ask to be a contact; parley account requests lists who does", id)
	}
	return s.changeContact(ctx, id, what)
}

// answered is the change of a contact as it is where that account asks to be one: to add
// it is to accept. The conversation that was offered goes along.
func (s *hosted) answered(id jami.ID, what account.Change) (account.Change, jami.PendingRequest, time.Time) {
	now := s.now()
	if s.inbox == nil {
		return what, jami.PendingRequest{}, now
	}
	r, ok := s.inbox.store.Request(id)
	if !ok {
		return what, r, now
	}
	if what == account.Add {
		what = account.Accept
	}
	if at := time.Unix(r.Received, 0); at.After(now) {
		now = at // a refusal has to be no earlier than what it answers
	}
	return what, r, now
}

// follow does what a changed contact asks for: the other side is told, requests that this
// answers are dropped, and the account's other devices hear of it.
func (b *inbox) follow(id jami.ID, what account.Change, c jami.Contact) {
	switch {
	case what == account.Accept:
		b.out.send(id, sentConfirm)
	case what == account.Add && !c.Confirmed:
		b.out.send(id, sentRequest)
	}
	if _, err := b.store.Settle(); err != nil {
		b.s.env.Log.Error("answered requests not written; they are left out when they are read", zap.Error(err))
	}
	b.sync.changed()
}
