package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/dbfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// filled makes a file of accounts with devices, contacts and revocations.
func filled(t testing.TB, path string) {
	t.Helper()
	s, err := Open(path, [32]byte{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := namestest.Accounts(t, 12)
	now := time.Now()
	ca, err := jami.NewCA(keys[0], now)
	if err != nil {
		t.Fatal(err)
	}
	sign := func([]byte) ([]byte, error) { return bytes.Repeat([]byte("crl"), 100), nil }
	for i := range 5 {
		key := keys[1+i]
		acc, err := jami.NewAccount(&key.PublicKey, ca, keys[0], now)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("user-%d", i)
		if _, err := s.AddUser(User{Name: name, Cert: acc.Raw, Key: bytes.Repeat([]byte("k"), 1200), Created: now}); err != nil {
			t.Fatal(err)
		}
		dev, err := jami.NewDevice(&keys[6+i].PublicKey, acc, key, now)
		if err != nil {
			t.Fatal(err)
		}
		_, id := jami.CertIDs(dev)
		if _, err := s.AddDevice(Device{ID: id, User: name, Cert: dev.Raw, Created: now}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Merge(name, jams.Contacts{jami.HashKey(name): {Added: 7}}); err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			err = s.RevokeDevice(name, id, now, func(_ User, _ []Device, old []byte) ([]byte, error) { return sign(old) })
		}
		if i == 4 {
			err = s.RevokeUser(name, now, func(_ []User, old []byte) ([]byte, error) { return sign(old) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// all is what a store has, in words.
func all(t testing.TB, s *Store) string {
	t.Helper()
	out := ""
	for _, p := range s.Users() {
		u, err := s.User(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		devices, err := s.Devices(u.Name)
		if err != nil {
			t.Fatal(err)
		}
		contacts, err := s.Merge(u.Name, nil)
		if err != nil {
			t.Fatal(err)
		}
		crl, err := s.CRL(u.JamiID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		out += fmt.Sprintf("%+v %+v %v %x\n", u, devices, contacts, crl)
	}
	crl, err := s.CACRL()
	if err != nil {
		t.Fatal(err)
	}
	return out + fmt.Sprintf("%x", crl)
}

// Whatever happened to the file: it is refused with clear words and stays as it is, or
// all accounts are there.
func TestDamagedFile(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	path := filepath.Join(t.TempDir(), "accounts.db")
	filled(t, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, [32]byte{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := all(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused := 0
	try := func(what string, b []byte, must bool) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "accounts.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, [32]byte{1}, nil)
		if err != nil {
			refused++
			if !errors.Is(err, dbfile.ErrDamaged) && (must || !errors.Is(err, dbfile.ErrVersion) && !errors.Is(err, ErrOtherCA)) {
				t.Errorf("%s: %v", what, err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
				t.Errorf("%s: the file was changed, %v", what, err)
			}
			return
		}
		defer s.Close()
		if got := all(t, s); must || got != want {
			t.Errorf("%s: it opens with %d of %d bytes", what, len(got), len(want))
		}
	}
	for n := 0; n < len(good)-4096; n += 1021 {
		try(fmt.Sprintf("cut to %d", n), good[:n], n < 8192)
	}
	try("something else", bytes.Repeat([]byte("names\n"), 20_000), true)
	try("another file of zeros", make([]byte, len(good)), true)
	try("the first half twice", append(bytes.Clone(good[:len(good)/2]), good[:len(good)/2]...), false)
	r := rand.New(rand.NewPCG(3, 4))
	for range 400 {
		b := bytes.Clone(good)
		at := r.IntN(len(b))
		b[at] ^= 1 << r.IntN(8)
		try(fmt.Sprintf("a bit of byte %d", at), b, false)
	}
	if refused < 100 {
		t.Errorf("%d are refused", refused)
	}
	if _, err := Open(path, [32]byte{2}, nil); !errors.Is(err, ErrOtherCA) {
		t.Errorf("of another authority: %v", err)
	}
}

// A record with a right sum may still be anything.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("alice"), []byte(`{"name":"alice","cert":"AAAA","key":"AAAA"}`))
	f.Add(bytes.Repeat([]byte{1}, 32), []byte(`{"user":"alice","cert":"AAAA"}`))
	f.Add([]byte{}, []byte(`{}`))
	f.Fuzz(func(t *testing.T, key, b []byte) {
		if u, err := decodeUser(key, dbfile.Seal(key, b)); err == nil && u.Name != string(key) {
			t.Errorf("%+v", u)
		} else if err != nil && !errors.Is(err, dbfile.ErrDamaged) {
			t.Error(err)
		}
		if d, err := decodeDevice(key, dbfile.Seal(key, b)); err == nil && !bytes.Equal(d.ID[:], key) {
			t.Errorf("%+v", d)
		} else if err != nil && !errors.Is(err, dbfile.ErrDamaged) {
			t.Error(err)
		}
	})
}
