package identity

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

func TestContactsOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	id := strings.Repeat("ab", 20)
	for _, x := range []struct {
		id, change string
		want       error
	}{
		{id, "add", nil}, {id, "block", nil}, {id, "remove", contract.ErrNotFound}, {id, "unblock", nil}, {id, "add", nil},
		{id, "kiss", contract.ErrBadRequest}, {"x", "add", contract.ErrBadRequest}, {acc.ID, "add", contract.ErrBadRequest},
	} {
		c, err := bus.Call(t.Context(), cli, contract.ContactSetCmd, &contract.ContactChange{ID: x.id, Change: x.change})
		if !errors.Is(err, x.want) || err == nil && (c.Active != (x.change == "add") || c.Banned != (x.change == "block")) {
			t.Errorf("%s: %+v, %v", x.change, c, err)
		}
	}
	l, err := bus.Call(t.Context(), cli, contract.ContactList, &contract.ContactQuery{})
	if err != nil || len(l.Contacts) != 1 || !l.Contacts[0].Active || l.Contacts[0].ID != id {
		t.Errorf("%+v, %v", l, err)
	}
}

// Each change is told after it is on disk, with a number that lets readers see gaps; the
// pages of the list are in order and say which changes are in them.
func TestContactEvents(t *testing.T) {
	srv := bustest.Start(t)
	var svc *Service
	start(t, srv, readyKeys, func(s *Service) { svc = s })
	cli, admin := srv.Conn("cli"), srv.Admin()
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	admin.SetAccount(acc.ID)
	list := func(q contract.ContactQuery) *contract.Contacts {
		t.Helper()
		l, err := bus.Call(t.Context(), cli, contract.ContactList, &q)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	events := make(chan *contract.ContactChanged, 1024)
	sub, err := bus.Subscribe(admin, contract.ContactEvents, func(_ context.Context, _ []string, e *contract.ContactChanged) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	began := list(contract.ContactQuery{}).Revision
	path := filepath.Join(svc.hosts[0].acc.Dir, "archive.gz")
	archives := map[uint64]bool{}
	var wg sync.WaitGroup
	const n = 50
	for i := range n {
		wg.Go(func() {
			id := jami.HashKey(strconv.Itoa(i)).String()
			for _, change := range []string{"block", "unblock", "block"} {
				if _, err := bus.Call(t.Context(), cli, contract.ContactSetCmd, &contract.ContactChange{ID: id, Change: change}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for flood := true; flood; {
		select {
		case <-done:
			flood = false
		case <-time.After(time.Millisecond):
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		archives[fi.Sys().(*syscall.Stat_t).Ino] = true
	}
	t.Logf("%d changes: the archive was written %d times", 3*n, len(archives)-1)
	if len(archives) > 10 {
		t.Errorf("the archive was written %d times for %d changes", len(archives)-1, 3*n)
	}
	last := map[string]contract.Contact{}
	for revision := began; revision < began+3*n; {
		select {
		case e := <-events:
			if e.Contact.ID == "" {
				continue // identity's own start
			}
			if revision++; e.Revision != revision {
				t.Fatalf("event %d, want %d", e.Revision, revision)
			}
			last[e.Contact.ID] = e.Contact
		case <-time.After(patience):
			t.Fatalf("no event after %d", revision)
		}
	}
	var ids []string
	for q := (contract.ContactQuery{Limit: 7, Banned: true}); ; {
		page := list(q)
		if page.Total != n || page.Revision != began+3*n || len(page.Contacts) > 7 {
			t.Fatalf("%d of %d, revision %d", len(page.Contacts), page.Total, page.Revision)
		}
		for _, c := range page.Contacts {
			if !c.Banned || last[c.ID] != c {
				t.Errorf("listed %+v, told %+v", c, last[c.ID])
			}
			ids = append(ids, c.ID)
		}
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if len(ids) != n || !slices.IsSorted(ids) {
		t.Errorf("%d ids, sorted: %v", len(ids), slices.IsSorted(ids))
	}
	for _, q := range []contract.ContactQuery{{Limit: -1}, {Limit: contract.ContactPage + 1}, {After: "x"}} {
		if _, err := bus.Call(t.Context(), cli, contract.ContactList, &q); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	eventually(t, "the archive has the contacts", func() bool {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		a, err := jami.ParseArchive(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(a.Contacts) == n && a.Contacts[ids[0]].Banned
	})
	// What identity told when it lost the bus may have got lost: others read the list.
	if err := svc.conn.NATS().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-events:
			if e.Contact.ID == "" {
				return
			}
		case <-time.After(patience):
			t.Fatal("nothing is told after the bus was away")
		}
	}
}

// A page of the longest entries stays below the largest message of the bus.
func TestContactPageFits(t *testing.T) {
	p := contract.Contacts{Next: strings.Repeat("f", 40), Total: 1 << 30, Revision: 1 << 60}
	for range contract.ContactPage {
		p.Contacts = append(p.Contacts, contract.Contact{ID: strings.Repeat("f", 40), Conversation: strings.Repeat("f", 40),
			Added: -1 << 62, Removed: -1 << 62})
	}
	b, err := json.Marshal(p)
	if err != nil || len(b) > 768<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
