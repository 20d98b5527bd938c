package account

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// maxContacts bounds the list that is made here. At some 150 bytes each in the JSON of the
// archive they take an eighth of what that may have.
const maxContacts = 50_000

// Errors of contacts.
var (
	ErrNoContact    = errors.New("no such contact")
	ErrContact      = errors.New("that is a contact already")
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

// Changes that answer a request, or that an answer makes.
const (
	Accept  Change = "accept"  // add, where the other side asked
	Refuse  Change = "refuse"  // the account is no contact; what it asked before is answered
	Confirm Change = "confirm" // the contact accepted
)

// book is what changes of the contacts need beside the list. The zero value is ready.
//
// The file is replaced as a whole: changes that come while it is being written wait
// and go into the next one together. The archive is not written then, but by who calls
// [Account.ArchiveContacts].
type book struct {
	turn sync.Mutex // held by who writes the file; before Account.mu

	mu      sync.Mutex
	waiting []*contactChange

	// Under Account.mu:
	sorted  []jami.ID     // the ids of the list, which never gets shorter
	missed  bool          // the archive may lack something of the list
	changed chan struct{} // closed when that becomes true; nil: nobody waits
}

// contactChange is one change, and what came of it once done is set.
type contactChange struct {
	id           jami.ID
	what         Change
	conversation string
	now          int64
	done         bool
	next         jami.Contact
	err          error
}

// Contacts returns the list, removed and banned ones too.
func (a *Account) Contacts() map[jami.ID]jami.Contact {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.contacts)
}

// Contact returns one entry of the list.
func (a *Account) Contact(id jami.ID) (c jami.Contact, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok = a.contacts[id]
	return c, ok
}

// ContactPage returns up to limit contacts whose ids are above after, sorted by id, and
// whether there are more. total counts the whole list, banned ones alone are listed
// where banned says so.
func (a *Account) ContactPage(after jami.ID, limit int, banned bool) (ids []jami.ID, list []jami.Contact, more bool, total int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.book.sorted) != len(a.contacts) {
		a.book.sorted = slices.SortedFunc(maps.Keys(a.contacts), compareIDs)
	}
	i, found := slices.BinarySearchFunc(a.book.sorted, after, compareIDs)
	if found {
		i++
	}
	for _, id := range a.book.sorted[i:] {
		c := a.contacts[id]
		if banned && (c.Active() || !c.Banned) {
			continue
		}
		if len(ids) == limit {
			return ids, list, true, len(a.contacts)
		}
		ids, list = append(ids, id), append(list, c)
	}
	return ids, list, false, len(a.contacts)
}

func compareIDs(x, y jami.ID) int { return bytes.Compare(x[:], y[:]) }

// ChangeContact changes a contact by the rules of §3.8. It returns when that is in the
// file; the archive gets it by [Account.ArchiveContacts], or when it is written for
// something else. Changes at once share a write.
func (a *Account) ChangeContact(id jami.ID, what Change, now time.Time) (jami.Contact, error) {
	return a.AnswerContact(id, what, "", now)
}

// AnswerContact is [Account.ChangeContact] where there is a conversation: that of who asked to be
// a contact and is accepted, of who is added, or what who accepted says that it is.
func (a *Account) AnswerContact(id jami.ID, what Change, conversation string, now time.Time) (jami.Contact, error) {
	if id == a.Chain.JamiID || id.IsZero() {
		return jami.Contact{}, ErrOwnContact
	}
	c := &contactChange{id: id, what: what, conversation: conversation, now: now.Unix()}
	a.book.mu.Lock()
	a.book.waiting = append(a.book.waiting, c)
	a.book.mu.Unlock()
	a.book.turn.Lock()
	defer a.book.turn.Unlock()
	if !c.done {
		a.book.mu.Lock()
		all := a.book.waiting
		a.book.waiting = nil
		a.book.mu.Unlock()
		a.writeContacts(all)
	}
	return c.next, c.err
}

// writeContacts makes changes, one after the other, and writes the file once; when that
// fails nothing has changed. The caller holds a.book.turn.
func (a *Account) writeContacts(all []*contactChange) {
	contacts := a.Contacts()
	if contacts == nil {
		contacts = map[jami.ID]jami.Contact{}
	}
	news := false
	for _, c := range all {
		old, had := contacts[c.id]
		c.done = true
		c.next, c.err = changed(old, had, c.what, c.now)
		if c.conversation != "" && (c.what == Accept || c.what == Add || c.what == Confirm) {
			c.next.ConversationID = c.conversation
		}
		if c.err == nil && !had && len(contacts) >= maxContacts {
			c.err = ErrManyContacts
		}
		if c.err == nil && (c.next != old || !had) {
			contacts[c.id], news = c.next, true
		}
	}
	if !news {
		return
	}
	if err := a.storeContacts(contacts); err != nil {
		for _, c := range all {
			if c.err == nil {
				c.err = err
			}
		}
	}
}

// storeContacts writes the list and makes it the account's. The caller holds
// a.book.turn.
func (a *Account) storeContacts(contacts map[jami.ID]jami.Contact) error {
	b, err := jami.PackContacts(contacts)
	if err == nil {
		err = atomicfile.Write(filepath.Join(a.Dir, fileContacts), b, fileMode)
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.contacts, a.book.missed = contacts, true
	if a.book.changed != nil {
		close(a.book.changed)
		a.book.changed = nil
	}
	return nil
}

// ContactsChanged returns a channel that is closed at the next change of a contact, or is
// closed where [Account.ArchiveContacts] has not been called since the last one.
func (a *Account) ContactsChanged() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book.changed == nil {
		a.book.changed = make(chan struct{})
	}
	c := a.book.changed
	if a.book.missed {
		close(c)
		a.book.changed = nil
	}
	return c
}

// ArchiveContacts writes the archive where it lacks contacts as the file has them. A
// locked one gets them when it is written next. Reading an archive with a password
// takes a second, and writing it another one.
func (a *Account) ArchiveContacts() error {
	a.mu.Lock()
	a.book.missed = false // before it is read, so that what comes meanwhile is not missed
	locked := a.guard == Locked || a.guard == Server
	a.mu.Unlock()
	if locked {
		return nil
	}
	a.archive.Lock()
	defer a.archive.Unlock()
	err := a.archiveContacts()
	if err != nil {
		a.mu.Lock()
		a.book.missed = true
		a.mu.Unlock()
	}
	return err
}

// archiveContacts is for who holds a.archive.
func (a *Account) archiveContacts() error {
	archive, password, err := a.openArchive(nil)
	if err != nil {
		return err
	}
	missing := false
	for id, c := range a.Contacts() {
		if have, ok := archive.Contacts[id.String()]; !ok || have != c {
			missing = true
			break
		}
	}
	if !missing {
		return nil
	}
	if err := a.fill(archive); err != nil {
		return err
	}
	return a.writeArchive(archive, password)
}

// changed is a contact after a change at now, in unix seconds.
func changed(c jami.Contact, had bool, what Change, now int64) (jami.Contact, error) {
	switch what {
	case Add, Accept:
		if !c.Active() {
			// Later than the removal, which another device may still tell.
			c.Added, c.Removed, c.Confirmed, c.Banned = max(now, c.Removed+1), 0, false, false
		}
		c.Confirmed = c.Confirmed || what == Accept
		return c, nil
	case Confirm:
		if !c.Active() {
			return c, ErrNoContact
		}
		c.Confirmed = true
		return c, nil
	case Refuse:
		if c.Active() {
			return c, ErrContact
		}
		c.Removed = max(now, c.Added, c.Removed)
		return c, nil
	case Block:
		if c.Active() || !c.Banned {
			c.Removed, c.Confirmed, c.Banned = max(now, c.Added, c.Removed), false, true
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
