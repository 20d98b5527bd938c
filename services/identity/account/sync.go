package account

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// MergeContacts merges what another device of the account knows of contacts into the
// list (§3.8) and returns those that are otherwise now. It returns when that is in the
// file. Entries that are dated more than a day ahead are passed over, and beyond the most
// that the list may have, new ones; skipped counts both.
func (a *Account) MergeContacts(peers map[jami.ID]jami.Contact, now time.Time) (changed []jami.ID, skipped int, err error) {
	a.book.turn.Lock()
	defer a.book.turn.Unlock()
	contacts := a.Contacts()
	if contacts == nil {
		contacts = map[jami.ID]jami.Contact{}
	}
	latest := now.Add(maxAhead).Unix()
	for id, c := range peers {
		if id == a.Chain.JamiID || id.IsZero() || c.Added > latest || c.Removed > latest {
			skipped++
			continue
		}
		old, had := contacts[id]
		if !had && len(contacts) >= maxContacts {
			skipped++
			continue
		}
		next := c
		if had {
			next = old.Merge(c)
		}
		if !had || next != old {
			contacts[id], changed = next, append(changed, id)
		}
	}
	if len(changed) == 0 {
		return nil, skipped, nil
	}
	return changed, skipped, a.storeContacts(contacts)
}

// LearnNames takes the names of devices that one of them told: its own, and those of
// others that have none here. It reports whether one is new.
func (a *Account) LearnNames(from jami.LongID, devices map[jami.LongID]jami.SyncDevice, now time.Time) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	news := false
	for id, d := range devices {
		have := a.known[id].Name
		if a.others[id] == nil || d.Name == "" || d.Name == have || have != "" && id != from {
			continue
		}
		if err := a.seenLocked(id, d.Name, now); err != nil {
			return news, err
		}
		news = true
	}
	return news, nil
}

// SyncState is what this device tells the others, but for its date: all contacts, names of
// devices that are not revoked, and the requests that came last.
func (i *Inbox) SyncState() *jami.DeviceSync {
	s := &jami.DeviceSync{Devices: map[jami.LongID]jami.SyncDevice{}, Peers: i.acc.Contacts(), Requests: newest(i.Requests())}
	for _, d := range i.acc.Devices() {
		if !d.Revoked {
			s.Devices[d.ID] = jami.SyncDevice{Name: d.Name, Short: d.Short}
		}
	}
	return s
}

// newest are the [jami.MaxSyncRequests] that came last, without their payloads (§3.9).
func newest(all map[jami.ID]jami.PendingRequest) map[jami.ID]jami.PendingRequest {
	ids := slices.SortedFunc(maps.Keys(all), func(x, y jami.ID) int {
		return cmp.Or(cmp.Compare(all[y].Received, all[x].Received), bytes.Compare(x[:], y[:]))
	})
	out := map[jami.ID]jami.PendingRequest{}
	for _, id := range ids[:min(len(ids), jami.MaxSyncRequests)] {
		r := all[id]
		r.Payload = nil
		out[id] = r
	}
	return out
}
