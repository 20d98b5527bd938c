package identity

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// The archive gets changed contacts so long after a write of it, or four times as long
// as that took, whatever is more: a flood of changes does not keep it busy.
const archiveRest = 2 * time.Second

// contactNews numbers the changes of contacts. The zero value is ready.
type contactNews struct {
	mu       sync.Mutex
	revision uint64
}

// lastLocked is the revision of the last change that was told. It begins with the time,
// in µs, so that the numbers of a process go on above those of the one before.
func (n *contactNews) lastLocked() uint64 {
	if n.revision == 0 {
		n.revision = uint64(time.Now().UnixMicro())
	}
	return n.revision
}

// tellContact publishes how a contact is now; the zero id has readers read the list
// again. Of two that change one at once the last to tell tells what is on disk.
func (s *hosted) tellContact(ctx context.Context, id jami.ID) {
	s.contactNews.mu.Lock()
	defer s.contactNews.mu.Unlock()
	s.contactNews.revision = s.contactNews.lastLocked() + 1
	e := &contract.ContactChanged{Revision: s.contactNews.revision}
	if !id.IsZero() {
		c, _ := s.acc.Contact(id)
		e.Contact = contactView(id, c)
	}
	if err := bus.Publish(ctx, s.conn, contract.ContactEvents, e); err != nil { // it does not wait
		s.env.Log.Warn("change of a contact not published; the next one shows the gap", zap.Error(err))
	}
}

// keepContacts has readers of the contacts read them at a start and when the bus is back,
// and brings changes into the archive, until ctx ends.
func (s *hosted) keepContacts(ctx context.Context) {
	again := func() {
		if ctx.Err() == nil {
			s.tellContact(ctx, jami.ID{})
		}
	}
	defer s.conn.OnReconnect(again)()
	again()
	wait := s.pause
	for {
		start := s.now()
		err := s.acc.ArchiveContacts()
		rest := max(archiveRest, 4*s.now().Sub(start))
		if err != nil {
			s.env.Log.Error("contacts not written into the archive; trying again", zap.Error(err), zap.Duration("in", wait))
			rest, wait = wait, min(2*wait, retryMost)
		} else {
			wait = s.pause
		}
		select {
		case <-ctx.Done():
		case <-time.After(rest):
		}
		select {
		case <-s.acc.ContactsChanged():
		case <-ctx.Done():
			select {
			case <-s.acc.ContactsChanged(): // once more
				if err := s.acc.ArchiveContacts(); err != nil {
					s.env.Log.Error("contacts not written into the archive; the next start does", zap.Error(err))
				}
			default:
			}
			return
		}
	}
}

func (s *hosted) contactList(_ context.Context, r *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
	limit := r.Body.Limit
	if limit < 0 || limit > contract.ContactPage {
		return nil, contract.ErrBadRequest.With("a page has 1 to %d contacts", contract.ContactPage)
	} else if limit == 0 {
		limit = contract.ContactPage
	}
	var after jami.ID
	if r.Body.After != "" {
		var err error
		if after, err = jami.ParseID(r.Body.After); err != nil {
			return nil, contract.ErrBadRequest.With("after is a Jami Id, 40 hex digits")
		}
	}
	s.contactNews.mu.Lock()
	revision := s.contactNews.lastLocked() // before the list: what is told later may be in it
	s.contactNews.mu.Unlock()
	ids, list, more, total := s.acc.ContactPage(after, limit, r.Body.Banned)
	out := &contract.Contacts{Contacts: make([]contract.Contact, len(ids)), Total: total, Revision: revision}
	for i, id := range ids {
		out.Contacts[i] = contactView(id, list[i])
	}
	if more {
		out.Next = ids[len(ids)-1].String()
	}
	return out, nil
}

func contactView(id jami.ID, c jami.Contact) contract.Contact {
	return contract.Contact{ID: id.String(), Active: c.Active(), Banned: c.Banned && !c.Active(), Confirmed: c.Confirmed,
		Added: c.Added, Removed: c.Removed, Conversation: c.ConversationID}
}

func (s *hosted) contactSet(ctx context.Context, r *bus.Request[contract.ContactChange]) (*contract.Contact, error) {
	id, err := jami.ParseID(r.Body.ID)
	if err != nil {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	what := account.Change(r.Body.Change)
	if !slices.Contains([]account.Change{account.Add, account.Remove, account.Block, account.Unblock}, what) {
		return nil, contract.ErrBadRequest.With("change is one of add, remove, block and unblock")
	}
	return s.changeContact(ctx, id, what)
}

// changeContact changes a contact and does what follows from that. Where that account
// asks to be one, the change is the answer.
func (s *hosted) changeContact(ctx context.Context, id jami.ID, what account.Change) (*contract.Contact, error) {
	what, request, now := s.answered(id, what)
	conversation := request.ConversationID
	if conversation == "" {
		conversation = s.conversationWith(ctx, id, what)
	}
	c, err := s.acc.AnswerContact(id, what, conversation, now)
	switch {
	case errors.Is(err, account.ErrContact):
		return nil, contract.ErrExists.With("%s is a contact already", id)
	case errors.Is(err, account.ErrNoContact):
		return nil, contract.ErrNotFound.With("%s is no contact, or not blocked", id)
	case errors.Is(err, account.ErrOwnContact):
		return nil, contract.ErrBadRequest.With("%v", err)
	case errors.Is(err, account.ErrManyContacts):
		return nil, contract.ErrFull.With("%v", err)
	case err != nil:
		s.env.Log.Error("contact not written", zap.Error(err))
		return nil, contract.ErrStorage.With("the contact could not be written, and is as it was: %v", err)
	}
	s.tellContact(ctx, id)
	if s.inbox != nil {
		s.inbox.follow(id, what, c)
	}
	s.env.Log.Info("contact changed", zap.String("contact", id.String()), zap.String("change", string(what)))
	v := contactView(id, c)
	return &v, nil
}
