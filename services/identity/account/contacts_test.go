package account

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

func TestContacts(t *testing.T) {
	root, a := create(t)
	id := jami.HashKey("a contact")
	at := time.Unix(1_800_000_000, 0)
	for i, x := range []struct {
		what           Change
		want           error
		active, banned bool
	}{
		{Remove, ErrNoContact, false, false},
		{Unblock, ErrNoContact, false, false},
		{Add, nil, true, false},
		{Add, nil, true, false},
		{Unblock, ErrNoContact, true, false},
		{Block, nil, false, true},
		{Block, nil, false, true},
		{Remove, ErrNoContact, false, true},
		{Unblock, nil, false, false},
		{Add, nil, true, false},
		{Remove, nil, false, false},
		{Add, nil, true, false},
		{Block, nil, false, true},
		{Add, nil, true, false},
	} {
		c, err := a.ChangeContact(id, x.what, at) // in one and the same second
		if !errors.Is(err, x.want) || err == nil && (c.Active() != x.active || !c.Active() && c.Banned != x.banned) {
			t.Fatalf("%d, %s: %+v, %v", i, x.what, c, err)
		}
	}
	for bad, want := range map[jami.ID]error{a.Chain.JamiID: ErrOwnContact, {}: ErrOwnContact} {
		if _, err := a.ChangeContact(bad, Add, at); !errors.Is(err, want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := a.ChangeContact(id, "kiss", at); err == nil {
		t.Error("an unknown change")
	}
	a, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	// Each addition is later than the removal before it, so that others agree on the order.
	if added := a.Contacts()[id].Added; added < at.Unix() || added > at.Unix()+4 {
		t.Fatalf("added at %d", added-at.Unix())
	}
	archived := func(pw string) jami.Contact {
		b, err := os.ReadFile(filepath.Join(a.Dir, fileArchive))
		if err != nil {
			t.Fatal(err)
		}
		x, err := jami.ParseArchive(b, []byte(pw))
		if err != nil {
			t.Fatal(err)
		}
		return x.Contacts[id.String()]
	}
	if archived("") == a.Contacts()[id] {
		t.Error("the archive was written for a contact")
	}
	before := stat(t, a)
	if err := a.ArchiveContacts(); err != nil || stat(t, a) == before {
		t.Errorf("not written: %v", err)
	}
	before = stat(t, a)
	if err := a.ArchiveContacts(); err != nil || stat(t, a) != before {
		t.Errorf("written without a need: %v", err)
	}
	if archived("") != a.Contacts()[id] {
		t.Errorf("in the archive %+v, in the file %+v", archived(""), a.Contacts()[id])
	}
	// A locked archive gets it later.
	if err := a.SetPassword(nil, []byte("pw")); err != nil {
		t.Fatal(err)
	}
	if a, err = (&Store{Root: root}).Load(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChangeContact(id, Block, at); err != nil {
		t.Fatal(err)
	}
	if err := a.ArchiveContacts(); err != nil || !archived("pw").Active() {
		t.Errorf("a locked archive was written: %v", err)
	}
	if err := a.SetPassword([]byte("pw"), nil); err != nil {
		t.Fatal(err)
	}
	if c := archived(""); c.Active() || !c.Banned {
		t.Errorf("in the archive %+v", c)
	}
}

// stat tells one content of the archive's file from another: each write makes a new file.
func stat(t *testing.T, a *Account) uint64 {
	t.Helper()
	fi, err := os.Stat(filepath.Join(a.Dir, fileArchive))
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// full gives an account as many contacts as it may have, as stock Jami writes them.
func full(tb testing.TB, a *Account) {
	tb.Helper()
	a.contacts = map[jami.ID]jami.Contact{}
	for i := range maxContacts {
		id := jami.HashKey(strconv.Itoa(i))
		a.contacts[id] = jami.Contact{Added: 1_700_000_000 + int64(i), Confirmed: true, Removed: 1_800_000_000 * int64(i%2), Banned: i%2 == 1,
			ConversationID: jami.HashKey("conversation of " + id.String()).String()}
	}
}

func TestContactsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	root, a := create(t)
	full(t, a)
	one := jami.HashKey("7")
	if _, err := a.ChangeContact(jami.HashKey("one more"), Add, time.Now()); !errors.Is(err, ErrManyContacts) {
		t.Error(err)
	}
	if _, err := a.ChangeContact(one, Unblock, time.Now()); err != nil {
		t.Error(err)
	}
	if err := a.ArchiveContacts(); err != nil {
		t.Fatal(err)
	}
	// All of it can be read again, the archive too.
	again, err := (&Store{Root: root}).Load()
	if err != nil || len(again.Contacts()) != maxContacts || again.Contacts()[one] != a.Contacts()[one] {
		t.Errorf("%d contacts, %v", len(again.Contacts()), err)
	}
	if b, err := again.Export(nil, nil); err != nil {
		t.Error(err)
	} else {
		t.Logf("an archive with %d contacts has %d bytes", maxContacts, len(b))
	}
}

// Changes that come while the file is written share the next write, and a change is
// answered when it is on disk.
func TestContactsShareWrites(t *testing.T) {
	root, a := create(t)
	a.book.turn.Lock() // the file is being written
	var wg sync.WaitGroup
	ids := make([]jami.ID, 100)
	for i := range ids {
		ids[i] = jami.HashKey(strconv.Itoa(i))
		wg.Go(func() {
			if _, err := a.ChangeContact(ids[i], Block, time.Now()); err != nil {
				t.Error(err)
			}
			if c, ok := a.Contact(ids[i]); !ok || !c.Banned {
				t.Errorf("answered, and %+v", c)
			}
		})
	}
	for waiting := 0; waiting < len(ids); runtime.Gosched() {
		a.book.mu.Lock()
		waiting = len(a.book.waiting)
		a.book.mu.Unlock()
	}
	dir := filepath.Join(a.Dir, fileContacts)
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := a.Contact(ids[0]); ok {
		t.Error("changed before it is on disk")
	}
	changed := a.ContactsChanged()
	a.book.turn.Unlock()
	wg.Wait()
	<-changed
	after, err := os.Stat(dir)
	if err != nil || after.Size() <= before.Size() {
		t.Fatalf("%v, %v", after, err)
	}
	// What was answered is there, in order.
	b, err := (&Store{Root: root}).Load()
	if err != nil || len(b.Contacts()) != len(ids) {
		t.Errorf("%d on disk, %v", len(b.Contacts()), err)
	}
	var got []jami.ID
	for after := (jami.ID{}); ; {
		page, list, more, total := b.ContactPage(after, 7, true)
		if total != len(ids) || len(page) != len(list) || len(page) > 7 {
			t.Fatalf("%d of %d in a page", len(page), total)
		}
		got = append(got, page...)
		if !more {
			break
		}
		after = page[len(page)-1]
	}
	slices.SortFunc(ids, compareIDs)
	if !slices.Equal(got, ids) {
		t.Error("the pages are not the list")
	}
}

// A change that can't be written is none, and is told to all who share the write.
func TestContactsThatCannotBeWritten(t *testing.T) {
	_, a := create(t)
	id := jami.HashKey("x")
	if err := os.Remove(filepath.Join(a.Dir, fileContacts)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(a.Dir, fileContacts, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChangeContact(id, Block, time.Now()); err == nil {
		t.Error("said to be written")
	}
	if _, ok := a.Contact(id); ok {
		t.Error("changed all the same")
	}
}

func BenchmarkContacts(b *testing.B) {
	_, a := create(b)
	full(b, a)
	blocked := jami.HashKey("1")
	b.Run("change", func(b *testing.B) {
		for i := range b.N {
			what := Unblock
			if i%2 == 1 {
				what = Block
			}
			if _, err := a.ChangeContact(blocked, what, time.Now()); err != nil && !errors.Is(err, ErrNoContact) {
				b.Fatal(err)
			}
		}
	})
	b.Run("page", func(b *testing.B) {
		for i := range b.N {
			if ids, _, _, _ := a.ContactPage(jami.ID{byte(i)}, 2000, false); len(ids) == 0 {
				b.Fatal("an empty page")
			}
		}
	})
	b.Run("archive", func(b *testing.B) {
		for i := range b.N {
			a.contacts[blocked] = jami.Contact{Added: int64(i) + 1}
			if err := a.ArchiveContacts(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
