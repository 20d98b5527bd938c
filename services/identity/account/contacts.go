package account

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// maxContacts bounds the list that is made here: it has to fit into a message of the bus.
const maxContacts = 3000

// Errors of contacts.
var (
	ErrNoContact    = errors.New("no such contact")
	ErrOwnContact   = errors.New("an account is no contact of itself")
	ErrManyContacts = fmt.Errorf("at most %d contacts", maxContacts)
)

// Change is what is done to a contact.
type Change string

// The changes of a contact.
const (
	Add     Change = "add"
	Remove  Change = "remove"
	Block   Change = "block"
	Unblock Change = "unblock"
)

// Contacts returns the list, removed and banned ones too.
func (a *Account) Contacts() map[jami.ID]jami.Contact {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.contacts)
}

// ChangeContact changes a contact by the rules of §3.8, in its file and in the archive.
// An archive that is locked gets it when it is written next.
func (a *Account) ChangeContact(id jami.ID, what Change, now time.Time) (jami.Contact, error) {
	if id == a.Chain.JamiID || id.IsZero() {
		return jami.Contact{}, ErrOwnContact
	}
	a.mu.Lock()
	old, had := a.contacts[id]
	next, err := changed(old, had, what, now.Unix())
	if err == nil && !had && len(a.contacts) >= maxContacts {
		err = ErrManyContacts
	}
	if err == nil && (next != old || !had) {
		err = a.writeContactLocked(id, next)
	}
	guard := a.guard
	a.mu.Unlock()
	if err != nil || guard == Locked {
		return next, err
	}
	// Also when nothing changed: the archive may have missed it.
	return next, a.ChangeArchive(nil, func(*jami.Archive) error { return nil })
}

func (a *Account) writeContactLocked(id jami.ID, c jami.Contact) error {
	contacts := maps.Clone(a.contacts)
	if contacts == nil {
		contacts = map[jami.ID]jami.Contact{}
	}
	contacts[id] = c
	b, err := jami.PackContacts(contacts)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.Dir, fileContacts), b, fileMode); err != nil {
		return err
	}
	a.contacts = contacts
	return nil
}

// changed is a contact after a change at now, in unix seconds.
func changed(c jami.Contact, had bool, what Change, now int64) (jami.Contact, error) {
	switch what {
	case Add:
		if !c.Active() {
			c.Added, c.Removed, c.Banned = max(now, 1), 0, false
		}
		return c, nil
	case Block:
		if c.Active() || !c.Banned {
			c.Removed, c.Confirmed, c.Banned = max(now, c.Added), false, true
		}
		return c, nil
	case Remove, Unblock:
	default:
		return c, fmt.Errorf("a contact cannot be changed by %.20q", string(what))
	}
	if !had || what == Unblock && (c.Active() || !c.Banned) || what == Remove && !c.Active() {
		return c, ErrNoContact
	}
	// Its time goes on, so that the merge with other devices takes this for newer.
	c.Removed, c.Confirmed, c.Banned = max(now, c.Added, c.Removed+1), false, false
	return c, nil
}
