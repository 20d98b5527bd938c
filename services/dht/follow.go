package dht

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/presence"
)

// maxFollowed bounds the contacts whose presence is followed, of all accounts: each has a
// packet to four nodes of OpenDHT every 20 s (dht-and-identity §1.6), or a search of the
// other overlay every 10 s.
const maxFollowed = 512

// Changes of contacts that come within followRest are one; a list is read again no sooner
// than after rereadRest, and what failed after followFirst, doubling to announceMost.
const (
	followRest  = time.Second
	rereadRest  = 5 * time.Second
	followFirst = 200 * time.Millisecond
)

// maxNews bounds the changes of contacts that wait; beyond it the lists are read again.
const maxNews = 4096

// following has the presence of the accounts' contacts followed. It is safe for concurrent
// use.
type following struct {
	s    *Service
	who  *presence.Follower
	wake chan struct{} // has an element when there is something to do

	mu    sync.Mutex
	news  []contactNews
	anew  bool // all lists are to be read again
	count map[string]counts

	telling  sync.Mutex
	revision map[string]uint64 // by account
}

type contactNews struct {
	account string
	*contract.ContactChanged
}

// counts are of an account's contacts.
type counts struct{ followed, active int }

// roster is the active contacts of an account. The goroutine of run alone has it.
type roster struct {
	active   map[jami.ID]contract.Contact
	revision uint64
	stale    bool // it is to be read
	read     time.Time
	changed  bool // since it was followed
}

func newFollowing(s *Service) *following {
	f := &following{s: s, wake: make(chan struct{}, 1), count: map[string]counts{}, revision: map[string]uint64{}}
	f.who = presence.NewFollower(s.node, s.env.Log.Named("presence"), f.tell)
	return f
}

func (f *following) poke() {
	select {
	case f.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (f *following) readAgain() {
	f.mu.Lock()
	f.anew = true
	f.mu.Unlock()
	f.poke()
}

func (f *following) heard(account string, e *contract.ContactChanged) {
	f.mu.Lock()
	if f.news = append(f.news, contactNews{account, e}); len(f.news) > maxNews {
		f.news, f.anew = nil, true
	}
	f.mu.Unlock()
	f.poke()
}

// run follows until ctx ends.
func (f *following) run(ctx context.Context) {
	defer f.who.Close()
	contacts, err := bus.Subscribe(f.s.conn.For(bus.Any), contract.ContactEvents, func(_ context.Context, p []string, e *contract.ContactChanged) { f.heard(p[0], e) })
	if err == nil {
		defer contacts.Stop()
	}
	accounts, err2 := bus.Subscribe(f.s.conn, contract.IdentityReady, func(context.Context, []string, *contract.IdentityState) { f.poke() })
	if err2 == nil {
		defer accounts.Stop()
	}
	if err := errors.Join(err, err2); err != nil {
		f.s.env.Log.Error("presence follows the contacts as they are now", zap.Error(err))
	}
	defer f.s.conn.OnReconnect(f.readAgain)()
	rosters := map[string]*roster{}
	for wait := followFirst; ; {
		var again <-chan time.Time
		due, err := f.update(ctx, rosters)
		switch {
		case err != nil:
			f.s.env.Log.Debug("contacts not followed as they are; trying again", zap.Error(err), zap.Duration("in", wait))
			again, wait = time.After(wait), min(2*wait, announceMost)
		case due > 0:
			again, wait = time.After(due), followFirst
		default:
			wait = followFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(followRest):
			}
		case <-again:
		}
	}
}

// update takes what changed and has it followed. due: when a list may be read again.
func (f *following) update(ctx context.Context, rosters map[string]*roster) (due time.Duration, err error) {
	st, err := bus.Call(ctx, f.s.conn, contract.IdentityGet, &contract.None{})
	if err != nil {
		return 0, err
	}
	if st.State != "ready" && len(st.Accounts) == 0 {
		return 0, nil // the change is told
	}
	there := map[string]bool{}
	for _, a := range st.Accounts {
		if there[a.ID] = true; rosters[a.ID] == nil {
			rosters[a.ID] = &roster{stale: true}
			for _, r := range rosters { // each has a smaller share
				r.changed = true
			}
		}
	}
	for id := range rosters {
		if !there[id] {
			delete(rosters, id)
			f.who.Set(id, nil, nil)
			f.counted(id, counts{})
			for _, r := range rosters {
				r.changed = true
			}
		}
	}
	f.take(rosters)
	var errs []error
	for id, r := range rosters {
		if r.stale {
			if left := rereadRest - time.Since(r.read); !r.read.IsZero() && left > 0 {
				due = left
			} else if err := f.readList(ctx, id, r); err != nil {
				errs = append(errs, err)
			}
		}
		if r.changed && r.active != nil {
			errs = append(errs, f.choose(id, r, maxFollowed/max(len(rosters), 1)))
		}
	}
	return due, errors.Join(errs...)
}

// take applies the changes that were told.
func (f *following) take(rosters map[string]*roster) {
	f.mu.Lock()
	news, anew := f.news, f.anew
	f.news, f.anew = nil, false
	f.mu.Unlock()
	for _, r := range rosters {
		r.stale = r.stale || anew
	}
	for _, e := range news {
		r := rosters[e.account]
		if r == nil || r.stale {
			continue // it is read
		}
		id, err := jami.ParseID(e.Contact.ID)
		switch {
		case err != nil, e.Revision > r.revision+1: // identity began anew, or some were missed
			r.stale = true
		case e.Revision <= r.revision: // the list had it
		default:
			r.revision, r.changed = e.Revision, true
			if delete(r.active, id); e.Contact.Active {
				r.active[id] = e.Contact
			}
		}
	}
}

// readList reads an account's contacts. What changes meanwhile is told, and taken after that.
func (f *following) readList(ctx context.Context, account string, r *roster) error {
	r.read = time.Now()
	active := map[jami.ID]contract.Contact{}
	var revision uint64
	for q := new(contract.ContactQuery); ; {
		page, err := bus.Call(ctx, f.s.conn.For(account), contract.ContactList, q)
		if err != nil {
			r.read = time.Time{}
			return err
		}
		if q.After == "" {
			revision = page.Revision
		}
		for _, c := range page.Contacts {
			if id, err := jami.ParseID(c.ID); err == nil && c.Active {
				active[id] = c
			}
		}
		if page.Next <= q.After {
			break // also where the pages go round
		}
		q.After = page.Next
	}
	r.active, r.revision, r.stale, r.changed = active, revision, false, true
	return nil
}

// choose has those of an account followed that are to be.
func (f *following) choose(account string, r *roster, most int) error {
	judge, err := f.s.gates.Of(account)
	if err != nil {
		return err
	}
	ids := r.first(most)
	n := counts{len(ids), len(r.active)}
	if was := f.counted(account, n); n.followed < n.active && was.active <= was.followed {
		f.s.env.Log.Warn("more contacts than can be followed: of the others it is not told whether they are online",
			zap.String("account", account), zap.Int("contacts", n.active), zap.Int("followed", n.followed))
	}
	f.who.Set(account, judge, ids)
	r.changed = false
	return nil
}

// first are the contacts that come first: those who confirmed, of these who was added last.
func (r *roster) first(most int) []jami.ID {
	ids := make([]jami.ID, 0, len(r.active))
	for id := range r.active {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y jami.ID) int {
		a, b := r.active[x], r.active[y]
		switch {
		case a.Confirmed && !b.Confirmed:
			return -1
		case b.Confirmed && !a.Confirmed:
			return 1
		}
		return cmp.Or(cmp.Compare(b.Added, a.Added), bytes.Compare(x[:], y[:]))
	})
	return ids[:min(len(ids), most)]
}

func (f *following) counted(account string, n counts) (was counts) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was = f.count[account]
	if f.count[account] = n; n == (counts{}) {
		delete(f.count, account)
	}
	return was
}

// lastLocked is the revision of the last change that was told. It begins with the time,
// in µs, so that the numbers of a process go on above those of the one before.
func (f *following) lastLocked(account string) uint64 {
	if f.revision[account] == 0 {
		f.revision[account] = uint64(time.Now().UnixMicro())
	}
	return f.revision[account]
}

func (f *following) tell(account string, s presence.State) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.revision[account] = f.lastLocked(account) + 1
	e := &contract.PresenceChanged{Presence: presenceView(s), Revision: f.revision[account]}
	if err := bus.Publish(context.Background(), f.s.conn.For(account), contract.PresenceEvents, e, e.ID); err != nil { // it does not wait
		f.s.env.Log.Warn("presence not published; the next change shows the gap", zap.Error(err))
	}
}

func presenceView(s presence.State) contract.Presence {
	return contract.Presence{ID: s.ID.String(), Online: s.Online, Since: s.Since.Unix()}
}

func (f *following) list(_ context.Context, r *bus.Request[contract.None]) (*contract.Presences, error) {
	account := r.Param(0)
	if _, err := f.s.gates.Of(account); err != nil {
		return nil, err
	}
	f.telling.Lock()
	revision := f.lastLocked(account) // before the states: what is told later may be in them
	f.telling.Unlock()
	f.mu.Lock()
	n := f.count[account]
	f.mu.Unlock()
	out := &contract.Presences{Contacts: []contract.Presence{}, Followed: n.followed, Active: n.active, Revision: revision}
	for _, s := range f.who.Of(account) {
		out.Contacts = append(out.Contacts, presenceView(s))
	}
	slices.SortFunc(out.Contacts, func(x, y contract.Presence) int { return cmp.Compare(x.ID, y.ID) })
	return out, nil
}
