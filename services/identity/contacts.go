package identity

import (
	"context"
	"errors"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

func (s *Service) contactList(context.Context, *bus.Request[contract.None]) (*contract.Contacts, error) {
	out := new(contract.Contacts)
	for id, c := range s.acc.Contacts() {
		out.Contacts = append(out.Contacts, contactView(id, c))
	}
	slices.SortFunc(out.Contacts, func(a, b contract.Contact) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func contactView(id jami.ID, c jami.Contact) contract.Contact {
	return contract.Contact{ID: id.String(), Active: c.Active(), Banned: c.Banned && !c.Active(), Confirmed: c.Confirmed,
		Added: c.Added, Removed: c.Removed, Conversation: c.ConversationID}
}

func (s *Service) contactSet(_ context.Context, r *bus.Request[contract.ContactChange]) (*contract.Contact, error) {
	id, err := jami.ParseID(r.Body.ID)
	if err != nil {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	what := account.Change(r.Body.Change)
	if !slices.Contains([]account.Change{account.Add, account.Remove, account.Block, account.Unblock}, what) {
		return nil, contract.ErrBadRequest.With("change is one of add, remove, block and unblock")
	}
	c, err := s.acc.ChangeContact(id, what, s.now())
	switch {
	case errors.Is(err, account.ErrNoContact):
		return nil, contract.ErrNotFound.With("%s is no contact, or not blocked", id)
	case errors.Is(err, account.ErrOwnContact):
		return nil, contract.ErrBadRequest.With("%v", err)
	case errors.Is(err, account.ErrManyContacts):
		return nil, contract.ErrFull.With("%v", err)
	case err != nil:
		return nil, s.archiveError(err)
	}
	s.env.Log.Info("contact changed", zap.String("contact", id.String()), zap.String("change", string(what)))
	v := contactView(id, c)
	return &v, nil
}
