package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// Files of what came to the device, beside [fileRequests].
const (
	fileTreated = "treatedMessages" // SHA-256 of each, in hex, a line each, the last below
	fileDates   = "syncDates"       // JSON {device: date of its last DeviceSync}
)

// Bounds of the requests that are kept. A payload for which there is no place any more is
// left out: the request is kept all the same.
const (
	maxPending  = 256
	maxPayloads = 4 << 20 // bytes in all
)

// maxAhead is how far ahead of this machine's clock what another device says may be: one
// whose clock is wrong would else not be believed again for years.
const maxAhead = 24 * time.Hour

// Errors of the inbox.
var (
	ErrManyPending = fmt.Errorf("at most %d requests wait for an answer", maxPending)
	ErrOldSync     = errors.New("a newer one of that device came before")
	ErrAhead       = errors.New("it is dated more than a day ahead: the clock of that device, or of this one, is wrong")
)

// Inbox is what came to the device from others and has to be known later: requests that
// wait for an answer, what was treated, and how new the account's other devices are
// known. It is safe for concurrent use.
type Inbox struct {
	acc *Account

	mu       sync.Mutex
	requests map[jami.ID]jami.PendingRequest
	dates    map[jami.LongID]uint64
	treated  treated
}

// OpenInbox reads the files. The errors are as those of [Load].
func (a *Account) OpenInbox() (*Inbox, error) {
	i := &Inbox{acc: a, dates: map[jami.LongID]uint64{}}
	for _, f := range []struct {
		name string
		read func([]byte) error
	}{
		{fileRequests, func(b []byte) (err error) {
			i.requests, err = jami.ParseRequests(b)
			return err
		}},
		{fileTreated, i.treated.parse},
		{fileDates, i.parseDates},
	} {
		path := filepath.Join(a.Dir, f.name)
		b, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if mayPass(err) {
			return nil, fmt.Errorf("inbox: %w", err)
		}
		if err == nil {
			err = f.read(b)
		}
		if err != nil {
			return nil, &DamagedError{Path: path, Err: err}
		}
	}
	if i.requests == nil {
		i.requests = map[jami.ID]jami.PendingRequest{}
	}
	return i, nil
}

// Requests returns those that wait for an answer.
func (i *Inbox) Requests() map[jami.ID]jami.PendingRequest {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pendingLocked(i.requests)
}

// Request returns the one of an account, if it waits for an answer.
func (i *Inbox) Request(id jami.ID) (r jami.PendingRequest, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r, ok = i.requests[id]
	if ok {
		_, ok = i.pendingLocked(map[jami.ID]jami.PendingRequest{id: r})[id]
	}
	return r, ok
}

// pendingLocked leaves out what was answered, here or on another device.
func (i *Inbox) pendingLocked(all map[jami.ID]jami.PendingRequest) map[jami.ID]jami.PendingRequest {
	contacts := make(map[jami.ID]jami.Contact, len(all))
	for id := range all {
		if c, ok := i.acc.Contact(id); ok {
			contacts[id] = c
		}
	}
	return jami.AccountState{Contacts: contacts, Requests: all}.Pending()
}

// AddRequests takes requests that came, merges them with what is there, drops those that
// were answered, and writes the file where that changed something. news are the accounts
// whose requests were not there before. With [ErrManyPending] those that found a place
// were taken.
func (i *Inbox) AddRequests(came map[jami.ID]jami.PendingRequest, now time.Time) (news []jami.ID, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := i.pendingLocked(i.requests)
	var full error
	payloads := 0
	for _, r := range next {
		payloads += len(r.Payload)
	}
	for id, r := range i.pendingLocked(came) {
		old, had := next[id]
		switch {
		case id == i.acc.Chain.JamiID || id.IsZero() || r.Received > now.Add(maxAhead).Unix():
			continue
		case had:
			r = old.Merge(r)
		case len(next) >= maxPending:
			full = ErrManyPending
			continue
		}
		if len(r.Payload) == 0 && len(old.Payload) > 0 {
			r.Payload = old.Payload // another device's word lacks it
		}
		if payloads+len(r.Payload)-len(old.Payload) > maxPayloads {
			r.Payload = nil
		}
		payloads += len(r.Payload) - len(old.Payload)
		if next[id] = r; !had {
			news = append(news, id)
		}
	}
	if err := i.writeRequestsLocked(next); err != nil {
		return nil, err
	}
	return news, full
}

// Settle drops the requests that were answered and reports whether there were some.
func (i *Inbox) Settle() (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := i.pendingLocked(i.requests)
	if len(next) == len(i.requests) {
		return false, nil
	}
	return true, i.writeRequestsLocked(next)
}

func (i *Inbox) writeRequestsLocked(next map[jami.ID]jami.PendingRequest) error {
	if maps.EqualFunc(next, i.requests, sameRequest) {
		return nil
	}
	b, err := jami.PackRequests(next)
	if err == nil {
		err = atomicfile.Write(filepath.Join(i.acc.Dir, fileRequests), b, fileMode)
	}
	if err == nil {
		i.requests = next
	}
	return err
}

func sameRequest(x, y jami.PendingRequest) bool {
	return x.Received == y.Received && x.ConversationID == y.ConversationID && string(x.Device) == string(y.Device) && string(x.Payload) == string(y.Payload)
}

// CheckDate says whether a DeviceSync of another device may be taken: it has to be newer
// than that device's last one, and not of tomorrow (§3.9). The errors are [ErrOldSync] and
// [ErrAhead].
func (i *Inbox) CheckDate(from jami.LongID, date uint64, now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if date <= i.dates[from] {
		return ErrOldSync
	}
	// Of a system that counts in other ticks this is far in the past: it is compared
	// with that device's own alone.
	if date > uint64(now.Add(maxAhead).UnixNano()) {
		return ErrAhead
	}
	return nil
}

// SetDate notes the date of a DeviceSync that was taken.
func (i *Inbox) SetDate(from jami.LongID, date uint64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if date <= i.dates[from] {
		return nil
	}
	return i.setDateLocked(from, date)
}

// NextDate returns the date of this device's next DeviceSync, in nanoseconds: later than
// any before, also where the clock was set back.
func (i *Inbox) NextDate(now time.Time) (uint64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	me := i.acc.Chain.DeviceID
	date := max(uint64(max(now.UnixNano(), 1)), i.dates[me]+1)
	return date, i.setDateLocked(me, date)
}

func (i *Inbox) setDateLocked(from jami.LongID, date uint64) error {
	next := maps.Clone(i.dates)
	next[from] = date
	list := make(map[string]uint64, len(next))
	for id, d := range next {
		list[id.String()] = d
	}
	b, err := json.Marshal(list)
	if err == nil {
		err = atomicfile.Write(filepath.Join(i.acc.Dir, fileDates), append(b, '\n'), fileMode)
	}
	if err == nil {
		i.dates = next
	}
	return err
}

func (i *Inbox) parseDates(b []byte) error {
	var list map[string]uint64
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list) > maxDevices+1 {
		return ErrManyDevice
	}
	for text, date := range list {
		id, err := parseLongID(text)
		if err != nil {
			return err
		}
		i.dates[id] = date
	}
	return nil
}
