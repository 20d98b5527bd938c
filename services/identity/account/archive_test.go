package account

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// Archives of jamid 13.7.0 and the password of one.
const (
	stockPlain    = "archive_plain.gz"
	stockPassword = "archive_password_contacts_crl.gz"
	stockPW       = "s3cret pw"
	stockID       = "4f891b21a87d5e3c41f96563e358a295aba4e960"
)

func stock(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "internal", "jami", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestImportOfStockArchives(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	for _, x := range []struct {
		file, password string
		contacts       int
		crl            bool
		guard          Guard
	}{
		{stockPlain, "", 0, false, Plain},
		{stockPlain, "needless", 0, false, Plain},
		{stockPassword, stockPW, 1, true, Known},
	} {
		t.Run(x.file, func(t *testing.T) {
			root := t.TempDir()
			pw := []byte(x.password)
			want, err := jami.ParseArchive(stock(t, x.file), pw)
			if err != nil {
				t.Fatal(err)
			}
			a, aside, err := (&Store{Root: root}).Import(stock(t, x.file), pw, testKeys().Device, Alone, time.Now())
			if err != nil || len(aside) > 0 {
				t.Fatal(aside, err)
			}
			if a.Chain.JamiID != want.ID() || !testKeys().Device.PublicKey.Equal(a.DeviceKey().Public()) || a.Guard() != x.guard {
				t.Errorf("account %s with %s, want %s with %s", a.Chain.JamiID, a.Guard(), want.ID(), x.guard)
			}
			if a.Settings().Alias != want.Settings[settingDisplay] {
				t.Errorf("settings %+v of %v", a.Settings(), want.Settings)
			}
			if a, err = (&Store{Root: root, Password: pw}).Load(); err != nil {
				t.Fatal(err)
			}
			// Exported again, it is what was imported.
			for _, with := range []string{"", "another"} {
				b, err := a.Export(nil, []byte(with))
				if err != nil {
					t.Fatal(err)
				}
				if jami.Encrypted(b) != (with != "") {
					t.Errorf("with password %q the archive is encrypted: %v", with, jami.Encrypted(b))
				}
				got, err := jami.ParseArchive(b, []byte(with))
				if err != nil {
					t.Fatal(err)
				}
				if !got.AccountKey.Equal(want.AccountKey) || !got.CAKey.Equal(want.CAKey) || !bytes.Equal(got.EthKey, want.EthKey) ||
					!bytes.Equal(got.CRL, want.CRL) || (got.CRL != nil) != x.crl || len(got.Contacts) != x.contacts ||
					!maps.Equal(got.Contacts, want.Contacts) || !bytes.Equal(got.Conversations, want.Conversations) ||
					!bytes.Equal(got.ConversationsRequests, want.ConversationsRequests) {
					t.Errorf("exported %+v, imported %+v", got, want)
				}
				for k, v := range want.Settings {
					if got.Settings[k] != v && k != settingHasPassword && k != settingAlias && k != settingRendezvous {
						t.Errorf("setting %s: %q, was %q", k, got.Settings[k], v)
					}
				}
			}
		})
	}
}

func TestImportRefusals(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	root, old := create(t)
	before := snapshot(t, root)
	_, _, err := (&Store{Root: root}).Import(stock(t, stockPlain), nil, testKeys().Device, Alone, time.Now())
	if !errors.Is(err, ErrExists) || snapshot(t, root) != before {
		t.Errorf("over an account: %v", err)
	}
	for name, x := range map[string]struct {
		file []byte
		pw   string
		want error
	}{
		"wrong password": {stock(t, stockPassword), "wrong", ErrPassword},
		"no password":    {stock(t, stockPassword), "", ErrPassword},
		"cut":            {stock(t, stockPlain)[:9000], "", jami.ErrArchive},
		"empty":          {nil, "", ErrPassword},
		"text":           {[]byte("hello"), "", ErrPassword},
	} {
		if _, _, err := (&Store{Root: root}).Import(x.file, []byte(x.pw), testKeys().Device, Main, time.Now()); !errors.Is(err, x.want) || snapshot(t, root) != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, aside, err := (&Store{Root: root}).Import(stock(t, stockPlain), nil, testKeys().Device, Main, time.Now())
	if err != nil || len(aside) != 1 || !strings.Contains(aside[0], filepath.Base(old.Dir)) {
		t.Fatal(aside, err)
	}
	if _, err := os.Stat(filepath.Join(aside[0], fileArchive)); err != nil {
		t.Error(err)
	}
	got, err := (&Store{Root: root}).Load()
	if err != nil || got.Dir != a.Dir {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPassword(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	root, a := create(t)
	pw, next := []byte("one"), []byte("two")
	if err := a.SetPassword(nil, pw); err != nil || a.Guard() != Known {
		t.Fatal(a.Guard(), err)
	}
	for _, x := range []struct {
		pw   []byte
		want Guard
	}{{pw, Known}, {nil, Locked}, {next, Locked}} {
		b, err := (&Store{Root: root, Password: x.pw}).Load()
		if err != nil || b.Guard() != x.want {
			t.Fatalf("with %q: %v, %v", x.pw, b, err)
		}
	}
	locked, err := (&Store{Root: root}).Load()
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, root)
	for _, wrong := range [][]byte{nil, next} {
		if _, err := locked.Export(wrong, nil); !errors.Is(err, ErrPassword) {
			t.Errorf("exported with %q: %v", wrong, err)
		}
		if err := locked.SetPassword(wrong, nil); !errors.Is(err, ErrPassword) {
			t.Errorf("changed with %q: %v", wrong, err)
		}
	}
	if snapshot(t, root) != before {
		t.Error("a wrong password changed files")
	}
	if err := locked.SetPassword(pw, next); err != nil || locked.Guard() != Known {
		t.Fatal(locked.Guard(), err)
	}
	if _, err := locked.Change(func(s *Settings) { s.Alias = "later" }); err != nil {
		t.Fatal(err)
	}
	if err := locked.SetPassword(nil, nil); err != nil || locked.Guard() != Plain {
		t.Fatal(locked.Guard(), err)
	}
	got, err := (&Store{Root: root, Password: pw}).Load() // one that is not needed
	if err != nil || got.Guard() != Plain || got.Settings().Alias != "later" {
		t.Fatal(got, err)
	}
	// What looks like an archive with a password and never had one is damaged.
	edit(t, filepath.Join(a.Dir, fileArchive), func(b []byte) []byte { b[0] = 0; return b })
	if _, err := (&Store{Root: root, Password: pw}).Load(); err == nil {
		t.Error("loaded a damaged archive")
	}
}

func TestChangeArchive(t *testing.T) {
	_, a := create(t)
	eth := bytes.Repeat([]byte{7}, 32)
	if err := a.ChangeArchive(nil, func(x *jami.Archive) error { x.EthKey = eth; return nil }); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, a.Dir)
	no := errors.New("no")
	if err := a.ChangeArchive(nil, func(x *jami.Archive) error { x.EthKey = nil; return no }); !errors.Is(err, no) || snapshot(t, a.Dir) != before {
		t.Errorf("%v", err)
	}
	if err := a.ChangeArchive(nil, func(x *jami.Archive) error {
		if !bytes.Equal(x.EthKey, eth) {
			t.Errorf("kept %q", x.EthKey)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshot(t *testing.T) {
	root, a := create(t)
	if err := os.WriteFile(filepath.Join(root, "bots.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{newPrefix + "x", asidePrefix + "x"} {
		if err := os.Mkdir(filepath.Join(root, hidden), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, hidden, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // changes meanwhile
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(5 * time.Millisecond):
			}
			if _, err := a.Change(func(s *Settings) { s.Rendezvous = i%2 == 0 }); err != nil {
				done <- err
				return
			}
		}
	}()
	files, err := Snapshot(root)
	close(stop)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for name, b := range files {
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := (&Store{Root: to}).Load()
	if err != nil || got.Chain.JamiID != a.Chain.JamiID {
		t.Errorf("restored %v, %v", got, err)
	}
	if names := slices.Sorted(maps.Keys(files)); len(names) != 8 || !slices.Contains(names, "bots.json") {
		t.Errorf("files %v", names)
	}
	if _, err := Snapshot(filepath.Join(root, "absent")); err == nil {
		t.Error("made a backup of nothing")
	}
}
