package account

import (
	"errors"
	"os"
	"path/filepath"
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
	a, err := Load(root, nil)
	if err != nil || a.Contacts()[id].Added != at.Unix() {
		t.Fatalf("%v, %v", a.Contacts(), err)
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
	if archived("") != a.Contacts()[id] {
		t.Errorf("in the archive %+v, in the file %+v", archived(""), a.Contacts()[id])
	}
	// A locked archive gets it later.
	if err := a.SetPassword(nil, []byte("pw")); err != nil {
		t.Fatal(err)
	}
	if a, err = Load(root, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChangeContact(id, Block, at); err != nil {
		t.Fatal(err)
	}
	if !archived("pw").Active() {
		t.Error("a locked archive was written")
	}
	if err := a.SetPassword([]byte("pw"), nil); err != nil {
		t.Fatal(err)
	}
	if c := archived(""); c.Active() || !c.Banned {
		t.Errorf("in the archive %+v", c)
	}
}

func TestContactsAreBounded(t *testing.T) {
	_, a := create(t)
	a.contacts = map[jami.ID]jami.Contact{}
	for i := range maxContacts {
		a.contacts[jami.HashKey(string(rune(i)))] = jami.Contact{Added: 1}
	}
	if _, err := a.ChangeContact(jami.HashKey("one more"), Add, time.Now()); !errors.Is(err, ErrManyContacts) {
		t.Error(err)
	}
}
