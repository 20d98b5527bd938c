// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/conference/room"
)

func open(t *testing.T) (*Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rooms")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func settings(name string) room.Settings {
	return room.Settings{Name: name, PIN: "1234", DefaultRole: room.Speaker, Token: strings.Repeat("a", 32), Created: time.Unix(1, 0).UTC()}
}

func TestSettings(t *testing.T) {
	d, path := open(t)
	if _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if _, err := d.Settings("main"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no room: %v", err)
	}
	s := settings("main")
	for _, locked := range []bool{false, true} {
		s.Locked = locked
		if err := d.Save(s); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.Settings("main"); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	if fi, err := os.Stat(filepath.Join(path, "main.json")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	prev, err := os.ReadFile(filepath.Join(path, "main.prev"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "main.json"), prev, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Settings("main"); err != nil || got.Locked {
		t.Errorf("restored as the message says: %+v, %v", got, err)
	}
	names, err := d.Names()
	if err != nil || !slices.Equal(names, []string{"main"}) {
		t.Errorf("names %v, %v", names, err)
	}
	if err := d.Remove("main"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Settings("main"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestDamagedSettings(t *testing.T) {
	d, path := open(t)
	if err := d.Save(settings("main")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "main.json")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":           {},
		"cut off":         good[:len(good)/2],
		"zeros":           make([]byte, len(good)),
		"something after": append(bytes.Clone(good), "{}"...),
		"unknown field":   bytes.Replace(good, []byte(`"title"`), []byte(`"tilte"`), 1),
		"another version": bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1),
		"another room":    bytes.Replace(good, []byte(`"main"`), []byte(`"side"`), 1),
		"no token":        bytes.Replace(good, []byte(strings.Repeat("a", 32)), nil, 1),
		"an unknown role": bytes.Replace(good, []byte(`"speaker"`), []byte(`"king"`), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := d.Settings("main")
			if dam, ok := errors.AsType[*DamagedError](err); !ok || dam.Path != file || dam.Restore == "" {
				t.Errorf("error %v", err)
			}
		})
	}
}

func reopen(t *testing.T, d *Dir) (*Journal, []string, error) {
	t.Helper()
	var recs []string
	j, err := d.Journal("main", func(b []byte) error { recs = append(recs, string(b)); return nil })
	if err == nil {
		t.Cleanup(func() { j.Close() })
	}
	return j, recs, err
}

func TestJournal(t *testing.T) {
	d, path := open(t)
	j, _, err := reopen(t, d)
	if err != nil {
		t.Fatal(err)
	}
	mark, err := j.Append([]byte(`{"a":1}`), []byte(`{"a":2}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(mark); err != nil {
		t.Fatal(err)
	}
	if err := j.Rewrite([]byte(`{"a":3}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte(`{"a":4}`)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "main.log")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) { // the machine stopped anywhere in the last line
		if cut < bytes.IndexByte(whole, '\n')+1 {
			continue
		}
		if err := os.WriteFile(file, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, recs, err := reopen(t, d)
		if err != nil || len(recs) != 1 || recs[0] != `{"a":3}` {
			t.Fatalf("cut at %d: %q, %v", cut, recs, err)
		}
		if _, err := j.Append([]byte(`{"a":5}`)); err != nil {
			t.Fatal(err)
		}
		if _, recs, err = reopen(t, d); err != nil || len(recs) != 2 {
			t.Fatalf("cut at %d and written on: %q, %v", cut, recs, err)
		}
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x01
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, recs, err := reopen(t, d)
		if _, ok := errors.AsType[*DamagedError](err); !ok && !(i == len(whole)-1 && len(recs) == 1) {
			t.Fatalf("bit of byte %d: %q, %v", i, recs, err)
		}
		if now, err := os.ReadFile(file); err != nil || i != len(whole)-1 && !bytes.Equal(now, bad) {
			t.Fatalf("the damaged file was changed: %v", err)
		}
	}
}

func TestSyncIsShared(t *testing.T) {
	d, _ := open(t)
	j, _, err := reopen(t, d)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		mark, err := j.Append(fmt.Appendf(nil, `{"n":%d}`, i))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := j.Sync(mark); err != nil {
				t.Error(err)
			}
		})
		if i == 25 {
			if err := j.Rewrite([]byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendRecord(nil, []byte(`{"a":1}`)))
	f.Add(appendRecord(appendRecord(nil, []byte(`{"a":1}`)), []byte(`{}`)))
	f.Add([]byte("00000000 \n"))
	f.Add([]byte("zzzzzzzz {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		whole, err := parseJournal(data, func(rec []byte) error { again = appendRecord(again, rec); return nil })
		if whole > int64(len(data)) || int64(len(again)) != whole {
			t.Fatalf("%d of %d bytes parsed, %d written", whole, len(data), len(again))
		}
		if !bytes.EqualFold(again, data[:whole]) { // the sum may be in capitals
			t.Fatalf("%q became %q", data[:whole], again)
		}
		if rest := data[whole:]; err == nil && bytes.IndexByte(rest, '\n') >= 0 {
			t.Fatalf("a whole line is left: %q", rest)
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"version":1,"room":{"name":"main","title":"","default_role":"speaker","moderator_token":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","created":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSettings(data)
		if err == nil && (!ValidName(s.Name) || !s.DefaultRole.Valid()) {
			t.Fatalf("taken: %+v", s)
		}
	})
}
